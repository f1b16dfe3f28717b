#include <torch/csrc/stable/library.h>

#include "../checks.h"
#include "../errors.h"
#include "../tensor.h"
#include "kernels.h"
#include "runtime.h"

namespace db3kd::cuda {
namespace {

Tensor soft_labels(const Tensor& distances, const Tensor& predicted,
                   const std::string& normalisation, double scale, double temperature) {
  const SoftLabelSettings settings =
      check_soft_labels(distances, predicted, normalisation, scale, temperature);
  const Launching on(distances);
  const std::int64_t classes = distances.size(1);
  Tensor labels = make_empty({distances.size(0), classes}, ScalarType::Float, distances.device());
  Tensor first_bad = make_empty({1}, ScalarType::Long, predicted.device());
  // Beyond every index of a distance, and exact as a double.
  torch::stable::fill_(first_bad, static_cast<double>(std::int64_t{1} << 62));

  const Contiguous<float> distance_data(distances);
  const Contiguous<std::int64_t> predicted_data(predicted);
  check_launch(launch_soft_labels(
      distance_data, predicted_data, distances.size(0), classes, settings,
      labels.mutable_data_ptr<float>(),
      reinterpret_cast<unsigned long long*>(first_bad.mutable_data_ptr<std::int64_t>()),
      on.stream()));

  const std::int64_t bad =
      *to_host(first_bad).const_data_ptr<std::int64_t>();  // waits for the device
  if (bad < distances.numel()) {
    const std::int64_t sample = bad / classes, target = bad % classes;
    const Tensor row = torch::stable::select(distances, 0, sample);
    const Tensor value = to_host(torch::stable::select(row, 0, target));
    fail_distance(sample, target, *value.const_data_ptr<float>());
  }
  return labels;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(db3kd, CUDA, library) {
  library.impl("soft_labels", TORCH_BOX(soft_labels));
}

}  // namespace db3kd::cuda
