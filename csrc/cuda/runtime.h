#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "../tensor.h"

// What the bindings need of torch's CUDA side. `make emulate` puts another file in this one's
// place.

namespace db3kd::cuda {

// Makes the device of a tensor the current one while this object lives, and has its current stream.
class Launching {
 public:
  explicit Launching(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

inline void check_launch(cudaError_t error) { STD_CUDA_CHECK(error); }

// Waits for the device.
inline Tensor to_host(const Tensor& tensor) {
  return torch::stable::to(tensor, Device(torch::headeronly::DeviceType::CPU));
}

}  // namespace db3kd::cuda
