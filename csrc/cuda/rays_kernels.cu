#include <cassert>

#include "../core/ray.h"
#include "device.cuh"

namespace db3kd::cuda {
namespace {

// One block per ray.
template <bool kAligned>
__global__ void ray_lengths_kernel(Rays rays, std::int64_t count, float* lengths) {
  for (std::int64_t ray = blockIdx.x; ray < count; ray += gridDim.x) {
    const std::int64_t s = rays.sample_of[ray], e = rays.end_of[ray];
    assert(s >= 0 && s < rays.sample_count && e >= 0 && e < rays.end_count);
    const float* sample = rays.samples + s * rays.size;
    const float* end = rays.ends + e * rays.size;
    double sum = 0.0;
    for (std::int64_t i = threadIdx.x * kVector; i < rays.size; i += blockDim.x * kVector) {
      const float4 x = load_vector<kAligned>(sample, i, rays.size);
      const float4 y = load_vector<kAligned>(end, i, rays.size);
      sum += sum_of_squares({x.x - y.x, x.y - y.y, x.z - y.z, x.w - y.w});
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) lengths[ray] = static_cast<float>(sqrt(sum));
  }
}

// Each thread of a row of threads loads this many vectors of a query before it uses the first.
constexpr int kVectorsPerThread = 4;
// A block processes a second tile before another block has to look up its ray.
constexpr int kTilesPerBlock = 2;

// threadIdx.y and blockIdx.x index queries, threadIdx.x and blockIdx.y vectors within a query.
template <typename T, bool kAligned>
__global__ void bracket_queries_kernel(BracketQueries queries, T* out, float lower, float upper) {
  const Rays& rays = queries.rays;
  const std::int64_t vectors = (rays.size + kVector - 1) / kVector;
  const std::int64_t tile = static_cast<std::int64_t>(blockDim.x) * kVectorsPerThread;
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
       row < queries.active_count; row += static_cast<std::int64_t>(gridDim.x) * blockDim.y) {
    const std::int64_t ray = queries.active[row];
    assert(ray >= 0 && ray < queries.ray_count);
    const std::int64_t pair = queries.pair_of[ray], e = rays.end_of[ray];
    assert(pair >= 0 && pair < queries.pair_count && e >= 0 && e < rays.end_count);
    const std::int64_t s = rays.sample_of[pair];
    assert(s >= 0 && s < rays.sample_count);
    const float fraction = fraction_of_ray(queries.radius[pair], queries.lengths[ray]);
    const float* sample = rays.samples + s * rays.size;
    const float* end = rays.ends + e * rays.size;
    for (std::int64_t first = blockIdx.y * tile; first < vectors; first += gridDim.y * tile) {
      float4 x[kVectorsPerThread], y[kVectorsPerThread];
#pragma unroll
      for (int step = 0; step < kVectorsPerThread; ++step) {
        const std::int64_t i = (first + step * blockDim.x + threadIdx.x) * kVector;
        if (i >= rays.size) continue;
        x[step] = load_vector<kAligned>(sample, i, rays.size);
        y[step] = load_vector<kAligned>(end, i, rays.size);
      }
#pragma unroll
      for (int step = 0; step < kVectorsPerThread; ++step) {
        const std::int64_t i = (first + step * blockDim.x + threadIdx.x) * kVector;
        if (i >= rays.size) continue;
        store_vector<kAligned, Reuse::kLater>(
            out + row * rays.size, i, rays.size,
            {point_on_ray(x[step].x, y[step].x, fraction, lower, upper),
             point_on_ray(x[step].y, y[step].y, fraction, lower, upper),
             point_on_ray(x[step].z, y[step].z, fraction, lower, upper),
             point_on_ray(x[step].w, y[step].w, fraction, lower, upper)});
      }
    }
  }
}

bool rows_are_aligned(const Rays& rays) {
  return vectors_are_aligned(rays.samples, rays.size) && vectors_are_aligned(rays.ends, rays.size);
}

// Threads along a query: a warp, or fewer if the query is shorter.
unsigned threads_along(std::int64_t vectors) {
  unsigned threads = 1;
  while (threads < kWarp && threads < vectors) threads *= 2;
  return threads;
}

}  // namespace

cudaError_t launch_ray_lengths(const Rays& rays, std::int64_t count, float* lengths,
                               cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return dispatch_aligned(rows_are_aligned(rays), [&](auto aligned) {
    ray_lengths_kernel<decltype(aligned)::value>
        <<<grid_x(count), threads_for_row(rays.size), 0, stream>>>(rays, count, lengths);
    return cudaGetLastError();
  });
}

cudaError_t launch_bracket_queries(const BracketQueries& queries, const QuerySink& sink,
                                   cudaStream_t stream) {
  const Rays& rays = queries.rays;
  if (queries.active_count == 0 || rays.size == 0) return cudaSuccess;
  const std::int64_t vectors = divide_up(rays.size, kVector);
  const unsigned along = threads_along(vectors);
  const dim3 threads(along, kThreads / along);
  const dim3 blocks(grid_x(divide_up(queries.active_count, threads.y)),
                    grid_y(divide_up(vectors, along * kVectorsPerThread * kTilesPerBlock)));
  return dispatch_rows(sink, rays.size, rows_are_aligned(rays), [&](auto type, auto rows_aligned) {
    using T = typename decltype(type)::type;
    bracket_queries_kernel<T, decltype(rows_aligned)::value><<<blocks, threads, 0, stream>>>(
        queries, static_cast<T*>(sink.data), sink.lower, sink.upper);
    return cudaGetLastError();
  });
}

}  // namespace db3kd::cuda
