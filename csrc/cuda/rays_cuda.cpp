#include <torch/csrc/stable/library.h>

#include "../checks.h"
#include "../errors.h"
#include "../tensor.h"
#include "queries.h"
#include "runtime.h"

namespace db3kd::cuda {
namespace {

Tensor ray_lengths(const Tensor& samples, const Tensor& ends, const Tensor& sample_of,
                   const Tensor& end_of) {
  check_ray_lengths(samples, ends, sample_of, end_of);
  const Launching on(samples);
  Tensor lengths = make_empty({sample_of.size(0)}, ScalarType::Float, samples.device());

  const Contiguous<float> sample_data(samples), end_data(ends);
  const Contiguous<std::int64_t> sample_index(sample_of), end_index(end_of);
  const Rays rays{sample_data,     end_data,     sample_index,   end_index,
                  samples.size(0), ends.size(0), samples.size(1)};
  check_launch(
      launch_ray_lengths(rays, lengths.size(0), lengths.mutable_data_ptr<float>(), on.stream()));
  return lengths;
}

Tensor bracket_queries(const Tensor& samples, const Tensor& ends, const Tensor& sample_of,
                       const Tensor& pair_of, const Tensor& end_of, const Tensor& lengths,
                       const Tensor& radius, const Tensor& active, double lower, double upper,
                       ScalarType dtype) {
  check_bracket_queries(samples, ends, sample_of, pair_of, end_of, lengths, radius, active, lower,
                        upper, dtype);
  const Launching on(samples);
  Tensor queries = make_empty({active.size(0), samples.size(1)}, dtype, samples.device());

  const Contiguous<float> sample_data(samples), end_data(ends), length_of(lengths),
      radius_of(radius);
  const Contiguous<std::int64_t> sample_index(sample_of), pair_index(pair_of), end_index(end_of),
      ray_index(active);
  const Rays rays{sample_data,     end_data,     sample_index,   end_index,
                  samples.size(0), ends.size(0), samples.size(1)};
  const BracketQueries arguments{rays,      pair_index,      length_of,         radius_of,
                                 ray_index, pair_of.size(0), sample_of.size(0), active.size(0)};
  check_launch(launch_bracket_queries(arguments, sink_of(queries, lower, upper), on.stream()));
  return queries;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(db3kd, CUDA, library) {
  library.impl("ray_lengths", TORCH_BOX(ray_lengths));
  library.impl("bracket_queries", TORCH_BOX(bracket_queries));
}

}  // namespace db3kd::cuda
