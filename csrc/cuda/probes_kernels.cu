#include "../core/probe.h"
#include "../core/ray.h"
#include "directions.cuh"

namespace db3kd::cuda {
namespace {

// One block a draw.
template <Noise kNoise>
__global__ void direction_scales_kernel(DirectionSource source, float* scales) {
  const std::int64_t blocks = (source.coefficients + kGaussianPerBlock - 1) / kGaussianPerBlock;
  for (std::int64_t row = blockIdx.x; row < source.points * source.probes; row += gridDim.x) {
    double sum = static_cast<double>(source.coefficients);  // signs all have size 1
    if constexpr (kNoise == Noise::kGaussian) {
      const DirectionId id = direction_of(source, row / source.probes, row % source.probes);
      double squares = 0.0;
      for (std::int64_t block = threadIdx.x; block < blocks; block += blockDim.x) {
        const float4 numbers = gaussian_vector(id, static_cast<std::uint32_t>(block));
        const float element[kVector] = {numbers.x, numbers.y, numbers.z, numbers.w};
#pragma unroll
        for (int e = 0; e < kVector; ++e) {
          const double value = element[e];
          if (block * kVector + e < source.coefficients) squares += value * value;
        }
      }
      sum = block_sum(squares);
    }
    if (threadIdx.x == 0) scales[row] = unit_scale(sum);
  }
}

// One block a draw.
template <Noise kNoise>
__global__ void radius_corrections_kernel(DirectionSource source, const float* offsets,
                                          const float* radius, const float* step,
                                          float* corrections) {
  const std::int64_t size = source.coefficients;
  for (std::int64_t row = blockIdx.x; row < source.points * source.probes; row += gridDim.x) {
    const std::int64_t point = row / source.probes;
    const DirectionId id = direction_of(source, point, row % source.probes);
    double along = 0.0;
    for (std::int64_t i = threadIdx.x; i < size; i += blockDim.x) {
      along += static_cast<double>(offsets[point * size + i]) * random_number<kNoise>(id, i);
    }
    along = block_sum(along) * source.scales[row];
    if (threadIdx.x == 0) corrections[row] = radius_correction(radius[point], step[point], along);
  }
}

// Tiles that a warp takes at a time: each of its threads draws the signs of one of them.
constexpr int kTiles = kWarp;

// A warp takes kTiles tiles of one query; threadIdx.y and blockIdx.x count queries.
template <Noise kNoise, typename T, bool kAligned>
__global__ void probe_queries_kernel(DirectionSource source, ProbePoints at, T* out, float lower,
                                     float upper) {
  const int lane = threadIdx.x;
  const std::int64_t size = at.size;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kWarps;
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.y;
       row < source.points * source.probes; row += stride) {
    const std::int64_t point = row / source.probes;
    const DirectionId id = direction_of(source, point, row % source.probes);
    const float step = at.step[point] * source.scales[row];
    const float correction = at.corrections[row];
    for (std::int64_t first = blockIdx.y * kTiles; first * kTile < size;
         first += static_cast<std::int64_t>(gridDim.y) * kTiles) {
      Blocks<1> drawn;
      if constexpr (kNoise == Noise::kRademacher) {
        drawn = random_blocks<1>(id, static_cast<std::uint32_t>(first + lane));
      }
      for (int tile = 0; tile < kTiles && (first + tile) * kTile < size; ++tile) {
        const std::int64_t vector = (first + tile) * kWarp + lane;
        float4 u;
        if constexpr (kNoise == Noise::kRademacher) {
          u = rademacher_vector(drawn, tile);
        } else {
          u = gaussian_vector(id, static_cast<std::uint32_t>(vector));
        }
        const std::int64_t i = vector * kVector;
        if (i >= size) continue;
        const float4 o = load_vector<kAligned>(at.origins + point * size, i, size);
        const float4 p = load_vector<kAligned>(at.points + point * size, i, size);
        store_vector<kAligned>(out + row * size, i, size,
                               {point_at_radius(o.x, p.x, step, u.x, correction, lower, upper),
                                point_at_radius(o.y, p.y, step, u.y, correction, lower, upper),
                                point_at_radius(o.z, p.z, step, u.z, correction, lower, upper),
                                point_at_radius(o.w, p.w, step, u.w, correction, lower, upper)});
      }
    }
  }
}

// One block a point.
__global__ void probe_weights_kernel(DirectionSource source, const std::int64_t* decisions,
                                     const std::int64_t* wanted, bool targeted, float* weights) {
  for (std::int64_t point = blockIdx.x; point < source.points; point += gridDim.x) {
    const std::int64_t* row = decisions + point * source.probes;
    Tally mine;
    for (std::int64_t k = threadIdx.x; k < source.probes; k += blockDim.x) {
      mine.add(outcome_of(row[k], wanted[point], targeted));
    }
    const Tally tally{block_sum(mine.hits), block_sum(mine.misses)};
    for (std::int64_t k = threadIdx.x; k < source.probes; k += blockDim.x) {
      const std::int64_t i = point * source.probes + k;
      weights[i] =
          probe_weight(outcome_of(row[k], wanted[point], targeted), tally) * source.scales[i];
    }
  }
}

// A warp takes one tile of one point and goes over the probes in order, so that sums have one
// order. threadIdx.y and blockIdx.x count tiles, blockIdx.y points.
template <Noise kNoise>
__global__ void weighted_sum_kernel(DirectionSource source, const float* weights, float* total) {
  const int lane = threadIdx.x;
  const std::int64_t size = source.coefficients;
  const std::int64_t tile = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.y;
  if (tile * kTile >= size) return;
  for (std::int64_t point = blockIdx.y; point < source.points; point += gridDim.y) {
    float4 sum{0.0f, 0.0f, 0.0f, 0.0f};
    for (std::int64_t first = 0; first < source.probes; first += kWarp) {
      const std::int64_t own = first + lane;
      const float own_weight = own < source.probes ? weights[point * source.probes + own] : 0.0f;
      Blocks<1> drawn;
      if constexpr (kNoise == Noise::kRademacher) {
        drawn =
            random_blocks<1>(direction_of(source, point, own), static_cast<std::uint32_t>(tile));
      }
      for (int probe = 0; probe < kWarp; ++probe) {
        const float weight = __shfl_sync(0xffffffffu, own_weight, probe);
        if (weight == 0.0f) continue;
        float4 u;
        if constexpr (kNoise == Noise::kRademacher) {
          u = rademacher_vector(drawn, probe);
        } else {
          u = gaussian_vector(direction_of(source, point, first + probe),
                              static_cast<std::uint32_t>(tile * kWarp + lane));
        }
        sum.x += weight * u.x;
        sum.y += weight * u.y;
        sum.z += weight * u.z;
        sum.w += weight * u.w;
      }
    }
    const std::int64_t i = tile * kTile + lane * kVector;
    if (i < size) store_vector<false>(total + point * size, i, size, sum);
  }
}

// One block a row.
__global__ void normalise_kernel(float* vectors, std::int64_t rows, std::int64_t size) {
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    float* vector = vectors + row * size;
    double squares = 0.0;
    for (std::int64_t i = threadIdx.x; i < size; i += blockDim.x) {
      const double value = vector[i];
      squares += value * value;
    }
    squares = block_sum(squares);
    if (squares == 0.0) continue;
    const float scale = unit_scale(squares);
    for (std::int64_t i = threadIdx.x; i < size; i += blockDim.x) vector[i] *= scale;
  }
}

}  // namespace

