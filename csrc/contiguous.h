#pragma once

#include <ATen/core/Tensor.h>

namespace db3kd {

// The values of an input tensor in row-major order, valid while this object lives.
template <typename T>
class Contiguous {
 public:
  explicit Contiguous(const at::Tensor& tensor)
      : tensor_(tensor.contiguous()), data_(tensor_.const_data_ptr<T>()) {}

  operator const T*() const { return data_; }

 private:
  at::Tensor tensor_;
  const T* data_;
};

}  // namespace db3kd
