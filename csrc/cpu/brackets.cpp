#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "../checks.h"
#include "../core/bracket.h"
#include "../errors.h"
#include "../tensor.h"
#include "loops.h"
#include "rays.h"
#include "result_memory.h"

namespace db3kd::cpu {
namespace {

// The pair of each active ray. All indices are checked here, before anything is updated. The pairs
// must ascend: one that occurred twice would be narrowed twice.
std::vector<std::int64_t> pairs_of_active(const PairRays& rays, const std::int64_t* active,
                                          std::int64_t rows) {
  std::vector<std::int64_t> result(rows);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t ray = checked_index(active, row, rays.ray_count, "active");
    const std::int64_t pair = checked_index(rays.pair_of, ray, rays.pair_count, "pair_of");
    checked_index(rays.sample_of, pair, rays.sample_count, "sample_of");
    checked_index(rays.end_of, ray, rays.end_count, "end_of");
    if (row > 0 && pair < result[row - 1]) fail_order(row);
    result[row] = pair;
  }
  return result;
}

Tensor as_tensor(const std::vector<std::int64_t>& values, const Device& device) {
  Tensor tensor = make_empty({static_cast<std::int64_t>(values.size())}, ScalarType::Long, device);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<std::int64_t>());
  return tensor;
}

// Visits each active ray once. A ray takes a few nanoseconds and a decision microseconds, so one
// thread is enough; all threads write the queries.
std::tuple<Tensor, Tensor, Tensor> bracket_step(
    const Tensor& low, const Tensor& high, const Tensor& radius, const Tensor& winner,
    const Tensor& active, const Tensor& decisions, const Tensor& samples, const Tensor& ends,
    const Tensor& sample_of, const Tensor& pair_of, const Tensor& end_of, const Tensor& lengths,
    const Tensor& criterion_class, bool targeted, double absolute, double relative, double lower,
    double upper, std::int64_t limit) {
  check_bracket_step(low, high, radius, winner, active, decisions, samples, ends, sample_of,
                     pair_of, end_of, lengths, criterion_class, absolute, relative, lower, upper,
                     limit);
  const std::int64_t rows = active.size(0);
  const Tolerance tolerance{static_cast<float>(absolute), static_cast<float>(relative)};

  const PairRays rays(samples, ends, sample_of, pair_of, end_of, lengths);
  const Contiguous<std::int64_t> ray(active), decision(decisions), criterion_data(criterion_class);
  float* lows = low.mutable_data_ptr<float>();
  float* highs = high.mutable_data_ptr<float>();
  float* radii = radius.mutable_data_ptr<float>();
  auto* winners = winner.mutable_data_ptr<std::int64_t>();
  const auto pair_at = pairs_of_active(rays, ray, rows);

  std::vector<std::int64_t> next_rays, next_pairs;
  next_rays.reserve(rows);
  next_pairs.reserve(rows);
  for (std::int64_t begin = 0, end = 0; begin < rows; begin = end) {
    const std::int64_t pair = pair_at[begin];
    const auto outcome = [&](std::int64_t row) {
      return outcome_of(decision[row], criterion_data[pair], targeted);
    };
    Answers answers;
    for (end = begin; end < rows && pair_at[end] == pair; ++end)
      answers.add(ray[end], outcome(end));

    Bracket bracket{lows[pair], highs[pair], radii[pair]};
    const bool goes_on = narrow(bracket, answers, tolerance);
    lows[pair] = bracket.low;
    highs[pair] = bracket.high;
    radii[pair] = bracket.radius;
    if (answers.hit()) winners[pair] = answers.first_hit;
    for (std::int64_t row = begin; goes_on && row < end; ++row) {
      if (!can_still_win(outcome(row), answers)) continue;
      next_rays.push_back(ray[row]);
      next_pairs.push_back(pair);
    }
  }

  const auto remaining = static_cast<std::int64_t>(next_rays.size());
  const Tensor queries = make_result(std::min(remaining, limit), rays.size);
  write_queries(rays, radii, next_rays.data(), lower, upper, queries);
  return {as_tensor(next_rays, active.device()), as_tensor(next_pairs, active.device()), queries};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(db3kd, CPU, library) {
  library.impl("bracket_step", TORCH_BOX(bracket_step));
}

}  // namespace db3kd::cpu
