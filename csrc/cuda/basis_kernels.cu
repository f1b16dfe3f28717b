#include "directions.cuh"
#include "divisor.cuh"

namespace db3kd::cuda {
namespace {

// Shared memory that every device provides without an opt-in.
constexpr std::int64_t kSharedFloats = 48 * 1024 / sizeof(float);

// The maximum number of rows and columns of an image.
constexpr std::int64_t kMaxSide = 1 << 20;

// A thread computes kVector × kVector results at a time: two loads for sixteen multiplications.
constexpr int kTileSide = kVector;

__host__ __device__ constexpr std::int64_t whole_tiles(std::int64_t size) {
  return (size + kTileSide - 1) / kTileSide * kTileSide;
}

// How a block divides its work into pieces that fit into shared memory. A block works on `units`
// channels of images side by side. For each it holds a few rows of coefficients and the row
// transform of a strip of columns.
struct Strip {
  int units;
  int rows;     // of coefficients, whole tiles
  int columns;  // of the image, whole tiles
  Divisor channels;

  // Philox blocks that a piece of coefficients can touch.
  __host__ __device__ int blocks(const BasisPair& basis) const {
    return static_cast<int>(rows * basis.w / kRademacherPerBlock) + 2;
  }
  __host__ __device__ int floats(const BasisPair& basis) const {
    return static_cast<int>(rows * basis.w + columns * basis.h + blocks(basis) * kVector);
  }
};

Strip strip_of(const BasisPair& basis) {
  constexpr std::int64_t kCoefficients = 3600;
  const std::int64_t most = kCoefficients / basis.w / kTileSide * kTileSide;
  const std::int64_t rows = std::clamp<std::int64_t>(most, kTileSide, whole_tiles(basis.h));
  Strip strip{1, static_cast<int>(rows), 0, Divisor(basis.channels)};
  const std::int64_t room = std::max<std::int64_t>(kSharedFloats - strip.floats(basis), 0);
  std::int64_t columns = room / basis.h / kTileSide * kTileSide;
  if (columns == 0) return strip;
  // Strips of about the same width.
  columns = whole_tiles(divide_up(basis.width, divide_up(basis.width, columns)));
  strip.columns = static_cast<int>(columns);
  const std::int64_t tiles = divide_up(basis.height, kTileSide) * columns / kTileSide;
  strip.units = static_cast<int>(std::clamp<std::int64_t>(
      std::min(kThreads / tiles, kSharedFloats / strip.floats(basis)), 1, kThreads));
  return strip;
}

// One piece of the work of a block: for each of `units` channels, starting with channel number
// `unit` among all channels of all images, coefficient rows [top, top + rows) and columns [left,
// left + columns).
struct Piece {
  std::int64_t unit;
  int units;
  int top;
  int rows;
  std::int64_t left;
  int columns;
};

// The shared memory of a block, divided by unit: coefficients [w, strip.rows], the row transform
// [h, strip.columns], and Philox blocks.
struct Scratch {
  float* memory;
  int coefficients;
  int part;

  __device__ Scratch(const BasisPair& basis, const Strip& strip, float* shared)
      : memory(shared),
        coefficients(static_cast<int>(strip.rows * basis.w)),
        part(strip.floats(basis)) {}

  __device__ float* coefficients_of(int unit) const { return memory + unit * part; }
  __device__ float* mixed_of(int unit) const { return memory + unit * part + coefficients; }
  __device__ uint4* blocks_of(int unit, int count) const {
    return reinterpret_cast<uint4*>(memory + (unit + 1) * part) - count;
  }
};

// The image of a unit, as the quotient, and its channel, as the remainder.
__device__ __forceinline__ Quotient image_of(const Strip& strip, const Piece& piece, int unit) {
  return strip.channels.divide(piece.unit + unit);
}

// The index of the first coefficient of a piece of a channel among those of its image.
__device__ std::int64_t first_coefficient(const BasisPair& basis, const Piece& piece,
                                          std::int64_t channel) {
  return (channel * basis.h + piece.top) * basis.w;
}

// Draws the coefficients of a piece.
template <Noise kNoise>
struct Drawn {
  const DirectionSource& source;
  const Divisor& probes;

