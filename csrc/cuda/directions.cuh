#pragma once

#include <cassert>

#include "../core/noise.h"
#include "../core/probe.h"
#include "../core/random.h"
#include "device.cuh"

// Random numbers for a warp, in tiles of 128, four per thread. A tile takes one Philox block of
// signs, or one block of normal numbers per thread.

namespace db3kd::cuda {

constexpr int kTile = kWarp * kVector;
static_assert(kTile == kRademacherPerBlock && kVector == kGaussianPerBlock);

// Each op calls this once for each of its points, in one of its kernels.
__device__ __forceinline__ void assert_counter_fits(const DirectionSource& source,
                                                    std::int64_t point) {
  assert(counter_fits(source.counters + 3 * point));
}

__device__ __forceinline__ DirectionId direction_of(const DirectionSource& source,
                                                    std::int64_t point, std::int64_t probe) {
  return direction_id(source.seed, probe, source.counters + 3 * point);
}

// The four normal numbers of block `block`.
__device__ __forceinline__ float4 gaussian_vector(const DirectionId& id, std::uint32_t block) {
  const Blocks<1> words = random_blocks<1>(id, block);
  float4 numbers;
  box_muller(words.word[0][0], words.word[1][0], numbers.x, numbers.y);
  box_muller(words.word[2][0], words.word[3][0], numbers.z, numbers.w);
  return numbers;
}

// Shares the block that each thread of a warp drew with all of them. The whole warp must call it,
// and `blocks` must belong to this warp.
__device__ __forceinline__ void share_blocks(const Blocks<1>& drawn, uint4 (&blocks)[kWarp]) {
  __syncwarp();  // the last ones may still be read
  blocks[threadIdx.x % kWarp] = {drawn.word[0][0], drawn.word[1][0], drawn.word[2][0],
                                 drawn.word[3][0]};
  __syncwarp();
}

// The four signs of this thread in a tile, from the tile's block.
__device__ __forceinline__ float4 rademacher_vector(const uint4& block) {
  constexpr int kThreadsPerWord = 32 / kVector;
  const int lane = threadIdx.x % kWarp;
  const std::uint32_t word = (&block.x)[lane / kThreadsPerWord];
  const int bit = lane % kThreadsPerWord * kVector;
  return {rademacher(word, bit), rademacher(word, bit + 1), rademacher(word, bit + 2),
          rademacher(word, bit + 3)};
}

// The first `count` of four numbers, followed by zeros.
__device__ __forceinline__ float4 first_numbers(const float4& v, std::int64_t count) {
  return {v.x, count > 1 ? v.y : 0.0f, count > 2 ? v.z : 0.0f, count > 3 ? v.w : 0.0f};
}

// One component of a query, from its origin and the offset of its point.
__device__ __forceinline__ float probe_at(float origin, float offset, float number,
                                          const ProbeFactors& factors, float lower, float upper) {
  return point_at_radius(origin, offset, factors.step, number, factors.correction, lower, upper);
}

// Writes four components of query `row` of `out`, starting at component i of an image, from a point
// and four numbers `u`. `end` is the end of the row of vectors.
template <bool kAligned, typename T>
__device__ __forceinline__ void write_probe(const ProbePoints& at, std::int64_t point,
                                            std::int64_t row, const ProbeFactors& factors,
                                            const float4& u, std::int64_t i, std::int64_t end,
                                            T* out, float lower, float upper) {
  const float4 o = load_vector<kAligned>(at.origins + point * at.size, i, end);
  const float4 v = load_vector<kAligned>(at.offsets + point * at.size, i, end);
  store_vector<kAligned, Reuse::kLater>(out + row * at.size, i, end,
                                        {probe_at(o.x, v.x, u.x, factors, lower, upper),
                                         probe_at(o.y, v.y, u.y, factors, lower, upper),
                                         probe_at(o.z, v.z, u.z, factors, lower, upper),
                                         probe_at(o.w, v.w, u.w, factors, lower, upper)});
}

// Tiles that a warp processes at a time: each thread draws the signs of one of them.
constexpr int kTiles = kWarp;

// Passes the first `size` numbers of a direction to visit(index, four numbers), divided over the
// threads of a warp. The warp takes kTiles tiles at a time, then skips stride − 1 times as many.
template <Noise kNoise, typename Visit>
__device__ __forceinline__ void visit_numbers(const DirectionId& id, std::int64_t size,
                                              std::int64_t first, std::int64_t stride,
                                              uint4 (&blocks)[kWarp], const Visit& visit) {
  const int lane = threadIdx.x % kWarp;
  for (std::int64_t group = first * kTiles; group * kTile < size; group += stride * kTiles) {
    if constexpr (kNoise == Noise::kRademacher) {
      share_blocks(random_blocks<1>(id, static_cast<std::uint32_t>(group + lane)), blocks);
    }
    const std::int64_t left = (size - group * kTile + kTile - 1) / kTile;
    const int tiles = static_cast<int>(left < kTiles ? left : kTiles);
#pragma unroll 2
    for (int tile = 0; tile < tiles; ++tile) {
      const std::int64_t vector = (group + tile) * kWarp + lane;
      if (vector * kVector >= size) continue;
      if constexpr (kNoise == Noise::kRademacher) {
        visit(vector * kVector, rademacher_vector(blocks[tile]));
      } else {
        visit(vector * kVector, gaussian_vector(id, static_cast<std::uint32_t>(vector)));
      }
    }
  }
}

// Calls function with the noise distribution as a compile-time constant.
template <typename Function>
cudaError_t dispatch_noise(Noise noise, const Function& function) {
  return noise == Noise::kGaussian ? function(std::integral_constant<Noise, Noise::kGaussian>{})
                                   : function(std::integral_constant<Noise, Noise::kRademacher>{});
}

}  // namespace db3kd::cuda
