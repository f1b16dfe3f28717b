#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <vector>

#include "../checks.h"
#include "../core/bracket.h"
#include "../errors.h"
#include "../tensor.h"
#include "loops.h"

namespace db3kd::cpu {
namespace {

// The pair of each active ray. The rays of one pair must be adjacent: a pair that occurred twice
// would be narrowed twice.
std::vector<std::int64_t> pairs_of_active(const std::int64_t* active, std::int64_t rows,
                                          const std::int64_t* pair_of, std::int64_t rays,
                                          std::int64_t pairs) {
  std::vector<std::int64_t> result(rows);
  std::vector<bool> met(pairs);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t ray = checked_index(active, row, rays, "active");
    const std::int64_t pair = checked_index(pair_of, ray, pairs, "pair_of");
    result[row] = pair;
    if (row > 0 && result[row - 1] == pair) continue;
    DB3KD_CHECK(ValueError, !met[pair],
                "active: expected the rays of a pair side by side, got pair ", pair, " again at ",
                row);
    met[pair] = true;
  }
  return result;
}

// Visits each active ray once. A ray takes a few nanoseconds and a decision microseconds, so one
// thread is enough.
Tensor bracket_update(const Tensor& low, const Tensor& high, const Tensor& radius,
                      const Tensor& winner, const Tensor& active, const Tensor& pair_of,
                      const Tensor& decisions, const Tensor& criterion_class, bool targeted,
                      double absolute, double relative) {
  check_bracket_update(low, high, radius, winner, active, pair_of, decisions, criterion_class,
                       absolute, relative);
  const std::int64_t rows = active.size(0);
  const Tolerance tolerance{static_cast<float>(absolute), static_cast<float>(relative)};

  const Contiguous<std::int64_t> ray(active), ray_pair(pair_of), decision(decisions),
      criterion_data(criterion_class);
  float* lows = low.mutable_data_ptr<float>();
  float* highs = high.mutable_data_ptr<float>();
  float* radii = radius.mutable_data_ptr<float>();
  auto* winners = winner.mutable_data_ptr<std::int64_t>();
  const auto pair_at = pairs_of_active(ray, rows, ray_pair, pair_of.size(0), low.size(0));

  std::vector<std::int64_t> survivors;
  survivors.reserve(rows);
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
      if (can_still_win(outcome(row), answers)) survivors.push_back(ray[row]);
    }
  }

  Tensor next =
      make_empty({static_cast<std::int64_t>(survivors.size())}, ScalarType::Long, active.device());
  std::copy(survivors.begin(), survivors.end(), next.mutable_data_ptr<std::int64_t>());
  return next;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(db3kd, CPU, library) {
  library.impl("bracket_update", TORCH_BOX(bracket_update));
}

}  // namespace db3kd::cpu
