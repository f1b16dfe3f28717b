#pragma once

#include <cmath>
#include <cstdint>

#include "platform.h"

// Turns one row of distances into one soft label, in double precision, so that the reciprocal of
// the smallest float is finite.

namespace db3kd {

enum class Normalisation { kInverse, kMargin };

struct SoftLabelSettings {
  Normalisation normalisation;
  double scale;
  double temperature;
};

// Distances are positive; infinity means that the class was not reached.
DB3KD_HOST_DEVICE bool is_distance(float distance) { return distance > 0.0f; }

DB3KD_HOST_DEVICE double logit(float distance, const SoftLabelSettings& settings) {
  if (settings.normalisation == Normalisation::kMargin) return -settings.scale * distance;
  return 1.0 / static_cast<double>(distance);  // 0 where not reached
}

// The logit of the predicted class, which is the largest of its row.
DB3KD_HOST_DEVICE double predicted_logit(const float* distances, std::int64_t classes,
                                         std::int64_t predicted,
                                         const SoftLabelSettings& settings) {
  if (settings.normalisation == Normalisation::kMargin) return 0.0;
  double sum = 0.0;
  for (std::int64_t m = 0; m < classes; ++m) {
    if (m != predicted) sum += logit(distances[m], settings);
  }
  return sum;
}

// The weight of another class relative to that of the predicted class, which is 1.
DB3KD_HOST_DEVICE double relative_weight(float distance, double predicted,
                                         const SoftLabelSettings& settings) {
  return exp((logit(distance, settings) - predicted) / settings.temperature);
}

}  // namespace db3kd
