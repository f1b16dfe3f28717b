#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../checks.h"
#include "../contiguous.h"
#include "kernels.h"

namespace db3kd::cuda {
namespace {

at::Tensor soft_labels(const at::Tensor& distances, const at::Tensor& predicted,
                       std::string_view normalisation, double scale, double temperature) {
  const SoftLabelSettings settings =
      check_soft_labels(distances, predicted, normalisation, scale, temperature);
  const c10::cuda::CUDAGuard guard(distances.device());
  const std::int64_t classes = distances.size(1);
  at::Tensor labels = at::empty_like(distances, at::MemoryFormat::Contiguous);
  const at::Tensor first_bad = at::full({}, distances.numel(), predicted.options());

  const Contiguous<float> distance_data(distances);
  const Contiguous<std::int64_t> predicted_data(predicted);
  C10_CUDA_CHECK(launch_soft_labels(
      distance_data, predicted_data, distances.size(0), classes, settings,
      labels.mutable_data_ptr<float>(),
      reinterpret_cast<unsigned long long*>(first_bad.mutable_data_ptr<std::int64_t>()),
      c10::cuda::getCurrentCUDAStream()));

  const auto bad = first_bad.item<std::int64_t>();  // waits for the device
  if (bad < distances.numel()) {
    const std::int64_t sample = bad / classes, target = bad % classes;
    fail_distance(sample, target, distances.select(0, sample).select(0, target).item<float>());
  }
  return labels;
}

}  // namespace

TORCH_LIBRARY_IMPL(db3kd, CUDA, library) { library.impl("soft_labels", &soft_labels); }

}  // namespace db3kd::cuda
