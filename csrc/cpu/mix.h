#pragma once

#include <cstdint>

namespace db3kd::cpu {

// A product of two matrices whose sums over k have a fixed order.
struct Mix {
  const float* weights;  // for mix_rows [rows, depth], for mix_mirrored see there
  std::int64_t rows;
  std::int64_t depth;
  const float* source;  // [depth, source_width], source_width ≥ kWidest
  std::int64_t source_width;
  float* mixed;  // [any, width]
  std::int64_t width;
  const std::int64_t* places;  // the row of `mixed` for each row; null: the same
  bool signs;                  // all weights are −1 or 1
};

constexpr int kWidest = 16;  // floats in the widest vector of any instruction set

// mixed[places[r], :] = Σ_k weights[r, k] · source[k, :]
//
// Each product and each sum is rounded, except that products with signs are exact: there a fused
// multiply-add gives the same bits.
void mix_rows(const Mix& mix);

// As mix_rows for pairs of rows whose weights differ in the sign of each odd k only: their products
// are computed once. `weights` [rows / kPairs, depth, kPairs] holds the first row of each pair,
// `places` the first rows and, after all of them, the second rows; `rows` counts pairs and is a
// multiple of kPairs, and `depth` is even.
constexpr int kPairs = 4;
void mix_mirrored(const Mix& mix);

}  // namespace db3kd::cpu
