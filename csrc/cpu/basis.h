#pragma once

#include <cstdint>
#include <vector>

namespace db3kd::cpu {

// Low-frequency directions: orthonormal rows row_basis [h, H] and column_basis [w, W], shared by
// all channels, stored in the layout that the transform reads.
class Basis {
 public:
  Basis(const float* row_basis, std::int64_t h, std::int64_t height, const float* column_basis,
        std::int64_t w, std::int64_t width, std::int64_t channels);

  std::int64_t coefficients() const { return channels_ * h_ * w_; }
  std::int64_t scratch() const { return h_ * padded_width_; }

  // pixels [channels, H, W] = row_basisᵀ · coefficients [channels, h, w] · column_basis. `scratch`
  // holds scratch() floats.
  void to_pixels(const float* coefficients, float* scratch, float* pixels) const;

 private:
  std::int64_t h_, height_, w_, width_, channels_, padded_width_;
  std::vector<float> row_basis_by_pixel_;  // [H, h]
  std::vector<float> column_basis_;  // [w, padded_width_], zero beyond W; at least one tile wide
};

}  // namespace db3kd::cpu
