#pragma once

#include <cmath>
#include <cstdint>

#include "bracket.h"
#include "platform.h"
#include "ray.h"

namespace db3kd {

// The number of probes of a round that hit and that missed the criterion.
struct Tally {
  std::int64_t hits = 0;
  std::int64_t misses = 0;

  DB3KD_HOST_DEVICE void add(Outcome outcome) {
    hits += outcome == Outcome::kHit;
    misses += outcome == Outcome::kMiss;
  }
};

// The factor that moves a step away from a point back to the point's own distance from the origin.
// `along` is the inner product of the point, relative to the origin, with the direction of the
// step.
DB3KD_HOST_DEVICE float radius_correction(double radius, double step, double along) {
  const double squared = radius * radius + step * (2 * along + step);
  return squared > 0.0 ? static_cast<float>(radius / sqrt(squared)) : 0.0f;
}

// One component of the query one step away from the point at `offset` from `origin`, moved back to
// the point's distance.
DB3KD_HOST_DEVICE float point_at_radius(float origin, float offset, float step, float direction,
                                        float correction, float lower, float upper) {
  return clamp(origin + correction * (offset + step * direction), lower, upper);
}

// The weight of one probe's direction in the gradient: its sign minus the mean sign, which removes
// the variance that all probes share. If all signs agree, that would be 0, so the sign itself is
// the weight.
DB3KD_HOST_DEVICE float probe_weight(Outcome outcome, const Tally& tally) {
  if (outcome == Outcome::kUnanswered) return 0.0f;
  const float sign = outcome == Outcome::kHit ? 1.0f : -1.0f;
  if (tally.hits == 0 || tally.misses == 0) return sign;
  const float mean =
      static_cast<float>(tally.hits - tally.misses) / static_cast<float>(tally.hits + tally.misses);
  return sign - mean;
}

}  // namespace db3kd
