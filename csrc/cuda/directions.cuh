#pragma once

#include "../core/noise.h"
#include "../core/random.h"
#include "device.cuh"

// Random numbers as the kernels need them: one at a time, or a tile of 128 with four to each thread
// of a warp. A tile takes one Philox block of signs or one block a thread of normal numbers.

namespace db3kd::cuda {

constexpr int kTile = kWarp * kVector;
static_assert(kTile == kRademacherPerBlock && kVector == kGaussianPerBlock);

__device__ __forceinline__ DirectionId direction_of(const DirectionSource& source,
                                                    std::int64_t point, std::int64_t probe) {
  return direction_id(source.seed, probe, source.counters + 3 * point);
}

// Indexing by a variable would put the words into local memory.
template <typename T>
__device__ __forceinline__ T pick(T first, T second, T third, T fourth, int index) {
  const T low = index % 2 == 0 ? first : second;
  const T high = index % 2 == 0 ? third : fourth;
  return index < 2 ? low : high;
}

// The four normal numbers of block `block`.
__device__ __forceinline__ float4 gaussian_vector(const DirectionId& id, std::uint32_t block) {
  const Blocks<1> words = random_blocks<1>(id, block);
  float4 numbers;
  box_muller(words.word[0][0], words.word[1][0], numbers.x, numbers.y);
  box_muller(words.word[2][0], words.word[3][0], numbers.z, numbers.w);
  return numbers;
}

// This thread's four signs of the tile whose block was drawn by thread `owner` of the warp.
__device__ __forceinline__ float4 rademacher_vector(const Blocks<1>& drawn, int owner) {
  constexpr unsigned kAll = 0xffffffffu;
  constexpr int kThreadsPerWord = 32 / kVector;
  const int lane = threadIdx.x % kWarp;
  const std::uint32_t word =
      pick(__shfl_sync(kAll, drawn.word[0][0], owner), __shfl_sync(kAll, drawn.word[1][0], owner),
           __shfl_sync(kAll, drawn.word[2][0], owner), __shfl_sync(kAll, drawn.word[3][0], owner),
           lane / kThreadsPerWord);
  const int bit = lane % kThreadsPerWord * kVector;
  return {rademacher(word, bit), rademacher(word, bit + 1), rademacher(word, bit + 2),
          rademacher(word, bit + 3)};
}

// Random number `index` of a direction.
template <Noise kNoise>
__device__ __forceinline__ float random_number(const DirectionId& id, std::int64_t index) {
  if constexpr (kNoise == Noise::kGaussian) {
    const float4 numbers =
        gaussian_vector(id, static_cast<std::uint32_t>(index / kGaussianPerBlock));
    return pick(numbers.x, numbers.y, numbers.z, numbers.w,
                static_cast<int>(index % kGaussianPerBlock));
  } else {
    const auto block = static_cast<std::uint32_t>(index / kRademacherPerBlock);
    const int bit = static_cast<int>(index % kRademacherPerBlock);
    const Blocks<1> words = random_blocks<1>(id, block);
    const std::uint32_t word =
        pick(words.word[0][0], words.word[1][0], words.word[2][0], words.word[3][0], bit / 32);
    return rademacher(word, bit % 32);
  }
}

// Calls function with the kind of noise as a constant.
template <typename Function>
cudaError_t dispatch_noise(Noise noise, const Function& function) {
  return noise == Noise::kGaussian ? function(std::integral_constant<Noise, Noise::kGaussian>{})
                                   : function(std::integral_constant<Noise, Noise::kRademacher>{});
}

}  // namespace db3kd::cuda
