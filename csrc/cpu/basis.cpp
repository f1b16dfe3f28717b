#include "basis.h"

#include <algorithm>
#include <cstring>

#include "clones.h"

namespace db3kd::cpu {
namespace {

constexpr int kColumns = 8;  // of a tile
using Vector = float
    __attribute__((vector_size(kColumns * sizeof(float)), aligned(alignof(float)), may_alias));
constexpr int kRows = 4;  // of a tile: enough independent sums to hide the latency of an addition

// mixed[r, :] = Σ_k weights[r, k] · source[k, :], every element summed in the order of k. The last
// tile of a row or column is moved back to end with it: it writes some values a second time, and
// they are the same.
DB3KD_CLONES void mix_rows(const float* weights, std::int64_t rows, std::int64_t depth,
                           const float* source, std::int64_t source_width, float* mixed,
                           std::int64_t width) {
  for (std::int64_t row = 0; row < rows; row += kRows) {
    std::int64_t tile_row[kRows];
    for (int r = 0; r < kRows; ++r) tile_row[r] = std::min(row + r, rows - 1);
    for (std::int64_t start = 0; start < width; start += kColumns) {
      const std::int64_t column = std::max<std::int64_t>(std::min(start, width - kColumns), 0);
      Vector sum[kRows] = {};
      for (std::int64_t k = 0; k < depth; ++k) {
        const Vector values = *reinterpret_cast<const Vector*>(source + k * source_width + column);
        for (int r = 0; r < kRows; ++r) sum[r] += weights[tile_row[r] * depth + k] * values;
      }
      for (int r = 0; r < kRows; ++r) {
        float* out = mixed + tile_row[r] * width + column;
        if (width >= kColumns) {
          *reinterpret_cast<Vector*>(out) = sum[r];
        } else {
          std::memcpy(out, &sum[r], static_cast<std::size_t>(width) * sizeof(float));
        }
      }
    }
  }
}

}  // namespace

Basis::Basis(const float* row_basis, std::int64_t h, std::int64_t height, const float* column_basis,
             std::int64_t w, std::int64_t width, std::int64_t channels)
    : h_(h),
      height_(height),
      w_(w),
      width_(width),
      channels_(channels),
      padded_width_(std::max<std::int64_t>(width, kColumns)),
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
    mix_rows(coefficients + channel * h_ * w_, h_, w_, column_basis_.data(), padded_width_, scratch,
             padded_width_);
    mix_rows(row_basis_by_pixel_.data(), height_, h_, scratch, padded_width_,
             pixels + channel * height_ * width_, width_);
  }
}

}  // namespace db3kd::cpu
