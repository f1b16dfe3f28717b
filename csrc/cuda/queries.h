#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels.h"

// Shared by the CUDA bindings.

namespace db3kd::cuda {

inline QuerySink sink_of(at::Tensor& queries, double lower, double upper) {
  const at::ScalarType dtype = queries.scalar_type();
  const QueryType type = dtype == at::kHalf       ? QueryType::kFloat16
                         : dtype == at::kBFloat16 ? QueryType::kBFloat16
                                                  : QueryType::kFloat32;
  return {queries.mutable_data_ptr(), type, static_cast<float>(lower), static_cast<float>(upper)};
}

}  // namespace db3kd::cuda
