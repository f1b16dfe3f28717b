#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>  // with 2.13, other headers include it

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

// Numbers that a kernel writes into pinned memory of the host, which the device reaches directly.
// So the host can wait for them alone, and no copy is queued.
class HostNumbers {
 public:
  HostNumbers(std::int64_t count, cudaStream_t stream)
      : numbers_(torch::stable::empty({&count, 1}, ScalarType::Long, std::nullopt,
                                      Device(torch::headeronly::DeviceType::CPU), true)),
        stream_(stream) {
    STD_CUDA_CHECK(cudaHostGetDevicePointer(&on_device_, numbers_.mutable_data_ptr(), 0));
    STD_CUDA_CHECK(cudaEventCreateWithFlags(&written_, cudaEventDisableTiming));
  }
  HostNumbers(const HostNumbers&) = delete;
  HostNumbers& operator=(const HostNumbers&) = delete;
  // The memory must not be used again while a kernel may still write there.
  ~HostNumbers() {
    if (is_pending_) cudaEventSynchronize(written_);
    cudaEventDestroy(written_);
  }

  std::int64_t* on_device() const { return static_cast<std::int64_t*>(on_device_); }

  // What is queued so far writes them.
  void are_written() {
    STD_CUDA_CHECK(cudaEventRecord(written_, stream_));
    is_pending_ = true;
  }

  const std::int64_t* wait() {
    STD_CUDA_CHECK(cudaEventSynchronize(written_));
    is_pending_ = false;
    return numbers_.const_data_ptr<std::int64_t>();
  }

 private:
  Tensor numbers_;
  cudaStream_t stream_;
  void* on_device_ = nullptr;
  cudaEvent_t written_ = nullptr;
  bool is_pending_ = false;
};

// Waits for the device.
inline Tensor to_host(const Tensor& tensor) {
  return torch::stable::to(tensor, Device(torch::headeronly::DeviceType::CPU));
}

}  // namespace db3kd::cuda
