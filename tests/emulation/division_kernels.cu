#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/divisor.cuh"

// A kernel that divides, so that tests can compare it with Python.

namespace {

__global__ void divide_kernel(db3kd::cuda::Divisor divisor, const std::int64_t* numbers,
                              std::int64_t* quotients, std::int64_t* remainders) {
  const db3kd::cuda::Quotient found = divisor.divide(numbers[threadIdx.x]);
  quotients[threadIdx.x] = found.quotient;
  remainders[threadIdx.x] = found.remainder;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void emulation_divide(std::int64_t divisor,
                                                                        const std::int64_t* numbers,
                                                                        std::int64_t* quotients,
                                                                        std::int64_t* remainders,
                                                                        int count) {
  divide_kernel<<<1, count, 0, nullptr>>>(db3kd::cuda::Divisor(divisor), numbers, quotients,
                                          remainders);
}
