#pragma once

#include <cstdint>

#include "../core/noise.h"
#include "../core/random.h"

// The inner loops of the CPU ops, one row of an image matrix at a time. Torch-free.

namespace db3kd::cpu {

float distance_between(const float* a, const float* b, std::int64_t size);

void points_on_ray(const float* sample, const float* end, float fraction, float lower, float upper,
                   std::int64_t size, float* out);

// The same bits, written past the caches, which then need not read the lines first. A task that
// calls it must call finish_streams at its end.
void stream_points_on_ray(const float* sample, const float* end, float fraction, float lower,
                          float upper, std::int64_t size, float* out);
void finish_streams();

// Sums in double precision use 16 lanes: element i is added to lane i % 16, and the lanes are added
// pairwise.
constexpr int kLanes = 16;

// The inner product of `point`, relative to `origin`, with a direction of `size` numbers. It is
// added up in parts, while they are in the processor's cache, with the same bits for any parts.
class Along {
 public:
  Along(const float* origin, const float* point, const float* direction, std::int64_t size)
      : origin_(origin), point_(point), direction_(direction), size_(size) {}

  // Adds numbers up to `end`, or somewhat fewer; they are final in the direction.
  void add_up_to(std::int64_t end);

  double total();

 private:
  const float *origin_, *point_, *direction_;
  std::int64_t size_, done_ = 0;
  double lanes_[kLanes] = {};
};

// `out` may be the direction itself.
void points_at_radius(const float* origin, const float* point, const float* direction, float step,
                      float correction, float lower, float upper, std::int64_t size, float* out);

// Random numbers are drawn in whole vectors, so a buffer for `size` numbers holds padded(size)
// floats.
constexpr std::int64_t kPadding = 64;
constexpr std::int64_t padded(std::int64_t size) {
  return (size + kPadding - 1) / kPadding * kPadding;
}

// Draws a direction of any length into out [padded(size)] and returns 1 / its length.
float draw_direction(Noise noise, const DirectionId& id, std::int64_t size, float* out);

// total += weight · direction
void accumulate(const float* direction, float weight, std::int64_t size, float* total);

// Scales a vector to length 1; zeros stay zeros.
void normalise(std::int64_t size, float* vector);

}  // namespace db3kd::cpu
