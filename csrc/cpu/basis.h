#pragma once

#include <cstdint>
#include <vector>

namespace db3kd::cpu {

// Low-frequency directions: orthonormal rows row_basis [h, H] and column_basis [w, W], shared by
// all channels, stored in the layout that the transform reads.
class Basis {
 public:
  // `signs`: all coefficients are −1 or 1.
  Basis(const float* row_basis, std::int64_t h, std::int64_t height, const float* column_basis,
        std::int64_t w, std::int64_t width, std::int64_t channels, bool signs);

  std::int64_t scratch() const { return h_ * padded_width_; }
  std::int64_t channels() const { return channels_; }
  std::int64_t pixels_per_channel() const { return height_ * width_; }

  // pixels [H, W] of one channel = row_basisᵀ · coefficients [h, w] · column_basis. Both pointers
  // are those of channel 0. `scratch` holds scratch() floats.
  void to_pixels(std::int64_t channel, const float* coefficients, float* scratch,
                 float* pixels) const;

 private:
  std::int64_t h_, height_, w_, width_, channels_, padded_width_;
  bool signs_;
  std::vector<float> column_basis_;  // [w, padded_width_], zero beyond W; at least one tile wide

  // Rows y and H−1−y of a cosine basis differ in the signs of odd frequencies. Where rounding left
  // them so, they are transformed together; all other rows one by one.
  std::vector<std::int64_t> mirrored_;   // the first rows of pairs, then the second rows
  std::vector<float> mirrored_weights_;  // as mix_mirrored reads them
  std::vector<std::int64_t> single_;     // the other rows
  std::vector<float> single_weights_;    // [single rows, h]
};

}  // namespace db3kd::cpu
