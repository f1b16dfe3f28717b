#include <cassert>

#include "device.cuh"

namespace db3kd::cuda {
namespace {

__device__ double warp_sum(double value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

// One warp a row; threadIdx.y counts rows.
__global__ void soft_labels_kernel(const float* distances, const std::int64_t* own,
                                   std::int64_t rows, std::int64_t classes,
                                   SoftLabelSettings settings, float* labels,
                                   unsigned long long* first_bad) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kWarps;
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.y; row < rows;
       row += stride) {
    const std::int64_t own_class = own[row];
    assert(own_class >= 0 && own_class < classes);
    const float* d = distances + row * classes;

    double largest = 0.0;  // the own logit, see core/soft_label.h
    for (std::int64_t m = threadIdx.x; m < classes; m += kWarp) {
      if (m == own_class) continue;
      if (!is_distance(d[m]))
        atomicMin(first_bad, static_cast<unsigned long long>(row * classes + m));
      if (settings.normalisation == Normalisation::kInverse) largest += logit(d[m], settings);
    }
    largest = warp_sum(largest);

    double total = 0.0;
    for (std::int64_t m = threadIdx.x; m < classes; m += kWarp) {
      total += m == own_class ? 1.0 : relative_weight(d[m], largest, settings);
    }
    total = warp_sum(total);
    for (std::int64_t m = threadIdx.x; m < classes; m += kWarp) {
      const double weight = m == own_class ? 1.0 : relative_weight(d[m], largest, settings);
      labels[row * classes + m] = static_cast<float>(weight / total);
    }
  }
}

}  // namespace

cudaError_t launch_soft_labels(const float* distances, const std::int64_t* own, std::int64_t rows,
                               std::int64_t classes, const SoftLabelSettings& settings,
                               float* labels, unsigned long long* first_bad, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const dim3 threads(kWarp, kWarps);
  soft_labels_kernel<<<grid_x(divide_up(rows, kWarps)), threads, 0, stream>>>(
      distances, own, rows, classes, settings, labels, first_bad);
  return cudaGetLastError();
}

}  // namespace db3kd::cuda
