#include "rows.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cmath>

#include "../core/probe.h"
#include "../core/ray.h"
#include "clones.h"

namespace db3kd::cpu {
namespace {

DB3KD_HOST_DEVICE double sum_of(double (&lanes)[kLanes]) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

DB3KD_CLONES double squared_length(const float* vector, std::int64_t size) {
  double lanes[kLanes] = {};
  const std::int64_t whole = size / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double value = vector[i + lane];
      lanes[lane] += value * value;
    }
  }
  for (std::int64_t i = whole; i < size; ++i) {
    const double value = vector[i];
    lanes[i - whole] += value * value;
  }
  return sum_of(lanes);
}

constexpr int kBlocks = kPadding / kGaussianPerBlock;  // drawn side by side
constexpr int kWordBits = 32;

DB3KD_CLONES void draw_rademacher(const DirectionId& id, std::int64_t size, float* out) {
  std::uint32_t block = 0;
  for (std::int64_t done = 0; done < size; block += kBlocks) {
    const auto random = random_blocks<kBlocks>(id, block);
    for (int lane = 0; lane < kBlocks; ++lane) {
      for (int j = 0; j < 4 && done < size; ++j, done += kWordBits) {
        const std::uint32_t word = random.word[j][lane];
        for (int bit = 0; bit < kWordBits; ++bit) out[done + bit] = rademacher(word, bit);
      }
    }
  }
}

DB3KD_CLONES void draw_gaussian(const DirectionId& id, std::int64_t size, float* out) {
  std::uint32_t block = 0;
  for (std::int64_t done = 0; done < size; done += kPadding, block += kBlocks) {
    const auto random = random_blocks<kBlocks>(id, block);
    float normal[4][kBlocks];
    for (int lane = 0; lane < kBlocks; ++lane) {
      box_muller(random.word[0][lane], random.word[1][lane], normal[0][lane], normal[1][lane]);
      box_muller(random.word[2][lane], random.word[3][lane], normal[2][lane], normal[3][lane]);
    }
    for (int lane = 0; lane < kBlocks; ++lane) {
      for (int j = 0; j < 4; ++j) out[done + 4 * lane + j] = normal[j][lane];
    }
  }
}

}  // namespace

DB3KD_CLONES float distance_between(const float* a, const float* b, std::int64_t size) {
  double lanes[kLanes] = {};
  const std::int64_t whole = size / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double difference = static_cast<double>(a[i + lane]) - b[i + lane];
      lanes[lane] += difference * difference;
    }
  }
  for (std::int64_t i = whole; i < size; ++i) {
    const double difference = static_cast<double>(a[i]) - b[i];
    lanes[i - whole] += difference * difference;
  }
  return static_cast<float>(std::sqrt(sum_of(lanes)));
}

DB3KD_CLONES void points_on_ray(const float* sample, const float* end, float fraction, float lower,
                                float upper, std::int64_t size, float* out) {
  for (std::int64_t i = 0; i < size; ++i) {
    out[i] = point_on_ray(sample[i], end[i], fraction, lower, upper);
  }
}

#if defined(__SSE2__)

void stream_points_on_ray(const float* sample, const float* end, float fraction, float lower,
                          float upper, std::int64_t size, float* out) {
  const auto write_one = [&](std::int64_t i) {
    out[i] = point_on_ray(sample[i], end[i], fraction, lower, upper);
  };
  std::int64_t i = 0;
  for (; i < size && reinterpret_cast<std::uintptr_t>(out + i) % sizeof(__m128) != 0; ++i)
    write_one(i);
  const __m128 along = _mm_set1_ps(fraction), low = _mm_set1_ps(lower), high = _mm_set1_ps(upper);
  for (; i + 4 <= size; i += 4) {
    const __m128 from = _mm_loadu_ps(sample + i), to = _mm_loadu_ps(end + i);
    const __m128 point = _mm_add_ps(from, _mm_mul_ps(along, _mm_sub_ps(to, from)));
    // Minimum and maximum return their second operand if one is NaN, as clamp does.
    _mm_stream_ps(out + i, _mm_min_ps(high, _mm_max_ps(low, point)));
  }
  for (; i < size; ++i) write_one(i);
}

void finish_streams() { _mm_sfence(); }

#else

void stream_points_on_ray(const float* sample, const float* end, float fraction, float lower,
                          float upper, std::int64_t size, float* out) {
  points_on_ray(sample, end, fraction, lower, upper, size, out);
}

void finish_streams() {}

#endif

namespace {

// From begin, a multiple of kLanes or the end, to end.
DB3KD_CLONES void add_along(const float* origin, const float* point, const float* direction,
                            std::int64_t begin, std::int64_t end, double (&sums)[kLanes]) {
  double lanes[kLanes];
  std::copy_n(sums, kLanes, lanes);
  const std::int64_t whole = end / kLanes * kLanes;
  for (std::int64_t i = begin; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const std::int64_t at = i + lane;
      lanes[lane] += static_cast<double>(point[at] - origin[at]) * direction[at];
    }
  }
  for (std::int64_t i = std::max(begin, whole); i < end; ++i) {
    lanes[i - whole] += static_cast<double>(point[i] - origin[i]) * direction[i];
  }
  std::copy_n(lanes, kLanes, sums);
}

}  // namespace

void Along::add_up_to(std::int64_t end) {
  if (end < size_) end = end / kLanes * kLanes;
  add_along(origin_, point_, direction_, done_, end, lanes_);
  done_ = end;
}

double Along::total() {
  add_up_to(size_);
  return sum_of(lanes_);
}

DB3KD_CLONES void points_at_radius(const float* origin, const float* point, const float* direction,
                                   float step, float correction, float lower, float upper,
                                   std::int64_t size, float* out) {
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC ivdep  // a step reads and writes one place, which it may share
#endif
  for (std::int64_t i = 0; i < size; ++i) {
    out[i] = point_at_radius(origin[i], point[i] - origin[i], step, direction[i], correction, lower,
                             upper);
  }
}

float draw_direction(Noise noise, const DirectionId& id, std::int64_t size, float* out) {
  if (noise == Noise::kRademacher) {
    draw_rademacher(id, size, out);
    return unit_scale(static_cast<double>(size));  // signs all have size 1
  }
  draw_gaussian(id, size, out);
  return unit_scale(squared_length(out, size));
}

DB3KD_CLONES void accumulate(const float* direction, float weight, std::int64_t size,
                             float* total) {
  for (std::int64_t i = 0; i < size; ++i) total[i] += weight * direction[i];
}

DB3KD_CLONES void normalise(std::int64_t size, float* vector) {
  const double squared = squared_length(vector, size);
  if (squared == 0.0) return;
  const float scale = unit_scale(squared);
  for (std::int64_t i = 0; i < size; ++i) vector[i] *= scale;
}

}  // namespace db3kd::cpu
