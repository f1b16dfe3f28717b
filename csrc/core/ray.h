#pragma once

#include "platform.h"

namespace db3kd {

// Written so that NaN stays NaN and compilers emit plain minimum and maximum instructions.
DB3KD_HOST_DEVICE float clamp(float value, float lower, float upper) {
  const float raised = lower > value ? lower : value;
  return upper < raised ? upper : raised;
}

// A radius as a fraction of the ray. On a ray of length 0, every point is the sample.
DB3KD_HOST_DEVICE float fraction_of_ray(float radius, float length) {
  return length > 0.0f ? radius / length : 0.0f;
}

// One component of the point at a fraction of the ray from `sample` to `end`.
DB3KD_HOST_DEVICE float point_on_ray(float sample, float end, float fraction, float lower,
                                     float upper) {
  return clamp(sample + fraction * (end - sample), lower, upper);
}

}  // namespace db3kd
