#pragma once

#include "../tensor.h"

namespace db3kd::cpu {

// A float32 matrix of any values for the result of an op. The memory of large ones is used again
// for the next result, up to a gibibyte of it: the first touch of new pages takes several times as
// long as building queries does.
Tensor make_result(std::int64_t rows, std::int64_t size);

}  // namespace db3kd::cpu
