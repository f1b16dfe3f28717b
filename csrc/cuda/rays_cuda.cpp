#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "../checks.h"
#include "../contiguous.h"
#include "queries.h"

namespace db3kd::cuda {
namespace {

at::Tensor ray_lengths(const at::Tensor& samples, const at::Tensor& ends,
                       const at::Tensor& sample_of, const at::Tensor& end_of) {
  check_ray_lengths(samples, ends, sample_of, end_of);
  const c10::cuda::CUDAGuard guard(samples.device());
  at::Tensor lengths = at::empty({sample_of.size(0)}, samples.options());

  const Contiguous<float> sample_data(samples), end_data(ends);
  const Contiguous<std::int64_t> sample_index(sample_of), end_index(end_of);
  const Rays rays{sample_data,     end_data,     sample_index,   end_index,
                  samples.size(0), ends.size(0), samples.size(1)};
  C10_CUDA_CHECK(launch_ray_lengths(rays, lengths.size(0), lengths.mutable_data_ptr<float>(),
                                    c10::cuda::getCurrentCUDAStream()));
  return lengths;
}

at::Tensor bracket_queries(const at::Tensor& samples, const at::Tensor& ends,
                           const at::Tensor& sample_of, const at::Tensor& pair_of,
                           const at::Tensor& end_of, const at::Tensor& lengths,
                           const at::Tensor& radius, const at::Tensor& active, double lower,
                           double upper, at::ScalarType dtype) {
  check_bracket_queries(samples, ends, sample_of, pair_of, end_of, lengths, radius, active, lower,
                        upper, dtype);
  const c10::cuda::CUDAGuard guard(samples.device());
  at::Tensor queries = at::empty({active.size(0), samples.size(1)}, samples.options().dtype(dtype));

  const Contiguous<float> sample_data(samples), end_data(ends), length_of(lengths),
      radius_of(radius);
  const Contiguous<std::int64_t> sample_index(sample_of), pair_index(pair_of), end_index(end_of),
      ray_index(active);
  const Rays rays{sample_data,     end_data,     sample_index,   end_index,
                  samples.size(0), ends.size(0), samples.size(1)};
  const BracketQueries arguments{rays,      pair_index,      length_of,         radius_of,
                                 ray_index, pair_of.size(0), sample_of.size(0), active.size(0)};
  C10_CUDA_CHECK(launch_bracket_queries(arguments, sink_of(queries, lower, upper),
                                        c10::cuda::getCurrentCUDAStream()));
  return queries;
}

}  // namespace

TORCH_LIBRARY_IMPL(db3kd, CUDA, library) {
  library.impl("ray_lengths", &ray_lengths);
  library.impl("bracket_queries", &bracket_queries);
}

}  // namespace db3kd::cuda
