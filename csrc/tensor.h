#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

// Tensors of torch's stable ABI: everything here works with the torch that is loaded, whichever one
// the extension was built against.

namespace db3kd {

using torch::headeronly::ScalarType;
using torch::stable::Device;
using torch::stable::Tensor;
using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

// How errors name sizes, dtypes and devices: as Python does.
std::string describe(Sizes sizes);
std::string describe(ScalarType dtype);
std::string describe(const Device& device);

// A contiguous tensor of any values; raises OutOfMemoryError.
Tensor make_empty(const std::vector<std::int64_t>& sizes, ScalarType dtype, const Device& device);

// The tensor itself if it is contiguous, else a contiguous copy.
Tensor as_contiguous(const Tensor& tensor);

// The tensor itself if it has this dtype, else a converted copy.
Tensor as_dtype(const Tensor& tensor, ScalarType dtype);

// The values of an input tensor in row-major order, valid while this object lives.
template <typename T>
class Contiguous {
 public:
  explicit Contiguous(const Tensor& tensor)
      : tensor_(as_contiguous(tensor)), data_(tensor_.const_data_ptr<T>()) {}

  operator const T*() const { return data_; }

 private:
  Tensor tensor_;
  const T* data_;
};

}  // namespace db3kd
