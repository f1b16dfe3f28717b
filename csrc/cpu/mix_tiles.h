// The loops of mix.cpp for one instruction set. Included once for each, after the definition of
//   kLanes                   floats in a vector
//   DB3KD_MULTIPLY_ADD(a, b, c)   c + a · b of vectors; may be fused
//
// A tile has enough independent sums to hide the latency of an addition, and few enough for 16
// registers. Every element is summed in the order of k for any vector width. The last tile of a row
// or column is shifted back to end with it; it writes some values twice, with the same result.

// A typedef, because GCC 12 loses the vector size in an alias.
typedef float Vector
    __attribute__((vector_size(kLanes * sizeof(float)), aligned(alignof(float)), may_alias));

inline void store(const Vector& sum, const Mix& mix, std::int64_t row, std::int64_t column) {
  float* out = mix.mixed + (mix.places == nullptr ? row : mix.places[row]) * mix.width + column;
  if (mix.width >= kLanes) {
    *reinterpret_cast<Vector*>(out) = sum;
  } else {
    std::memcpy(out, &sum, static_cast<std::size_t>(mix.width) * sizeof(float));
  }
}

inline std::int64_t last_column(const Mix& mix) {
  return std::max<std::int64_t>(mix.width - kLanes, 0);
}

__attribute__((always_inline)) inline void mix_rows_by_tiles(const Mix& mix, const bool fused) {
  constexpr int kRows = 4, kVectors = 2;
  for (std::int64_t start = 0; start < mix.width; start += kVectors * kLanes) {
    std::int64_t column[kVectors];
    for (int v = 0; v < kVectors; ++v) column[v] = std::min(start + v * kLanes, last_column(mix));
    for (std::int64_t row = 0; row < mix.rows; row += kRows) {
      std::int64_t tile_row[kRows];
      for (int r = 0; r < kRows; ++r) tile_row[r] = std::min(row + r, mix.rows - 1);
      Vector sum[kRows][kVectors] = {};
      for (std::int64_t k = 0; k < mix.depth; ++k) {
        const float* source = mix.source + k * mix.source_width;
        for (int r = 0; r < kRows; ++r) {
          const float weight = mix.weights[tile_row[r] * mix.depth + k];
          for (int v = 0; v < kVectors; ++v) {
            const Vector value = *reinterpret_cast<const Vector*>(source + column[v]);
            if (fused) {
              sum[r][v] = DB3KD_MULTIPLY_ADD(weight - Vector{}, value, sum[r][v]);
            } else {
              sum[r][v] += weight * value;
            }
          }
        }
      }
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) store(sum[r][v], mix, tile_row[r], column[v]);
      }
    }
  }
}

inline void mix_rows(const Mix& mix) {
  mix.signs ? mix_rows_by_tiles(mix, true) : mix_rows_by_tiles(mix, false);
}

inline void mix_mirrored(const Mix& mix) {
  for (std::int64_t start = 0; start < mix.width; start += kLanes) {
    const std::int64_t column = std::min(start, last_column(mix));
    for (std::int64_t row = 0; row < mix.rows; row += kPairs) {
      const float* weights = mix.weights + row * mix.depth;
      const float* source = mix.source + column;
      Vector first[kPairs] = {}, second[kPairs] = {};
      for (std::int64_t k = 0; k < mix.depth; k += 2) {
        for (int p = 0; p < kPairs; ++p) {
          const Vector product = weights[p] * *reinterpret_cast<const Vector*>(source);
          first[p] += product;
          second[p] += product;
        }
        for (int p = 0; p < kPairs; ++p) {
          const Vector product =
              weights[kPairs + p] * *reinterpret_cast<const Vector*>(source + mix.source_width);
          first[p] += product;
          second[p] -= product;
        }
        weights += 2 * kPairs;
        source += 2 * mix.source_width;
      }
      for (int p = 0; p < kPairs; ++p) {
        store(first[p], mix, row + p, column);
        store(second[p], mix, mix.rows + row + p, column);
      }
    }
  }
}
