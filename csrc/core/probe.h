#pragma once

#include <cstdint>

#include "bracket.h"
#include "platform.h"

namespace db3kd {

// How many probes of a round ended on the wanted side and how many did not.
struct Tally {
  std::int64_t hits = 0;
  std::int64_t misses = 0;

  DB3KD_HOST_DEVICE void add(Outcome outcome) {
    hits += outcome == Outcome::kHit;
    misses += outcome == Outcome::kMiss;
  }
};

// The weight of one probe's direction in the gradient: its sign minus the mean sign, which takes
// the variance that all probes share out of the estimate. Where all signs agree that would leave
// nothing, so the sign itself is the weight.
DB3KD_HOST_DEVICE float probe_weight(Outcome outcome, const Tally& tally) {
  if (outcome == Outcome::kUnanswered) return 0.0f;
  const float sign = outcome == Outcome::kHit ? 1.0f : -1.0f;
  if (tally.hits == 0 || tally.misses == 0) return sign;
  const float mean =
      static_cast<float>(tally.hits - tally.misses) / static_cast<float>(tally.hits + tally.misses);
  return sign - mean;
}

}  // namespace db3kd
