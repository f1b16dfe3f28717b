#include "../core/probe.h"
#include "directions.cuh"

namespace db3kd::cuda {
namespace {

// Shared memory that every device grants without being asked.
constexpr std::int64_t kSharedFloats = 48 * 1024 / sizeof(float) - kWarps;

// How a block cuts one channel into pieces that fit into shared memory: a few rows of coefficients
// at a time, and the row transform of a strip of columns.
struct Strip {
  int coefficient_rows;
  int columns;

  std::size_t bytes(const BasisPair& basis) const {
    return (coefficient_rows * basis.w + columns * basis.h) * sizeof(float);
  }
};

Strip strip_of(const BasisPair& basis) {
  constexpr std::int64_t kCoefficients = 2048;
  const std::int64_t rows = std::clamp<std::int64_t>(kCoefficients / basis.w, 1, basis.h);
  std::int64_t columns = std::min((kSharedFloats - rows * basis.w) / basis.h, basis.width);
  if (columns > kWarp && columns < basis.width) columns -= columns % kWarp;
  return {static_cast<int>(rows), static_cast<int>(columns)};
}

// Draws coefficients where they are needed.
template <Noise kNoise>
struct Drawn {
  DirectionId id;
  __device__ float operator()(std::int64_t index) const { return random_number<kNoise>(id, index); }
};

struct Stored {
  const float* coefficients;
  __device__ float operator()(std::int64_t index) const { return coefficients[index]; }
};

// Hands every component of one channel, row_basisᵀ · coefficients · column_basis, to
// emit(index in the image, value). All threads of a block work on it; sums run in index order.
template <typename Coefficients, typename Emit>
__device__ void transform_channel(const BasisPair& basis, const Strip& strip, std::int64_t channel,
                                  const Coefficients& coefficient, const Emit& emit) {
  extern __shared__ float shared[];
  const int h = static_cast<int>(basis.h), w = static_cast<int>(basis.w);
  float* block = shared;                               // [coefficient_rows, w]
  float* mixed = shared + strip.coefficient_rows * w;  // [h, columns]
  constexpr int kRows = 4;                             // of the image that a thread handles at once

  for (std::int64_t start = 0; start < basis.width; start += strip.columns) {
    const int columns =
        static_cast<int>(min(basis.width - start, static_cast<std::int64_t>(strip.columns)));
    for (int top = 0; top < h; top += strip.coefficient_rows) {
      const int rows = min(h - top, strip.coefficient_rows);
      __syncthreads();  // the last block may still be read
      for (int i = threadIdx.x; i < rows * w; i += blockDim.x) {
        block[i] = coefficient((channel * h + top) * w + i);
      }
      __syncthreads();
      for (int i = threadIdx.x; i < rows * columns; i += blockDim.x) {
        const int row = i / columns, column = i % columns;
        float sum = 0.0f;
        for (int j = 0; j < w; ++j) {
          sum += block[row * w + j] * basis.columns[j * basis.width + start + column];
        }
        mixed[(top + row) * columns + column] = sum;
      }
    }
    __syncthreads();
    const int row_groups = static_cast<int>((basis.height + kRows - 1) / kRows);
    for (int i = threadIdx.x; i < row_groups * columns; i += blockDim.x) {
      const std::int64_t y = static_cast<std::int64_t>(i / columns) * kRows;
      const int column = i % columns;
      float sum[kRows] = {};
      for (int k = 0; k < h; ++k) {
        const float value = mixed[k * columns + column];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          sum[r] += basis.rows[k * basis.height + min(y + r, basis.height - 1)] * value;
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (y + r >= basis.height) break;
        emit((channel * basis.height + y + r) * basis.width + start + column, sum[r]);
      }
    }
  }
}

// One block a query and channel.
template <Noise kNoise, typename T>
__global__ void probe_queries_kernel(DirectionSource source, BasisPair basis, Strip strip,
                                     ProbePoints at, T* out, float lower, float upper) {
  for (std::int64_t row = blockIdx.x; row < source.points * source.probes; row += gridDim.x) {
    const std::int64_t point = row / source.probes;
    const float *origin = at.origins + point * at.size, *from = at.points + point * at.size;
    T* query = out + row * at.size;
    const float step = at.step[point] * source.scales[row], correction = at.corrections[row];
    const Drawn<kNoise> drawn{direction_of(source, point, row % source.probes)};
    for (std::int64_t channel = blockIdx.y; channel < basis.channels; channel += gridDim.y) {
      transform_channel(basis, strip, channel, drawn, [&](std::int64_t i, float value) {
        query[i] =
            rounded<T>(point_at_radius(origin[i], from[i], step, value, correction, lower, upper));
      });
    }
  }
}

// One block a row and channel.
__global__ void to_pixels_kernel(BasisPair basis, Strip strip, const float* coefficients,
                                 std::int64_t rows, float* pixels) {
  const std::int64_t size = basis.channels * basis.height * basis.width;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const Stored stored{coefficients + row * basis.channels * basis.h * basis.w};
    float* image = pixels + row * size;
    for (std::int64_t channel = blockIdx.y; channel < basis.channels; channel += gridDim.y) {
      transform_channel(basis, strip, channel, stored,
                        [&](std::int64_t i, float value) { image[i] = value; });
    }
  }
}

dim3 blocks_of(std::int64_t rows, const BasisPair& basis) {
  return dim3(grid_x(rows), grid_y(basis.channels));
}

}  // namespace

bool basis_fits(const BasisPair& basis) { return strip_of(basis).columns >= 1; }

cudaError_t launch_probe_queries(const DirectionSource& source, const BasisPair& basis,
                                 const ProbePoints& at, const QuerySink& sink,
                                 cudaStream_t stream) {
  const std::int64_t rows = source.points * source.probes;
  if (rows == 0) return cudaSuccess;
  const Strip strip = strip_of(basis);
  return dispatch_noise(source.noise, [&](auto noise) {
    return dispatch_type(sink.type, [&](auto type) {
      using T = typename decltype(type)::type;
      probe_queries_kernel<decltype(noise)::value, T>
          <<<blocks_of(rows, basis), kThreads, strip.bytes(basis), stream>>>(
              source, basis, strip, at, static_cast<T*>(sink.data), sink.lower, sink.upper);
      return cudaGetLastError();
    });
  });
}

cudaError_t launch_to_pixels(const BasisPair& basis, const float* coefficients, std::int64_t rows,
                             float* pixels, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const Strip strip = strip_of(basis);
  to_pixels_kernel<<<blocks_of(rows, basis), kThreads, strip.bytes(basis), stream>>>(
      basis, strip, coefficients, rows, pixels);
  return cudaGetLastError();
}

}  // namespace db3kd::cuda
