#include "../core/probe.h"
#include "../core/ray.h"
#include "directions.cuh"
#include "divisor.cuh"

namespace db3kd::cuda {
namespace {

// One block per draw.
__global__ void gaussian_scales_kernel(DirectionSource source, Divisor probes, float* scales) {
  const std::int64_t blocks = (source.coefficients + kGaussianPerBlock - 1) / kGaussianPerBlock;
  for (std::int64_t row = blockIdx.x; row < source.points * source.probes; row += gridDim.x) {
    const Quotient place = probes.divide(row);
    const DirectionId id = direction_of(source, place.quotient, place.remainder);
    double squares = 0.0;
    for (std::int64_t block = threadIdx.x; block < blocks; block += blockDim.x) {
      const float4 numbers = gaussian_vector(id, static_cast<std::uint32_t>(block));
      squares += sum_of_squares(first_numbers(numbers, source.coefficients - block * kVector));
    }
    squares = block_sum(squares);
    if (threadIdx.x == 0) scales[row] = unit_scale(squares);
  }
}

// A row of a matrix becomes a column.
__device__ void transpose_row(const Transpose& transpose, std::int64_t row) {
  for (std::int64_t column = threadIdx.x; column < transpose.columns; column += blockDim.x) {
    transpose.transposed[column * transpose.rows + row] =
        transpose.matrix[row * transpose.columns + column];
  }
}

// One block per point, and one per row of the matrices.
template <bool kAligned>
__global__ void offsets_kernel(const float* origins, const float* points, std::int64_t rows,
                               std::int64_t size, float* offsets, float* radius, Transpose first,
                               Transpose second) {
  const std::int64_t all = rows + first.rows + second.rows;
  for (std::int64_t row = blockIdx.x; row < all; row += gridDim.x) {
    if (row >= rows + first.rows) {
      transpose_row(second, row - rows - first.rows);
      continue;
    }
    if (row >= rows) {
      transpose_row(first, row - rows);
      continue;
    }
    double squares = 0.0;
    for (std::int64_t i = threadIdx.x * kVector; i < size; i += blockDim.x * kVector) {
      const float4 o = load_vector<kAligned>(origins + row * size, i, size);
      const float4 p = load_vector<kAligned>(points + row * size, i, size);
      const float4 offset{p.x - o.x, p.y - o.y, p.z - o.z, p.w - o.w};
      squares += sum_of_squares(offset);
      store_vector<kAligned, Reuse::kSoon>(offsets + row * size, i, size, offset);
    }
    squares = block_sum(squares);
    if (threadIdx.x == 0) radius[row] = static_cast<float>(sqrt(squares));
  }
}

// One warp per draw, or one block if draws are long.
template <Noise kNoise, bool kAligned, bool kBlock>
__global__ void probe_factors_kernel(DirectionSource source, Divisor probes, const float* offsets,
                                     const float* radius, const float* step,
                                     ProbeFactors* factors) {
  __shared__ uint4 blocks[kWarps][kWarp];
  const int warp = threadIdx.x / kWarp;
  const std::int64_t size = source.coefficients;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * (kBlock ? 1 : kWarps);
  for (std::int64_t row = kBlock ? blockIdx.x
                                 : static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
       row < source.points * source.probes; row += stride) {
    const Quotient place = probes.divide(row);
    const std::int64_t point = place.quotient;
    assert_counter_fits(source, point);
    const DirectionId id = direction_of(source, point, place.remainder);
    const float* offset = offsets + point * size;
    double along = 0.0, squares = 0.0;
    visit_numbers<kNoise>(id, size, kBlock ? warp : 0, kBlock ? kWarps : 1, blocks[warp],
                          [&](std::int64_t i, const float4& u) {
                            const float4 v = load_vector<kAligned>(offset, i, size);
                            along += (v.x * u.x + v.y * u.y) + (v.z * u.z + v.w * u.w);
                            if constexpr (kNoise == Noise::kGaussian) {
                              squares += sum_of_squares(first_numbers(u, size - i));
                            }
                          });
    along = kBlock ? block_sum(along) : warp_sum(along);
    float scale = source.sign_scale;
    if constexpr (kNoise == Noise::kGaussian) {
      scale = unit_scale(kBlock ? block_sum(squares) : warp_sum(squares));
    }
    if (threadIdx.x % (kBlock ? kThreads : kWarp) == 0) {
      factors[row] = {step[point] * scale,
                      radius_correction(radius[point], step[point], along * scale)};
    }
  }
}

// A warp processes kTiles tiles of one query; threadIdx.y and blockIdx.x index queries.
template <Noise kNoise, typename T, bool kAligned>
__global__ void probe_queries_kernel(DirectionSource source, Divisor probes, ProbePoints at, T* out,
                                     float lower, float upper) {
  __shared__ uint4 blocks[kWarps][kWarp];
  const std::int64_t size = at.size;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kWarps;
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.y;
       row < source.points * source.probes; row += stride) {
    const Quotient place = probes.divide(row);
    const std::int64_t point = place.quotient;
    const ProbeFactors factors = at.factors[row];
    const DirectionId id = direction_of(source, point, place.remainder);
    visit_numbers<kNoise>(
        id, size, blockIdx.y, gridDim.y, blocks[threadIdx.y], [&](std::int64_t i, const float4& u) {
          write_probe<kAligned>(at, point, row, factors, u, i, size, out, lower, upper);
        });
  }
}

// Queries of at most one tile, for which a whole warp would be partly idle. A thread takes four
// numbers of a query and draws their block itself; threadIdx.y and blockIdx.x index queries.
template <Noise kNoise, typename T, bool kAligned>
__global__ void short_probe_queries_kernel(DirectionSource source, Divisor probes, ProbePoints at,
                                           T* out, float lower, float upper) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
       row < source.points * source.probes; row += stride) {
    const Quotient place = probes.divide(row);
    const std::int64_t point = place.quotient;
    const DirectionId id = direction_of(source, point, place.remainder);
    float4 u;
    if constexpr (kNoise == Noise::kRademacher) {
      const Blocks<1> drawn = random_blocks<1>(id, 0);
      u = rademacher_vector(
          {drawn.word[0][0], drawn.word[1][0], drawn.word[2][0], drawn.word[3][0]});
    } else {
      u = gaussian_vector(id, threadIdx.x);
    }
    write_probe<kAligned>(at, point, row, at.factors[row], u, threadIdx.x * kVector, at.size, out,
                          lower, upper);
  }
}

