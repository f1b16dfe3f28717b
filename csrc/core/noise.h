#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "platform.h"

// Turns random words into components of a direction. Logarithm, sine and cosine are implemented
// here because those of the C library neither vectorise without fast math nor give the same bits on
// every machine. Errors of 1e-6 do not matter for a random direction.

namespace db3kd {

enum class Noise { kRademacher, kGaussian };

// Components per Philox block of four words.
constexpr int kRademacherPerBlock = 128;  // one bit each
constexpr int kGaussianPerBlock = 4;      // one word each

// −1 or +1 from one bit of a word: component c of a direction uses bit c % 32 of word c / 32 % 4 of
// block c / 128.
DB3KD_HOST_DEVICE float rademacher(std::uint32_t word, int bit) {
  return static_cast<float>(static_cast<std::int32_t>((word >> bit & 1u) << 1) - 1);
}

// Natural logarithm of a normal positive float: ln m = 2 artanh((m − 1) / (m + 1)), m in [√½, √2).
DB3KD_HOST_DEVICE float natural_log(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t shifted = bits - 0x3F3504F3u;  // the bits of √½
  const auto exponent = static_cast<float>(static_cast<std::int32_t>(shifted) >> 23);
  const std::uint32_t mantissa_bits = (shifted & 0x007FFFFFu) + 0x3F3504F3u;
  float mantissa;
  std::memcpy(&mantissa, &mantissa_bits, sizeof mantissa);
  const float s = (mantissa - 1.0f) / (mantissa + 1.0f);
  const float t = s * s;
  const float series = 1.0f + t * (1.0f / 3 + t * (1.0f / 5 + t * (1.0f / 7 + t * (1.0f / 9))));
  return exponent * 0.693147181f + 2.0f * s * series;
}

// Cosine and sine of (turn + ½) · 2⁻²⁴ turns: reduced to ±⅛ turn, then their power series.
DB3KD_HOST_DEVICE void cosine_and_sine(std::uint32_t turn, float& cosine, float& sine) {
  const std::uint32_t quadrant = (turn + (1u << 21)) >> 22;
  const auto rest = static_cast<float>(static_cast<std::int32_t>(turn - (quadrant << 22))) + 0.5f;
  const float angle = rest * (1.57079633f / (1 << 22));
  const float t = angle * angle;
  const float s = angle * (1.0f - t * (1.0f / 6 - t * (1.0f / 120 - t * (1.0f / 5040))));
  const float c = 1.0f - t * (0.5f - t * (1.0f / 24 - t * (1.0f / 720 - t * (1.0f / 40320))));
  const bool odd = (quadrant & 1u) != 0;
  const float cosine_size = odd ? s : c;
  const float sine_size = odd ? c : s;
  cosine = ((quadrant + 1u) & 2u) != 0 ? -cosine_size : cosine_size;
  sine = (quadrant & 2u) != 0 ? -sine_size : sine_size;
}

// Two independent standard normal numbers from two random words (Box and Muller, 1958). The half
// steps keep both away from zero, so no direction has length 0.
DB3KD_HOST_DEVICE void box_muller(std::uint32_t radius_word, std::uint32_t angle_word, float& first,
                                  float& second) {
  const auto step = static_cast<float>(static_cast<std::int32_t>(radius_word >> 9)) + 0.5f;
  const float radius = sqrtf(-2.0f * natural_log(step * (1.0f / (1 << 23))));
  float cosine;
  float sine;
  cosine_and_sine(angle_word >> 8, cosine, sine);
  first = radius * cosine;
  second = radius * sine;
}

// The factor that scales a vector to length 1, from the sum of its squares.
DB3KD_HOST_DEVICE float unit_scale(double squares) {
  return static_cast<float>(1.0 / sqrt(squares));
}

}  // namespace db3kd
