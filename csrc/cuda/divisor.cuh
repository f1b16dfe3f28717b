#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// Division by a number that is known at launch, as a multiplication and a shift. The hardware does
// not divide 64 bits; as a function this takes about a hundred instructions.

namespace db3kd::cuda {

struct Quotient {
  std::int64_t quotient;
  std::int64_t remainder;
};

// Divides numbers from 0 to 2^63 − 1. With a shift s of at least log2(divisor), the factor
// 2^(63+s) / divisor, rounded up, fits into 64 bits, and its error is too small to change a
// quotient (Granlund and Montgomery, PLDI 1994, theorem 4.2).
class Divisor {
 public:
  explicit Divisor(std::int64_t divisor) : divisor_(divisor) {
    int shift = 1;
    while (shift < 63 && (std::int64_t{1} << shift) < divisor) ++shift;
    const auto wide = static_cast<unsigned __int128>(1) << (63 + shift);
    // Dividing by 1 needs no factor, and its factor would not fit.
    if (divisor > 1) factor_ = static_cast<unsigned long long>((wide + divisor - 1) / divisor);
    shift_ = shift - 1;
  }

  __device__ __forceinline__ Quotient divide(std::int64_t number) const {
    std::int64_t quotient = number;
    if (divisor_ != 1) {
      const auto high = __umul64hi(static_cast<unsigned long long>(number), factor_);
      quotient = static_cast<std::int64_t>(high >> shift_);
    }
    return {quotient, number - quotient * divisor_};
  }

 private:
  std::int64_t divisor_;
  unsigned long long factor_ = 0;
  int shift_;
};

}  // namespace db3kd::cuda
