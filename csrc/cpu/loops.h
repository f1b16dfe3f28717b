#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>

namespace db3kd::cpu {

// The minimum number of rows of one task of a parallel loop, so that its work outweighs the cost of
// handing it to a thread.
inline std::int64_t rows_per_task(std::int64_t elements_per_row) {
  constexpr std::int64_t kElementsPerTask = 32768;
  return std::max<std::int64_t>(kElementsPerTask / std::max<std::int64_t>(elements_per_row, 1), 1);
}

// Returns values[i] after checking that it lies in [0, limit).
inline std::int64_t checked_index(const std::int64_t* values, std::int64_t i, std::int64_t limit,
                                  const char* name) {
  const std::int64_t value = values[i];
  TORCH_CHECK_INDEX(value >= 0 && value < limit, name, ": expected indices from 0 to ", limit - 1,
                    ", got ", value, " at ", i);
  return value;
}

}  // namespace db3kd::cpu