// One block per point.
__global__ void probe_weights_kernel(DirectionSource source, const std::int64_t* decisions,
                                     const std::int64_t* criterion_class, bool targeted,
                                     float* weights) {
  for (std::int64_t point = blockIdx.x; point < source.points; point += gridDim.x) {
    assert_counter_fits(source, point);
    const std::int64_t* row = decisions + point * source.probes;
    Tally mine;
    for (std::int64_t k = threadIdx.x; k < source.probes; k += blockDim.x) {
      mine.add(outcome_of(row[k], criterion_class[point], targeted));
    }
    const Tally tally{block_sum(mine.hits), block_sum(mine.misses)};
    for (std::int64_t k = threadIdx.x; k < source.probes; k += blockDim.x) {
      const std::int64_t i = point * source.probes + k;
      const float scale = source.noise == Noise::kGaussian ? weights[i] : source.sign_scale;
      weights[i] =
          probe_weight(outcome_of(row[k], criterion_class[point], targeted), tally) * scale;
    }
  }
}

// A warp takes one tile of one point and visits the probes in order, so that sums have one order.
// threadIdx.y and blockIdx.x index tiles, blockIdx.y points.
template <Noise kNoise>
__global__ void weighted_sum_kernel(DirectionSource source, const float* weights, float* total) {
  __shared__ uint4 blocks[kWarps][kWarp];
  const int lane = threadIdx.x;
  const std::int64_t size = source.coefficients;
  const std::int64_t tile = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.y;
  if (tile * kTile >= size) return;
  for (std::int64_t point = blockIdx.y; point < source.points; point += gridDim.y) {
    float4 sum{0.0f, 0.0f, 0.0f, 0.0f};
    for (std::int64_t first = 0; first < source.probes; first += kWarp) {
      const std::int64_t own = first + lane;
      const float own_weight = own < source.probes ? weights[point * source.probes + own] : 0.0f;
      if constexpr (kNoise == Noise::kRademacher) {
        const DirectionId id = direction_of(source, point, own);
        share_blocks(random_blocks<1>(id, static_cast<std::uint32_t>(tile)), blocks[threadIdx.y]);
      }
      for (int probe = 0; probe < kWarp; ++probe) {
        const float weight = __shfl_sync(0xffffffffu, own_weight, probe);
        if (weight == 0.0f) continue;
        float4 u;
        if constexpr (kNoise == Noise::kRademacher) {
          u = rademacher_vector(blocks[threadIdx.y][probe]);
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
    if (i < size) store_vector<false, Reuse::kSoon>(total + point * size, i, size, sum);
  }
}

// One block per row.
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

cudaError_t launch_gaussian_scales(const DirectionSource& source, float* scales,
                                   cudaStream_t stream) {
  const std::int64_t rows = source.points * source.probes;
  if (rows == 0) return cudaSuccess;
  gaussian_scales_kernel<<<grid_x(rows), threads_for_row(source.coefficients), 0, stream>>>(
      source, Divisor(source.probes), scales);
  return cudaGetLastError();
}

cudaError_t launch_offsets(const float* origins, const float* points, std::int64_t rows,
                           std::int64_t size, float* offsets, float* radius, const Transpose& first,
                           const Transpose& second, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const bool aligned = vectors_are_aligned(origins, size) && vectors_are_aligned(points, size);
  return dispatch_aligned(aligned, [&](auto rows_aligned) {
    offsets_kernel<decltype(rows_aligned)::value>
        <<<grid_x(rows + first.rows + second.rows), threads_for_row(size), 0, stream>>>(
            origins, points, rows, size, offsets, radius, first, second);
    return cudaGetLastError();
  });
}

cudaError_t launch_probe_factors(const DirectionSource& source, const float* offsets,
                                 const float* radius, const float* step, ProbeFactors* factors,
                                 cudaStream_t stream) {
  const std::int64_t rows = source.points * source.probes;
  if (rows == 0) return cudaSuccess;
  const auto launch = [&](auto noise, auto aligned, auto block) {
    constexpr bool kBlock = decltype(block)::value;
    probe_factors_kernel<decltype(noise)::value, decltype(aligned)::value, kBlock>
        <<<grid_x(kBlock ? rows : divide_up(rows, kWarps)), kThreads, 0, stream>>>(
            source, Divisor(source.probes), offsets, radius, step, factors);
    return cudaGetLastError();
  };
  // Depends on the size of a draw only, because it determines the order of a sum.
  const bool long_draws = source.coefficients > 4 * kTiles * kTile;
  return dispatch_noise(source.noise, [&](auto noise) {
    return dispatch_aligned(vectors_are_aligned(offsets, source.coefficients), [&](auto aligned) {
      return long_draws ? launch(noise, aligned, std::true_type{})
                        : launch(noise, aligned, std::false_type{});
    });
  });
}

cudaError_t launch_probe_queries(const DirectionSource& source, const ProbePoints& at,
                                 const QuerySink& sink, cudaStream_t stream) {
  const std::int64_t rows = source.points * source.probes, size = at.size;
  if (rows == 0) return cudaSuccess;
  const Divisor probes(source.probes);
  const bool is_short = size <= kTile;
  const auto along = static_cast<unsigned>(is_short ? divide_up(size, kVector) : kWarp);
  const dim3 threads(along, kThreads / along);
  const dim3 blocks(grid_x(divide_up(rows, threads.y)), grid_y(divide_up(size, kTiles * kTile)));
  const bool aligned =
      vectors_are_aligned(at.origins, size) && vectors_are_aligned(at.offsets, size);
  return dispatch_noise(source.noise, [&](auto noise) {
    return dispatch_rows(sink, size, aligned, [&](auto type, auto rows_aligned) {
      using T = typename decltype(type)::type;
      constexpr Noise kNoise = decltype(noise)::value;
      constexpr bool kAligned = decltype(rows_aligned)::value;
      auto* out = static_cast<T*>(sink.data);
      if (is_short) {
        short_probe_queries_kernel<kNoise, T, kAligned>
            <<<blocks, threads, 0, stream>>>(source, probes, at, out, sink.lower, sink.upper);
      } else {
        probe_queries_kernel<kNoise, T, kAligned>
            <<<blocks, threads, 0, stream>>>(source, probes, at, out, sink.lower, sink.upper);
      }
      return cudaGetLastError();
    });
  });
}

cudaError_t launch_probe_weights(const DirectionSource& source, const std::int64_t* decisions,
                                 const std::int64_t* criterion_class, bool targeted, float* weights,
                                 cudaStream_t stream) {
  if (source.points == 0 || source.probes == 0) return cudaSuccess;
  probe_weights_kernel<<<grid_x(source.points), threads_for_row(source.probes), 0, stream>>>(
      source, decisions, criterion_class, targeted, weights);
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
