#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>

#include "../checks.h"
#include "../tensor.h"
#include "kernels.h"
#include "runtime.h"

namespace db3kd::cuda {
namespace {

// Two launches. The first one narrows and keeps rays chunk by chunk, and leaves the counts in
// memory of the host. The second one needs the counts of all chunks to compute where each ray is
// written, so it cannot be part of the first; it compacts and writes queries while the host wakes
// up. The host has to learn the number of rays, because each of them is one paid query of the next
// batch.
std::tuple<Tensor, Tensor, Tensor> bracket_step(
    const Tensor& low, const Tensor& high, const Tensor& radius, const Tensor& winner,
    const Tensor& active, const Tensor& decisions, const Tensor& samples, const Tensor& ends,
    const Tensor& sample_of, const Tensor& pair_of, const Tensor& end_of, const Tensor& lengths,
    const Tensor& criterion_class, bool targeted, double absolute, double relative, double lower,
    double upper, std::int64_t limit) {
  check_bracket_step(low, high, radius, winner, active, decisions, samples, ends, sample_of,
                     pair_of, end_of, lengths, criterion_class, absolute, relative, lower, upper,
                     limit);
  const Launching on(low);
  const std::int64_t rows = active.size(0), size = samples.size(1);
  const auto numbers = [&](std::int64_t count) {
    return make_empty({count}, ScalarType::Long, active.device());
  };
  const Tensor next_active = numbers(rows), next_pairs = numbers(rows);
  const Tensor queries =
      make_empty({std::min(rows, limit), size}, ScalarType::Float, samples.device());
  if (rows == 0) return {next_active, next_pairs, queries};

  const Contiguous<float> sample_data(samples), end_data(ends), length_of(lengths);
  const Contiguous<std::int64_t> sample_index(sample_of), ray_pair(pair_of), end_index(end_of),
      ray(active), decision(decisions), criterion_data(criterion_class);
  const std::int64_t chunk_rows = chunk_rows_for(rows), chunks = (rows - 1) / chunk_rows + 1;
  const Tensor kept = numbers(rows), firsts = numbers(chunks), counts = numbers(chunks);
  HostNumbers host_counts(chunks, on.stream());
  const BracketStep step{low.mutable_data_ptr<float>(),
                         high.mutable_data_ptr<float>(),
                         radius.mutable_data_ptr<float>(),
                         winner.mutable_data_ptr<std::int64_t>(),
                         ray,
                         ray_pair,
                         decision,
                         criterion_data,
                         low.size(0),
                         pair_of.size(0),
                         rows,
                         targeted,
                         {static_cast<float>(absolute), static_cast<float>(relative)},
                         chunks,
                         chunk_rows,
                         kept.mutable_data_ptr<std::int64_t>(),
                         firsts.mutable_data_ptr<std::int64_t>(),
                         counts.mutable_data_ptr<std::int64_t>(),
                         host_counts.on_device()};
  check_launch(launch_bracket_step(step, on.stream()));
  host_counts.are_written();

  const NextRays next{step.kept,
                      step.first_of_chunk,
                      step.count_of_chunk,
                      chunks,
                      rows,
                      next_active.mutable_data_ptr<std::int64_t>(),
                      next_pairs.mutable_data_ptr<std::int64_t>()};
  const Rays rays{sample_data,     end_data,     sample_index, end_index,
                  samples.size(0), ends.size(0), size};
  const BracketQueries at{rays,    ray_pair,       length_of,       step.radius,
                          nullptr, step.ray_count, step.pair_count, 0};
  check_launch(launch_next_queries(next, at, limit, queries.mutable_data_ptr<float>(),
                                   static_cast<float>(lower), static_cast<float>(upper),
                                   on.stream()));

  const std::int64_t* count = host_counts.wait();
  std::int64_t remaining = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    if (count[chunk] < 0) fail_order(-1 - count[chunk]);
    remaining += count[chunk];
  }
  const auto first = [](Tensor tensor, std::int64_t length) {
    return torch::stable::narrow(tensor, 0, 0, length);
  };
  return {first(next_active, remaining), first(next_pairs, remaining),
          first(queries, std::min(remaining, limit))};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(db3kd, CUDA, library) {
  library.impl("bracket_step", TORCH_BOX(bracket_step));
}

}  // namespace db3kd::cuda