  __device__ DirectionId id(std::int64_t image) const {
    const Quotient place = probes.divide(image);
    return direction_of(source, place.quotient, place.remainder);
  }

  __device__ void load(const BasisPair& basis, const Strip& strip, const Piece& piece,
                       const Scratch& scratch) const {
    const int w = static_cast<int>(basis.w), count = piece.rows * w;
    const int per_block = kNoise == Noise::kGaussian ? kGaussianPerBlock : kRademacherPerBlock;
    const int blocks = count / per_block + 2;
    for (int i = threadIdx.x; i < piece.units * blocks; i += blockDim.x) {
      const int unit = i / blocks;
      const Quotient image = image_of(strip, piece, unit);
      const std::int64_t begin = first_coefficient(basis, piece, image.remainder);
      const std::int64_t block = begin / per_block + i % blocks;
      if (block * per_block >= begin + count) continue;
      const DirectionId drawn = id(image.quotient);
      if constexpr (kNoise == Noise::kGaussian) {
        const float4 numbers = gaussian_vector(drawn, static_cast<std::uint32_t>(block));
        const float element[kVector] = {numbers.x, numbers.y, numbers.z, numbers.w};
#pragma unroll
        for (int e = 0; e < kVector; ++e) {
          const int at = static_cast<int>(block * kVector + e - begin);
          if (at < 0 || at >= count) continue;
          scratch.coefficients_of(unit)[at % w * strip.rows + at / w] = element[e];
        }
      } else {
        const Blocks<1> words = random_blocks<1>(drawn, static_cast<std::uint32_t>(block));
        scratch.blocks_of(unit, strip.blocks(basis))[i % blocks] = {
            words.word[0][0], words.word[1][0], words.word[2][0], words.word[3][0]};
      }
    }
    if constexpr (kNoise == Noise::kRademacher) {
      __syncthreads();
      for (int i = threadIdx.x; i < piece.units * count; i += blockDim.x) {
        const int unit = i / count, row = i % count % piece.rows, column = i % count / piece.rows;
        const std::int64_t begin =
            first_coefficient(basis, piece, image_of(strip, piece, unit).remainder);
        const int bit = static_cast<int>(begin % kRademacherPerBlock) + row * w + column;
        const auto* words =
            reinterpret_cast<const std::uint32_t*>(scratch.blocks_of(unit, strip.blocks(basis)));
        scratch.coefficients_of(unit)[column * strip.rows + row] =
            rademacher(words[bit / 32], bit % 32);
      }
    }
  }
};

// Reads the coefficients of a piece from memory.
struct Stored {
  const float* coefficients;  // [images, channels, h, w]