cudaError_t launch_direction_scales(const DirectionSource& source, float* scales,
                                    cudaStream_t stream) {
  const std::int64_t rows = source.points * source.probes;
  if (rows == 0) return cudaSuccess;
  return dispatch_noise(source.noise, [&](auto noise) {
    direction_scales_kernel<decltype(noise)::value>
        <<<grid_x(rows), threads_for_row(source.coefficients), 0, stream>>>(source, scales);
    return cudaGetLastError();
  });
}

cudaError_t launch_radius_corrections(const DirectionSource& source, const float* offsets,
                                      const float* radius, const float* step, float* corrections,
                                      cudaStream_t stream) {
  const std::int64_t rows = source.points * source.probes;
  if (rows == 0) return cudaSuccess;
  return dispatch_noise(source.noise, [&](auto noise) {
    radius_corrections_kernel<decltype(noise)::value>
        <<<grid_x(rows), threads_for_row(source.coefficients), 0, stream>>>(source, offsets, radius,
                                                                            step, corrections);
    return cudaGetLastError();
  });
}

cudaError_t launch_probe_queries(const DirectionSource& source, const ProbePoints& at,
                                 const QuerySink& sink, cudaStream_t stream) {
  const std::int64_t rows = source.points * source.probes, size = at.size;
  if (rows == 0) return cudaSuccess;
  const dim3 threads(kWarp, kWarps);
  const dim3 blocks(grid_x(divide_up(rows, kWarps)), grid_y(divide_up(size, kTiles * kTile)));
  return dispatch_noise(source.noise, [&](auto noise) {
    const bool aligned =
        vectors_are_aligned(at.origins, size) && vectors_are_aligned(at.points, size);
    return dispatch_rows(sink, size, aligned, [&](auto type, auto rows_aligned) {
      using T = typename decltype(type)::type;
      probe_queries_kernel<decltype(noise)::value, T, decltype(rows_aligned)::value>
          <<<blocks, threads, 0, stream>>>(source, at, static_cast<T*>(sink.data), sink.lower,
                                           sink.upper);
      return cudaGetLastError();
    });
  });
}

cudaError_t launch_probe_weights(const DirectionSource& source, const std::int64_t* decisions,
                                 const std::int64_t* wanted, bool targeted, float* weights,
                                 cudaStream_t stream) {
  if (source.points == 0 || source.probes == 0) return cudaSuccess;
  probe_weights_kernel<<<grid_x(source.points), threads_for_row(source.probes), 0, stream>>>(
      source, decisions, wanted, targeted, weights);
  return cudaGetLastError();
}

cudaError_t launch_weighted_sum(const DirectionSource& source, const float* weights, float* total,
                                cudaStream_t stream) {
  if (source.points == 0) return cudaSuccess;
  const dim3 threads(kWarp, kWarps);
  const dim3 blocks(grid_x(divide_up(source.coefficients, kTile * kWarps)), grid_y(source.points));
  return dispatch_noise(source.noise, [&](auto noise) {
    weighted_sum_kernel<decltype(noise)::value>
        <<<blocks, threads, 0, stream>>>(source, weights, total);
    return cudaGetLastError();
  });
}

cudaError_t launch_normalise(float* vectors, std::int64_t rows, std::int64_t size,
                             cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  normalise_kernel<<<grid_x(rows), threads_for_row(size), 0, stream>>>(vectors, rows, size);
  return cudaGetLastError();
}

}  // namespace db3kd::cuda
