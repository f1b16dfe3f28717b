#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels.h"

// Shared by all kernels: launch shapes, sums over a block, and rows read and written four floats at
// a time.

namespace db3kd::cuda {

constexpr int kWarp = 32;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kVector = 4;  // floats that one thread handles at once: 16 bytes

inline std::int64_t divide_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

// Grid sizes within CUDA's limits; kernels stride over the rest.
inline unsigned grid_x(std::int64_t blocks) {
  return static_cast<unsigned>(std::min<std::int64_t>(blocks, 2147483647));
}
inline unsigned grid_y(std::int64_t blocks) {
  return static_cast<unsigned>(std::min<std::int64_t>(blocks, 65535));
}

// The number of threads of a block that processes one row of `size` floats. It depends on the size
// only, because it determines the order of a sum.
inline unsigned threads_for_row(std::int64_t size) {
  const std::int64_t warps = divide_up(size, kWarp * kVector);
  return static_cast<unsigned>(kWarp * std::clamp<std::int64_t>(warps, 1, kWarps));
}

// The sum over each group of kLanes neighbouring threads of a warp, returned to each of them. The
// whole warp must call it.
template <int kLanes = kWarp, typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

// The sum over all threads of a block, returned to each of them. Every thread must call it.
template <typename T>
__device__ T block_sum(T value) {
  __shared__ T partial[kWarps];
  value = warp_sum(value);
  __syncthreads();  // an earlier sum may still be read
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = value;
  __syncthreads();
  T total = partial[0];
  for (int warp = 1; warp < static_cast<int>(blockDim.x) / kWarp; ++warp) total += partial[warp];
  return total;
}

// The sum over the threads before this one, and over all of them in `total`. Every thread of a
// block of kThreads must call it; the block may have two dimensions.
template <typename T>
__device__ T sum_before(T value, T& total) {
  __shared__ T partial[kWarps];
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  const int lane = thread % kWarp, warp = thread / kWarp;
  T sum = value;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const T below = __shfl_up_sync(0xffffffffu, sum, offset);
    if (lane >= offset) sum += below;
  }
  __syncthreads();  // the last partial sums may still be read
  if (lane == kWarp - 1) partial[warp] = sum;
  __syncthreads();
  T before = 0;
  total = 0;
  for (int other = 0; other < kWarps; ++other) {
    if (other < warp) before += partial[other];
    total += partial[other];
  }
  return before + sum - value;
}

// Whether rows of `size` elements that start at `data` allow aligned access to vectors of four.
template <typename T>
bool vectors_are_aligned(const T* data, std::int64_t size) {
  return size % kVector == 0 && reinterpret_cast<std::uintptr_t>(data) % (kVector * sizeof(T)) == 0;
}

// Elements i to i + 3 of a row that no kernel writes at the same time, so loads may be reordered
// before a store. If rows are not aligned, elements are read one by one, and 0 beyond the end.
template <bool kAligned>
__device__ __forceinline__ float4 load_vector(const float* row, std::int64_t i, std::int64_t size) {
  if constexpr (kAligned) {
    return __ldg(reinterpret_cast<const float4*>(row + i));
  } else {
    return {__ldg(row + i), i + 1 < size ? __ldg(row + i + 1) : 0.0f,
            i + 2 < size ? __ldg(row + i + 2) : 0.0f, i + 3 < size ? __ldg(row + i + 3) : 0.0f};
  }
}

// Conversions to double are slow, so four squares are summed before each conversion. The rounding
// error stays below 3e-7.
__device__ __forceinline__ double sum_of_squares(const float4& v) {
  return (v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w);
}

template <typename T>
__device__ __forceinline__ T rounded(float value);
template <>
__device__ __forceinline__ float rounded<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __half rounded<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 rounded<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// Four elements as one vector.
template <typename T>
__device__ __forceinline__ auto packed(float4 value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    const T element[kVector] = {rounded<T>(value.x), rounded<T>(value.y), rounded<T>(value.z),
                                rounded<T>(value.w)};
    uint2 words;
    static_assert(sizeof words == sizeof element);
    std::memcpy(&words, element, sizeof words);
    return words;
  }
}

// When stored values are read again.
enum class Reuse {
  kSoon,   // by the next kernel: it may stay in the L2 cache
  kLater,  // its lines are the first to leave the L2 cache, where samples and ends are read again
};

// An aligned store by an instruction that the compiler cannot split, as it does with assignments
// after a clamp.
template <bool kAligned, Reuse kReuse, typename T>
__device__ __forceinline__ void store_vector(T* row, std::int64_t i, std::int64_t size,
                                             float4 value) {
  if constexpr (kAligned) {
    auto vector = packed<T>(value);
    auto* address = reinterpret_cast<decltype(vector)*>(row + i);
    if constexpr (kReuse == Reuse::kSoon) {
      __stcg(address, vector);
    } else {
      __stcs(address, vector);
    }
  } else {
    const float element[kVector] = {value.x, value.y, value.z, value.w};
#pragma unroll
    for (int e = 0; e < kVector; ++e) {
      if (i + e < size) row[i + e] = rounded<T>(element[e]);
    }
  }
}

// Passes a type as an argument of a generic lambda.
template <typename T>
struct Type {
  using type = T;
};

// Calls function(Type<T>) for the type of the queries.
template <typename Function>
cudaError_t dispatch_type(QueryType type, const Function& function) {
  switch (type) {
    case QueryType::kFloat16:
      return function(Type<__half>{});
    case QueryType::kBFloat16:
      return function(Type<__nv_bfloat16>{});
    default:
      return function(Type<float>{});
  }
}

// Calls function(aligned) with a compile-time constant.
template <typename Function>
cudaError_t dispatch_aligned(bool aligned, const Function& function) {
  return aligned ? function(std::true_type{}) : function(std::false_type{});
}

// Calls function(Type<T>, aligned), where the constant tells whether inputs and queries are
// aligned.
template <typename Function>
cudaError_t dispatch_rows(const QuerySink& sink, std::int64_t size, bool inputs_aligned,
                          const Function& function) {
  return dispatch_type(sink.type, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto* out = static_cast<const T*>(sink.data);
    return dispatch_aligned(inputs_aligned && vectors_are_aligned(out, size),
                            [&](auto aligned) { return function(type, aligned); });
  });
}

}  // namespace db3kd::cuda
