#pragma once

#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>

#define C10_CUDA_CHECK(call)                                                  \
  do {                                                                        \
    if ((call) != cudaSuccess) {                                              \
      TORCH_CHECK_WITH(Error, false, "emulation: ", emulation::take_error()); \
    }                                                                         \
  } while (false)