  __device__ void load(const BasisPair& basis, const Strip& strip, const Piece& piece,
                       const Scratch& scratch) const {
    const int w = static_cast<int>(basis.w), count = piece.rows * w;
    for (int i = threadIdx.x; i < piece.units * count; i += blockDim.x) {
      const int unit = i / count, at = i % count;
      const std::int64_t from = ((piece.unit + unit) * basis.h + piece.top) * basis.w + at;
      scratch.coefficients_of(unit)[at % w * strip.rows + at / w] = coefficients[from];
    }
  }
};

// Fills the missing rows of the last tile of a piece with zeros, because tiles are read whole.
__device__ void fill_last_tile(const BasisPair& basis, const Strip& strip, const Piece& piece,
                               const Scratch& scratch) {
  const int w = static_cast<int>(basis.w);
  const int missing = static_cast<int>(whole_tiles(piece.rows)) - piece.rows;
  for (int i = threadIdx.x; i < piece.units * missing * w; i += blockDim.x) {
    const int unit = i / (missing * w), row = piece.rows + i % missing, column = i / missing % w;
    scratch.coefficients_of(unit)[column * strip.rows + row] = 0.0f;
  }
}

// sum[r, x] += a[r] · b[x] with one rounding (fused multiply-add).
__device__ __forceinline__ void add_product(float4 (&sum)[kTileSide], float4 a, float4 b) {
  const float factor[kTileSide] = {a.x, a.y, a.z, a.w};
#pragma unroll
  for (int r = 0; r < kTileSide; ++r) {
    sum[r] = {fmaf(factor[r], b.x, sum[r].x), fmaf(factor[r], b.y, sum[r].y),
              fmaf(factor[r], b.z, sum[r].z), fmaf(factor[r], b.w, sum[r].w)};
  }
}

// mixed = coefficients · column_basis, for the rows and columns of a piece.
template <bool kAligned>
__device__ void mix_columns(const BasisPair& basis, const Strip& strip, const Piece& piece,
                            const Scratch& scratch) {
  const int across = (piece.columns + kTileSide - 1) / kTileSide;
  const int tiles = (piece.rows + kTileSide - 1) / kTileSide * across;
  for (int i = threadIdx.x; i < piece.units * tiles; i += blockDim.x) {
    const int unit = i / tiles, row = i % tiles / across * kTileSide;
    const int column = i % across * kTileSide;
    const float* coefficients = scratch.coefficients_of(unit) + row;
    float4 sum[kTileSide] = {};
    for (int j = 0; j < basis.w; ++j) {
      add_product(
          sum, *reinterpret_cast<const float4*>(coefficients + j * strip.rows),
          load_vector<kAligned>(basis.columns + j * basis.width, piece.left + column, basis.width));
    }
    float* mixed = scratch.mixed_of(unit) + column;
#pragma unroll
    for (int r = 0; r < kTileSide; ++r) {
      if (row + r >= piece.rows) break;
      *reinterpret_cast<float4*>(mixed + (piece.top + row + r) * strip.columns) = sum[r];
    }
  }
}

// Passes the components row_basisᵀ · mixed of the columns of a piece to emit(image, index in the
// image, end of that row of the image, four components).
template <bool kAligned, typename Emit>
__device__ void mix_rows(const BasisPair& basis, const Strip& strip, const Piece& piece,
                         const Scratch& scratch, const Emit& emit) {
  const int across = (piece.columns + kTileSide - 1) / kTileSide;
  const int tiles = static_cast<int>((basis.height + kTileSide - 1) / kTileSide) * across;
  for (int i = threadIdx.x; i < piece.units * tiles; i += blockDim.x) {
    const int unit = i / tiles, row = i % tiles / across * kTileSide;
    const int column = i % across * kTileSide;
    const float* mixed = scratch.mixed_of(unit) + column;
    float4 sum[kTileSide] = {};
    for (int k = 0; k < basis.h; ++k) {
      add_product(sum, load_vector<kAligned>(basis.rows + k * basis.height, row, basis.height),
                  *reinterpret_cast<const float4*>(mixed + k * strip.columns));
    }
    const Quotient image = image_of(strip, piece, unit);
#pragma unroll
    for (int r = 0; r < kTileSide; ++r) {
      if (row + r >= basis.height) break;
      const std::int64_t begin = (image.remainder * basis.height + row + r) * basis.width;
      emit(image.quotient, begin + piece.left + column, begin + basis.width, sum[r]);
    }
  }
}

// Passes every component of `images` images, row_basisᵀ · coefficients · column_basis for each
// channel, to emit as above. All threads of a block must call it.
template <bool kAligned, typename Coefficients, typename Emit>
__device__ void transform(const BasisPair& basis, const Strip& strip, std::int64_t images,
                          const Coefficients& coefficients, const Emit& emit) {
  extern __shared__ float4 shared[];
  const Scratch scratch(basis, strip, reinterpret_cast<float*>(shared));
  const std::int64_t all = images * basis.channels, stride = strip.units;
  for (std::int64_t unit = blockIdx.x * stride; unit < all; unit += gridDim.x * stride) {
    const int units = static_cast<int>(min(stride, all - unit));
    for (std::int64_t left = 0; left < basis.width; left += strip.columns) {
      const auto most = static_cast<std::int64_t>(strip.columns);
      const int columns = static_cast<int>(min(most, basis.width - left));
      Piece piece{unit, units, 0, 0, left, columns};
      for (; piece.top < basis.h; piece.top += strip.rows) {
        piece.rows = min(strip.rows, static_cast<int>(basis.h) - piece.top);
        __syncthreads();  // the last piece may still be read
        coefficients.load(basis, strip, piece, scratch);
        fill_last_tile(basis, strip, piece, scratch);
        __syncthreads();
        mix_columns<kAligned>(basis, strip, piece, scratch);
      }
      __syncthreads();
      mix_rows<kAligned>(basis, strip, piece, scratch, emit);
    }
  }
}

template <Noise kNoise, typename T, bool kAligned>
__global__ void basis_queries_kernel(DirectionSource source, Divisor probes, BasisPair basis,
                                     Strip strip, ProbePoints at, T* out, float lower,
                                     float upper) {
  transform<kAligned>(basis, strip, source.points * source.probes, Drawn<kNoise>{source, probes},
                      [&](std::int64_t row, std::int64_t i, std::int64_t end, const float4& u) {
                        write_probe<kAligned>(at, probes.divide(row).quotient, row, at.factors[row],
                                              u, i, end, out, lower, upper);
                      });
}

template <bool kAligned>
__global__ void to_pixels_kernel(BasisPair basis, Strip strip, const float* coefficients,
                                 std::int64_t images, float* pixels) {
  const std::int64_t size = basis.channels * basis.height * basis.width;
  transform<kAligned>(basis, strip, images, Stored{coefficients},
                      [&](std::int64_t image, std::int64_t i, std::int64_t end, const float4& u) {
                        store_vector<kAligned, Reuse::kSoon>(pixels + image * size, i, end, u);
                      });
}

unsigned blocks_of(std::int64_t images, const BasisPair& basis, const Strip& strip) {
  return grid_x(divide_up(images * basis.channels, strip.units));
}

std::size_t bytes_of(const BasisPair& basis, const Strip& strip) {
  return static_cast<std::size_t>(strip.units) * strip.floats(basis) * sizeof(float);
}

// Rows of the bases, and therefore of images, begin at multiples of the vector size.
bool is_aligned(const BasisPair& basis) {
  return vectors_are_aligned(basis.rows, basis.height) &&
         vectors_are_aligned(basis.columns, basis.width);
}

}  // namespace

bool basis_fits(const BasisPair& basis) {
  // Within a channel, kernels and strip_of use 32-bit indices; check first that they cannot
  // overflow.
  return std::max(basis.h, basis.w) <= kSharedFloats &&
         std::max(basis.height, basis.width) <= kMaxSide && strip_of(basis).columns > 0;
}

cudaError_t launch_probe_queries(const DirectionSource& source, const BasisPair& basis,
                                 const ProbePoints& at, const QuerySink& sink,
                                 cudaStream_t stream) {
  const std::int64_t rows = source.points * source.probes;
  if (rows == 0) return cudaSuccess;
  const Strip strip = strip_of(basis);
  const bool aligned = is_aligned(basis) && vectors_are_aligned(at.origins, at.size) &&
                       vectors_are_aligned(at.offsets, at.size);
  return dispatch_noise(source.noise, [&](auto noise) {
    return dispatch_rows(sink, at.size, aligned, [&](auto type, auto rows_aligned) {
      using T = typename decltype(type)::type;
      basis_queries_kernel<decltype(noise)::value, T, decltype(rows_aligned)::value>
          <<<blocks_of(rows, basis, strip), kThreads, bytes_of(basis, strip), stream>>>(
              source, Divisor(source.probes), basis, strip, at, static_cast<T*>(sink.data),
              sink.lower, sink.upper);
      return cudaGetLastError();
    });
  });
}

cudaError_t launch_to_pixels(const BasisPair& basis, const float* coefficients, std::int64_t images,
                             float* pixels, cudaStream_t stream) {
  if (images == 0) return cudaSuccess;
  const Strip strip = strip_of(basis);
  const bool aligned = is_aligned(basis) && vectors_are_aligned(pixels, basis.width);
  return dispatch_aligned(aligned, [&](auto rows_aligned) {
    to_pixels_kernel<decltype(rows_aligned)::value>
        <<<blocks_of(images, basis, strip), kThreads, bytes_of(basis, strip), stream>>>(
            basis, strip, coefficients, images, pixels);
    return cudaGetLastError();
  });
}

}  // namespace db3kd::cuda
