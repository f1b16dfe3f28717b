#pragma once

#include <cuda_runtime_api.h>

// In the place of CUB: the same results, by one thread.

namespace cub {

struct DeviceSelect {
  template <typename T>
  static cudaError_t Flagged(void* scratch, std::size_t& scratch_bytes, const T* values,
                             const std::uint8_t* flags, T* selected, T* selected_count,
                             std::int64_t count, cudaStream_t stream) {
    if (scratch == nullptr) {
      scratch_bytes = 96;
      return cudaSuccess;
    }
    emulation::Launch{1, 1, 0, stream} << [&] {
      std::memset(scratch, 0x5a, scratch_bytes);
      std::int64_t found = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        if (flags[i] != 0) selected[found++] = values[i];
      }
      *selected_count = found;
    };
    return cudaGetLastError();
  }
};

}  // namespace cub
