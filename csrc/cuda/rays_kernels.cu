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

// Writes the queries of `count` rays, ray_of(0) and so on. threadIdx.y and blockIdx.x index
// queries, threadIdx.x and blockIdx.y vectors within a query.
template <bool kAligned, typename T, typename RayOf>
__device__ __forceinline__ void write_queries(const BracketQueries& queries, std::int64_t count,
                                              const RayOf& ray_of, T* out, float lower,
                                              float upper) {
  const Rays& rays = queries.rays;
  const std::int64_t vectors = (rays.size + kVector - 1) / kVector;
  const std::int64_t tile = static_cast<std::int64_t>(blockDim.x) * kVectorsPerThread;
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
       row < count; row += static_cast<std::int64_t>(gridDim.x) * blockDim.y) {
    const std::int64_t ray = ray_of(row);
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

template <typename T, bool kAligned>
__global__ void bracket_queries_kernel(BracketQueries queries, T* out, float lower, float upper) {
  const std::int64_t* active = queries.active;
  write_queries<kAligned>(
      queries, queries.active_count, [=](std::int64_t row) { return active[row]; }, out, lower,
      upper);
}

// Enough blocks to fill a device a few times.
constexpr std::int64_t kBlocksThatCount = 2048;

constexpr int kChunksPerThread = kMaxChunks / kThreads;

// Where each chunk's rays go: the number of rays in the chunks before it, and of all rays at the
// end. All threads of a block must call it.
__device__ std::int64_t count_rays(const NextRays& next, std::int64_t (&before)[kMaxChunks]) {
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  std::int64_t count[kChunksPerThread], sum = 0, total = 0;
#pragma unroll
  for (int i = 0; i < kChunksPerThread; ++i) {
    const int chunk = thread * kChunksPerThread + i;
    // It is negative if an error is on its way to the host.
    count[i] = chunk < next.chunks ? max(next.count_of_chunk[chunk], std::int64_t{0}) : 0;
    sum += count[i];
  }
  std::int64_t offset = sum_before(sum, total);
#pragma unroll
  for (int i = 0; i < kChunksPerThread; ++i) {
    before[thread * kChunksPerThread + i] = offset;
    offset += count[i];
  }
  __syncthreads();
  return total;
}

// Each block adds up the counts of all chunks itself: one read of a few kilobytes from the L2
// cache. This takes the place of a scan across blocks, and of a launch.
template <bool kAligned>
__global__ void next_queries_kernel(NextRays next, BracketQueries queries, std::int64_t limit,
                                    float* out, float lower, float upper) {
  __shared__ std::int64_t before[kMaxChunks];
  const std::int64_t total = count_rays(next, before);
  // The last chunk that begins at or before a row has this row: chunks without rays begin where the
  // next one does.
  const auto ray_of = [&](std::int64_t row) {
    int chunk = 0;
    for (int step = kMaxChunks / 2; step > 0; step /= 2) {
      if (chunk + step < next.chunks && before[chunk + step] <= row) chunk += step;
    }
    return next.kept[next.first_of_chunk[chunk] + row - before[chunk]];
  };
  if (blockIdx.y == 0) {
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
    for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kThreads +
                            threadIdx.y * blockDim.x + threadIdx.x;
         row < total; row += stride) {
      const std::int64_t ray = ray_of(row);
      next.active[row] = ray;
      next.pairs[row] = queries.pair_of[ray];
    }
  }
  write_queries<kAligned>(queries, min(total, limit), ray_of, out, lower, upper);
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

cudaError_t launch_next_queries(const NextRays& next, const BracketQueries& queries,
                                std::int64_t limit, float* out, float lower, float upper,
                                cudaStream_t stream) {
  if (next.most == 0) return cudaSuccess;
  const Rays& rays = queries.rays;
  const std::int64_t vectors = std::max<std::int64_t>(divide_up(rays.size, kVector), 1);
  const unsigned along = threads_along(vectors);
  const dim3 threads(along, kThreads / along);
  const unsigned across = grid_y(divide_up(vectors, along * kVectorsPerThread * kTilesPerBlock));
  // Few blocks that take many rows each, because each of them counts all rays first.
  const std::int64_t rows =
      divide_up(std::min(next.most, std::max<std::int64_t>(limit, 1)), threads.y);
  const dim3 blocks(grid_x(std::min(rows, divide_up(kBlocksThatCount, across))), across);
  const bool aligned = rows_are_aligned(rays) && vectors_are_aligned(out, rays.size);
  return dispatch_aligned(aligned, [&](auto rows_aligned) {
    next_queries_kernel<decltype(rows_aligned)::value>
        <<<blocks, threads, 0, stream>>>(next, queries, limit, out, lower, upper);
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
