#include "basis.h"

#include <algorithm>
#include <cstring>

#include "clones.h"

namespace db3kd::cpu {
namespace {

// mixed[r, :] = Σ_k weights[r, k] · source[k, :]
struct Mix {
  const float* weights;  // [rows, depth]
  std::int64_t rows;
  std::int64_t depth;
  const float* source;  // [depth, source_width], source_width ≥ kWidest
  std::int64_t source_width;
  float* mixed;  // [rows, width]
  std::int64_t width;
};

constexpr int kWidest = 16;  // floats in the widest vector of any clone

// A tile is kRows rows of kVectors vectors: enough independent sums to hide the latency of an
// addition, few enough for 16 registers.
constexpr int kRows = 4;
constexpr int kVectors = 2;

// Every element is summed in the order of k for any vector width. The last tile of a row or column
// is shifted back to end with it; it writes some values twice, with the same result.
template <int Lanes>
__attribute__((always_inline)) inline void mix_by_tiles(const Mix& mix) {
  // A typedef, because GCC 12 loses the vector size in an alias.
  typedef float Vector
      __attribute__((vector_size(Lanes * sizeof(float)), aligned(alignof(float)), may_alias));
  for (std::int64_t start = 0; start < mix.width; start += kVectors * Lanes) {
    std::int64_t column[kVectors];
    for (int v = 0; v < kVectors; ++v)
      column[v] = std::max<std::int64_t>(std::min(start + v * Lanes, mix.width - Lanes), 0);
    for (std::int64_t row = 0; row < mix.rows; row += kRows) {
      std::int64_t tile_row[kRows];
      for (int r = 0; r < kRows; ++r) tile_row[r] = std::min(row + r, mix.rows - 1);
      Vector sum[kRows][kVectors] = {};
      for (std::int64_t k = 0; k < mix.depth; ++k) {
        const float* source = mix.source + k * mix.source_width;
        for (int r = 0; r < kRows; ++r) {
          const float weight = mix.weights[tile_row[r] * mix.depth + k];
          for (int v = 0; v < kVectors; ++v)
            sum[r][v] += weight * *reinterpret_cast<const Vector*>(source + column[v]);
        }
      }
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) {
          float* out = mix.mixed + tile_row[r] * mix.width + column[v];
          if (mix.width >= Lanes) {
            *reinterpret_cast<Vector*>(out) = sum[r][v];
          } else {
            std::memcpy(out, &sum[r][v], static_cast<std::size_t>(mix.width) * sizeof(float));
          }
        }
      }
    }
  }
}

// As DB3KD_CLONES, but each clone has its own vector width: wider vectors than the machine's would
// be kept in memory, and narrower ones would waste its registers.
#if DB3KD_HAS_CLONES
__attribute__((target("arch=x86-64-v4"))) void mix_rows(const Mix& mix) { mix_by_tiles<16>(mix); }
__attribute__((target("arch=x86-64-v3"))) void mix_rows(const Mix& mix) { mix_by_tiles<8>(mix); }
__attribute__((target("default")))
#endif
void mix_rows(const Mix& mix) {
  mix_by_tiles<4>(mix);
}

}  // namespace

Basis::Basis(const float* row_basis, std::int64_t h, std::int64_t height, const float* column_basis,
             std::int64_t w, std::int64_t width, std::int64_t channels)
    : h_(h),
      height_(height),
      w_(w),
      width_(width),
      channels_(channels),
      padded_width_(std::max<std::int64_t>(width, kWidest)),
      row_basis_by_pixel_(height * h),
      column_basis_(w * padded_width_) {
  for (std::int64_t i = 0; i < h; ++i) {
    for (std::int64_t y = 0; y < height; ++y)
      row_basis_by_pixel_[y * h + i] = row_basis[i * height + y];
  }
  for (std::int64_t j = 0; j < w; ++j) {
    std::copy_n(column_basis + j * width, width, column_basis_.data() + j * padded_width_);
  }
}

void Basis::to_pixels(const float* coefficients, float* scratch, float* pixels) const {
  for (std::int64_t channel = 0; channel < channels_; ++channel) {
    mix_rows({coefficients + channel * h_ * w_, h_, w_, column_basis_.data(), padded_width_,
              scratch, padded_width_});
    mix_rows({row_basis_by_pixel_.data(), height_, h_, scratch, padded_width_,
              pixels + channel * height_ * width_, width_});
  }
}

}  // namespace db3kd::cpu
