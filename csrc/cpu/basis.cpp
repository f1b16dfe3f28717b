#include "basis.h"

#include <algorithm>
#include <cmath>

#include "mix.h"

namespace db3kd::cpu {
namespace {

// Whether columns a and b of basis [count, size] differ in the signs of odd rows only, and of all
// of these.
bool are_mirrored(const float* basis, std::int64_t count, std::int64_t size, std::int64_t a,
                  std::int64_t b) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float first = basis[i * size + a];
    const float second = i % 2 == 0 ? basis[i * size + b] : -basis[i * size + b];
    if (!(first == second) || std::signbit(first) != std::signbit(second)) return false;
  }
  return true;
}

}  // namespace

Basis::Basis(const float* row_basis, std::int64_t h, std::int64_t height, const float* column_basis,
             std::int64_t w, std::int64_t width, std::int64_t channels, bool signs)
    : h_(h),
      height_(height),
      w_(w),
      width_(width),
      channels_(channels),
      padded_width_(std::max<std::int64_t>(width, kWidest)),
      signs_(signs),
      column_basis_(w * padded_width_) {
  for (std::int64_t j = 0; j < w; ++j)
    std::copy_n(column_basis + j * width, width, column_basis_.data() + j * padded_width_);

  for (std::int64_t y = 0; h % 2 == 0 && y < height / 2; ++y) {
    if (are_mirrored(row_basis, h, height, y, height - 1 - y)) mirrored_.push_back(y);
  }
  mirrored_.resize(mirrored_.size() / kPairs * kPairs);
  const auto pairs = static_cast<std::int64_t>(mirrored_.size());
  std::vector<bool> is_mirrored(height);
  for (std::int64_t p = 0; p < pairs; ++p) {
    mirrored_.push_back(height - 1 - mirrored_[p]);
    is_mirrored[mirrored_[p]] = is_mirrored[mirrored_.back()] = true;
  }
  for (std::int64_t tile = 0; tile < pairs; tile += kPairs) {
    for (std::int64_t i = 0; i < h; ++i) {
      for (int p = 0; p < kPairs; ++p)
        mirrored_weights_.push_back(row_basis[i * height + mirrored_[tile + p]]);
    }
  }
  for (std::int64_t y = 0; y < height; ++y) {
    if (is_mirrored[y]) continue;
    single_.push_back(y);
    for (std::int64_t i = 0; i < h; ++i) single_weights_.push_back(row_basis[i * height + y]);
  }
}

void Basis::to_pixels(std::int64_t channel, const float* coefficients, float* scratch,
                      float* pixels) const {
  float* plane = pixels + channel * pixels_per_channel();
  mix_rows({coefficients + channel * h_ * w_, h_, w_, column_basis_.data(), padded_width_, scratch,
            padded_width_, nullptr, signs_});
  mix_mirrored({mirrored_weights_.data(), static_cast<std::int64_t>(mirrored_.size() / 2), h_,
                scratch, padded_width_, plane, width_, mirrored_.data(), false});
  mix_rows({single_weights_.data(), static_cast<std::int64_t>(single_.size()), h_, scratch,
            padded_width_, plane, width_, single_.data(), false});
}

}  // namespace db3kd::cpu
