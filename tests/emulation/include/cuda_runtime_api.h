#pragma once

#include <math.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "machine.h"
#include "memory.h"

// What the kernels use of CUDA, for the emulated GPU.

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline

#define threadIdx (emulation::place.thread)
#define blockIdx (emulation::place.block)
#define blockDim (emulation::place.block_size)
#define gridDim (emulation::place.grid_size)

using dim3 = emulation::Index;
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorAssert = 710 };

inline cudaError_t cudaGetLastError() {
  return emulation::has_error() ? cudaErrorAssert : cudaSuccess;
}

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

using std::max;
using std::min;

inline void __syncthreads() { emulation::synchronise_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulation::synchronise_warp(mask); }

template <typename T>
T __shfl_sync(unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = emulation::shuffle(mask, bits, source % emulation::kWarpSize);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  return __shfl_sync(mask, value, emulation::lane() ^ lanes);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes) {
  const int source = emulation::lane() - static_cast<int>(lanes);
  return __shfl_sync(mask, value, source < 0 ? emulation::lane() : source);
}

inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

template <typename T>
T __ldg(const T* address) {
  return *address;
}

template <typename T>
void __stcs(T* address, T value) {
  *address = value;
}

template <typename T>
void __stcg(T* address, T value) {
  *address = value;
}

template <typename T, typename Change>
__attribute__((no_sanitize("thread"))) T emulated_atomic(T* address, const Change& change) {
  emulation::check_access(address, sizeof(T), emulation::Access::kAtomic);
  const T old = *address;
  *address = change(old);
  return old;
}

template <typename T>
T atomicMax(T* address, T value) {
  return emulated_atomic(address, [=](T old) { return old > value ? old : value; });
}

template <typename T>
T atomicMin(T* address, T value) {
  return emulated_atomic(address, [=](T old) { return old < value ? old : value; });
}
