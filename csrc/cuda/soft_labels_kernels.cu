#include <cassert>

#include "device.cuh"

namespace db3kd::cuda {
namespace {

// kLanes threads per row; threadIdx.y indexes rows. Each thread keeps the weight of its first
// class, so with up to kLanes classes every exponential is computed once.
template <int kLanes>
__global__ void soft_labels_kernel(const float* distances, const std::int64_t* predicted,
                                   std::int64_t rows, std::int64_t classes,
                                   SoftLabelSettings settings, float* labels,
                                   unsigned long long* first_bad) {
  constexpr int kRows = kThreads / kLanes;
  const int lane = threadIdx.x;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kRows;
  const std::int64_t whole = (rows + kRows - 1) / kRows * kRows;  // all of a warp must sum
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kRows + threadIdx.y; i < whole;
       i += stride) {
    const std::int64_t row = i < rows ? i : rows - 1;  // a row too many repeats the last
    const std::int64_t predicted_data = predicted[row];
    assert(predicted_data >= 0 && predicted_data < classes);
    const float* d = distances + row * classes;

    double largest = 0.0;  // the predicted logit, see core/soft_label.h
    for (std::int64_t m = lane; m < classes; m += kLanes) {
      if (m == predicted_data) continue;
      if (!is_distance(d[m]))
        atomicMin(first_bad, static_cast<unsigned long long>(row * classes + m));
      if (settings.normalisation == Normalisation::kInverse) largest += logit(d[m], settings);
    }
    largest = warp_sum<kLanes>(largest);

    const auto weight = [&](std::int64_t m) {
      return m == predicted_data ? 1.0 : relative_weight(d[m], largest, settings);
    };
    const double first = lane < classes ? weight(lane) : 0.0;
    double total = first;
    for (std::int64_t m = lane + kLanes; m < classes; m += kLanes) total += weight(m);
    total = warp_sum<kLanes>(total);
    if (i >= rows) continue;  // the last row has threads of its predicted
    for (std::int64_t m = lane; m < classes; m += kLanes) {
      labels[row * classes + m] = static_cast<float>((m == lane ? first : weight(m)) / total);
    }
  }
}

// Calls function with the number of threads that the classes of a row keep busy, as a compile-time
// constant.
template <typename Function>
cudaError_t dispatch_lanes(std::int64_t classes, const Function& function) {
  if (classes <= 4) return function(std::integral_constant<int, 4>{});
  if (classes <= 16) return function(std::integral_constant<int, 16>{});
  return function(std::integral_constant<int, kWarp>{});
}

}  // namespace

cudaError_t launch_soft_labels(const float* distances, const std::int64_t* predicted,
                               std::int64_t rows, std::int64_t classes,
                               const SoftLabelSettings& settings, float* labels,
                               unsigned long long* first_bad, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return dispatch_lanes(classes, [&](auto lanes) {
    constexpr int kLanes = decltype(lanes)::value;
    const dim3 threads(kLanes, kThreads / kLanes);
    soft_labels_kernel<kLanes><<<grid_x(divide_up(rows, threads.y)), threads, 0, stream>>>(
        distances, predicted, rows, classes, settings, labels, first_bad);
    return cudaGetLastError();
  });
}

}  // namespace db3kd::cuda
