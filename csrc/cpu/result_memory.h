#pragma once

#include <cstddef>

#include "../tensor.h"

namespace db3kd::cpu {

// A float32 matrix of any values for the result of an op. The memory of large ones is used again
// for the next result: the first touch of new pages takes several times as long as building queries
// does.
Tensor make_result(std::int64_t rows, std::int64_t size);

// Sets how many bytes of memory that no tensor uses are kept, a gibibyte by default, and returns
// how many were kept until now. With 0, torch allocates every result.
std::size_t keep_result_memory(std::size_t bytes);

}  // namespace db3kd::cpu
