#include "rays.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "../checks.h"
#include "../core/ray.h"
#include "../errors.h"
#include "../tensor.h"
#include "loops.h"
#include "result_memory.h"
#include "rows.h"

namespace db3kd::cpu {
namespace {

// Results of so many numbers, 32 MiB, do not fit into the caches that a core has to itself, and
// have left them before a teacher reads them.
constexpr std::int64_t kStreamed = std::int64_t{8} << 20;
// Numbers of a row that are written at once if they are streamed: 32 KiB.
constexpr std::int64_t kPart = 8192;

Tensor ray_lengths(const Tensor& samples, const Tensor& ends, const Tensor& sample_of,
                   const Tensor& end_of) {
  check_ray_lengths(samples, ends, sample_of, end_of);
  const std::int64_t size = samples.size(1);
  Tensor lengths = make_empty({sample_of.size(0)}, ScalarType::Float, samples.device());

  const Contiguous<float> sample_data(samples), end_data(ends);
  const Contiguous<std::int64_t> sample_index(sample_of), end_index(end_of);
  float* out = lengths.mutable_data_ptr<float>();
  parallel_rows(lengths.size(0), rows_per_task(size), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t ray = begin; ray < end; ++ray) {
      const std::int64_t s = checked_index(sample_index, ray, samples.size(0), "sample_of");
      const std::int64_t e = checked_index(end_index, ray, ends.size(0), "end_of");
      out[ray] = distance_between(sample_data + s * size, end_data + e * size, size);
    }
  });
  return lengths;
}

Tensor bracket_queries(const Tensor& samples, const Tensor& ends, const Tensor& sample_of,
                       const Tensor& pair_of, const Tensor& end_of, const Tensor& lengths,
                       const Tensor& radius, const Tensor& active, double lower, double upper,
                       ScalarType dtype) {
  check_bracket_queries(samples, ends, sample_of, pair_of, end_of, lengths, radius, active, lower,
                        upper, dtype);
  const Tensor queries = make_result(active.size(0), samples.size(1));
  const PairRays rays(samples, ends, sample_of, pair_of, end_of, lengths);
  const Contiguous<float> radius_of(radius);
  const Contiguous<std::int64_t> ray_index(active);
  write_queries(rays, radius_of, ray_index, lower, upper, queries);
  return as_dtype(queries, dtype);
}

}  // namespace

void write_queries(const PairRays& rays, const float* radius, const std::int64_t* active,
                   double lower, double upper, const Tensor& queries) {
  const auto low = static_cast<float>(lower), high = static_cast<float>(upper);
  const std::int64_t rows = queries.size(0), size = rays.size;
  float* out = queries.mutable_data_ptr<float>();
  // Rows that go past the caches are written in parts, so that those hold the same part of the
  // samples and ends of all rays.
  const bool streams = rows * size >= kStreamed;
  const std::int64_t part = streams ? kPart : std::max<std::int64_t>(size, 1);
  parallel_rows(rows, rows_per_task(size), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t first = 0; first == 0 || first < size; first += part) {
      const std::int64_t count = std::min(part, size - first);
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t ray = checked_index(active, row, rays.ray_count, "active");
        const std::int64_t pair = checked_index(rays.pair_of, ray, rays.pair_count, "pair_of");
        const std::int64_t s = checked_index(rays.sample_of, pair, rays.sample_count, "sample_of");
        const std::int64_t e = checked_index(rays.end_of, ray, rays.end_count, "end_of");
        (streams ? stream_points_on_ray : points_on_ray)(
            rays.samples + s * size + first, rays.ends + e * size + first,
            fraction_of_ray(radius[pair], rays.lengths[ray]), low, high, count,
            out + row * size + first);
      }
    }
    if (streams) finish_streams();
  });
}

STABLE_TORCH_LIBRARY_IMPL(db3kd, CPU, library) {
  library.impl("ray_lengths", TORCH_BOX(ray_lengths));
  library.impl("bracket_queries", TORCH_BOX(bracket_queries));
}

}  // namespace db3kd::cpu
