#pragma once

#include "../tensor.h"
#include "kernels.h"

// Shared by the CUDA bindings.

namespace db3kd::cuda {

inline QuerySink sink_of(const Tensor& queries, double lower, double upper) {
  const ScalarType dtype = queries.scalar_type();
  const QueryType type = dtype == ScalarType::Half       ? QueryType::kFloat16
                         : dtype == ScalarType::BFloat16 ? QueryType::kBFloat16
                                                         : QueryType::kFloat32;
  return {queries.mutable_data_ptr(), type, static_cast<float>(lower), static_cast<float>(upper)};
}

}  // namespace db3kd::cuda
