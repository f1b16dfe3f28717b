#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "../core/bracket.h"
#include "../core/noise.h"
#include "../core/soft_label.h"

// The launchers of the CUDA kernels, independent of torch. Pointers are on the current device, work
// is enqueued on `stream`, and the return value is the launch error. Shapes are those of
// db3kd/ops/. An index out of range triggers a device assertion.

namespace db3kd::cuda {

enum class QueryType { kFloat32, kFloat16, kBFloat16 };

// The destination of queries: rows of `type`, clamped to the bounds.
struct QuerySink {
  void* data;
  QueryType type;
  float lower;
  float upper;
};

struct Rays {
  const float* samples;  // [sample_count, size]
  const float* ends;     // [end_count, size]
  const std::int64_t* sample_of;
  const std::int64_t* end_of;
  std::int64_t sample_count;
  std::int64_t end_count;
  std::int64_t size;
};

// Here sample_of and end_of have one entry per ray.
cudaError_t launch_ray_lengths(const Rays& rays, std::int64_t count, float* lengths,
                               cudaStream_t stream);

// Here sample_of has one entry per pair.
struct BracketQueries {
  Rays rays;
  const std::int64_t* pair_of;
  const float* lengths;
  const float* radius;
  const std::int64_t* active;
  std::int64_t ray_count;
  std::int64_t pair_count;
  std::int64_t active_count;
};

cudaError_t launch_bracket_queries(const BracketQueries& queries, const QuerySink& sink,
                                   cudaStream_t stream);

// The active rays are divided into chunks of neighbouring rows, at most this many.
constexpr std::int64_t kMaxChunks = 1024;

// The rows of a chunk of this many active rays.
std::int64_t chunk_rows_for(std::int64_t active_count);

struct BracketStep {
  float* low;
  float* high;
  float* radius;
  std::int64_t* winner;
  const std::int64_t* active;
  const std::int64_t* pair_of;
  const std::int64_t* decisions;
  const std::int64_t* criterion_class;
  std::int64_t pair_count;
  std::int64_t ray_count;
  std::int64_t active_count;
  bool targeted;
  Tolerance tolerance;
  std::int64_t chunks;
  std::int64_t chunk_rows;
  // Results. The rays that stay, of the pairs that begin in chunk c, are in order at kept
  // [active_count] from first_of_chunk[c] on; there are count_of_chunk[c], and first_of_chunk[c] is
  // -1 if no pair begins there. If the pairs do not ascend, the count is -1 minus the first row of
  // the chunk that is out of order, and all else is invalid.
  std::int64_t* kept;
  std::int64_t* first_of_chunk;
  std::int64_t* count_of_chunk;
  std::int64_t* host_counts;  // a copy of count_of_chunk, in memory of the host
};

cudaError_t launch_bracket_step(const BracketStep& step, cudaStream_t stream);

// The rays that stay after a step, and where they go.
struct NextRays {
  const std::int64_t* kept;
  const std::int64_t* first_of_chunk;
  const std::int64_t* count_of_chunk;
  std::int64_t chunks;
  std::int64_t most;     // an upper bound of their number
  std::int64_t* active;  // [most], the rays without gaps
  std::int64_t* pairs;   // [most], the pair of each
};

// Compacts the rays, and writes the queries of the first `limit` of them to out [min(most, limit),
// size]. The number of rays is read on the device. The `active` of `queries` is not used.
cudaError_t launch_next_queries(const NextRays& next, const BracketQueries& queries,
                                std::int64_t limit, float* out, float lower, float upper,
                                cudaStream_t stream);

// The distribution of the directions of `probes` probes at each of `points` points.
struct DirectionSource {
  Noise noise;
  std::int64_t seed;
  const std::int64_t* counters;  // [points, 3]
  std::int64_t points;
  std::int64_t probes;
  std::int64_t coefficients;
  float sign_scale;  // 1 / the length of `coefficients` signs
};

// scales [points, probes]: 1 / the length of each draw of normal numbers.
cudaError_t launch_gaussian_scales(const DirectionSource& source, float* scales,
                                   cudaStream_t stream);

struct BasisPair {
  const float* rows;     // [h, height]
  const float* columns;  // [w, width]
  std::int64_t channels;
  std::int64_t h;
  std::int64_t height;
  std::int64_t w;
  std::int64_t width;
};

// Whether one coefficient row and a few columns of intermediate results fit into shared memory, and
// the indices within an image into 32 bits.
bool basis_fits(const BasisPair& basis);

// A matrix [rows, columns] and where its transpose goes.
struct Transpose {
  const float* matrix;
  std::int64_t rows;
  std::int64_t columns;
  float* transposed;
};

// offsets [rows, size]: each point minus its origin. radius [rows]: the length of each offset. In
// the same launch two small matrices are transposed, or none if they have no rows.
cudaError_t launch_offsets(const float* origins, const float* points, std::int64_t rows,
                           std::int64_t size, float* offsets, float* radius, const Transpose& first,
                           const Transpose& second, cudaStream_t stream);

// Turns a draw into a query: numbers times `step` are a step of the right length from the point,
// and the sum times `correction` lies at the point's radius.
struct alignas(8) ProbeFactors {
  float step;
  float correction;
};

// factors [points, probes], from the offset of each point as coefficients [points, coefficients],
// its radius [points] and step [points].
cudaError_t launch_probe_factors(const DirectionSource& source, const float* offsets,
                                 const float* radius, const float* step, ProbeFactors* factors,
                                 cudaStream_t stream);

// The start of probes, and how draws become probes.
struct ProbePoints {
  const float* origins;         // [points, size]
  const float* offsets;         // [points, size]
  const ProbeFactors* factors;  // [points, probes]
  std::int64_t size;
};

// The second form transforms coefficients into components first.
cudaError_t launch_probe_queries(const DirectionSource& source, const ProbePoints& at,
                                 const QuerySink& sink, cudaStream_t stream);
cudaError_t launch_probe_queries(const DirectionSource& source, const BasisPair& basis,
                                 const ProbePoints& at, const QuerySink& sink, cudaStream_t stream);

// weights [points, probes]: the weight of each probe in the gradient, times the scale of its draw,
// which it must contain before the call for normal numbers.
cudaError_t launch_probe_weights(const DirectionSource& source, const std::int64_t* decisions,
                                 const std::int64_t* criterion_class, bool targeted, float* weights,
                                 cudaStream_t stream);

// total [points, coefficients]: the weighted sum of each point's draws.
cudaError_t launch_weighted_sum(const DirectionSource& source, const float* weights, float* total,
                                cudaStream_t stream);

// pixels [rows, channels, height, width] from coefficients [rows, channels, h, w]; with transposed
// bases, coefficients from pixels.
cudaError_t launch_to_pixels(const BasisPair& basis, const float* coefficients, std::int64_t rows,
                             float* pixels, cudaStream_t stream);

// Scales each of `rows` vectors to length 1; zeros stay zeros.
cudaError_t launch_normalise(float* vectors, std::int64_t rows, std::int64_t size,
                             cudaStream_t stream);

// first_bad: at least rows · classes before the call; afterwards the smallest flat index of an
// invalid distance.
cudaError_t launch_soft_labels(const float* distances, const std::int64_t* predicted,
                               std::int64_t rows, std::int64_t classes,
                               const SoftLabelSettings& settings, float* labels,
                               unsigned long long* first_bad, cudaStream_t stream);

}  // namespace db3kd::cuda
