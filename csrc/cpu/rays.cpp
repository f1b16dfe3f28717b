#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "../checks.h"
#include "../contiguous.h"
#include "../core/ray.h"
#include "loops.h"
#include "rows.h"

namespace db3kd::cpu {
namespace {

at::Tensor ray_lengths(const at::Tensor& samples, const at::Tensor& ends,
                       const at::Tensor& sample_of, const at::Tensor& end_of) {
  check_ray_lengths(samples, ends, sample_of, end_of);
  const std::int64_t size = samples.size(1);
  at::Tensor lengths = at::empty({sample_of.size(0)}, samples.options());

  const Contiguous<float> sample_data(samples), end_data(ends);
  const Contiguous<std::int64_t> sample_index(sample_of), end_index(end_of);
  float* out = lengths.mutable_data_ptr<float>();
  at::parallel_for(
      0, lengths.size(0), rows_per_task(size), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t ray = begin; ray < end; ++ray) {
          const std::int64_t s = checked_index(sample_index, ray, samples.size(0), "sample_of");
          const std::int64_t e = checked_index(end_index, ray, ends.size(0), "end_of");
          out[ray] = distance_between(sample_data + s * size, end_data + e * size, size);
        }
      });
  return lengths;
}

at::Tensor bracket_queries(const at::Tensor& samples, const at::Tensor& ends,
                           const at::Tensor& sample_of, const at::Tensor& pair_of,
                           const at::Tensor& end_of, const at::Tensor& lengths,
                           const at::Tensor& radius, const at::Tensor& active, double lower,
                           double upper, at::ScalarType dtype) {
  check_bracket_queries(samples, ends, sample_of, pair_of, end_of, lengths, radius, active, lower,
                        upper, dtype);
  const std::int64_t size = samples.size(1);
  const auto low = static_cast<float>(lower), high = static_cast<float>(upper);
  at::Tensor queries = at::empty({active.size(0), size}, samples.options());

  const Contiguous<float> sample_data(samples), end_data(ends), length_of(lengths),
      radius_of(radius);
  const Contiguous<std::int64_t> sample_index(sample_of), pair_index(pair_of), end_index(end_of),
      ray_index(active);
  float* out = queries.mutable_data_ptr<float>();
  at::parallel_for(
      0, active.size(0), rows_per_task(size), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          const std::int64_t ray = checked_index(ray_index, row, pair_of.size(0), "active");
          const std::int64_t pair = checked_index(pair_index, ray, sample_of.size(0), "pair_of");
          const std::int64_t s = checked_index(sample_index, pair, samples.size(0), "sample_of");
          const std::int64_t e = checked_index(end_index, ray, ends.size(0), "end_of");
          points_on_ray(sample_data + s * size, end_data + e * size,
                        fraction_of_ray(radius_of[pair], length_of[ray]), low, high, size,
                        out + row * size);
        }
      });
  return queries.to(dtype);
}

}  // namespace

TORCH_LIBRARY_IMPL(db3kd, CPU, library) {
  library.impl("ray_lengths", &ray_lengths);
  library.impl("bracket_queries", &bracket_queries);
}

}  // namespace db3kd::cpu
