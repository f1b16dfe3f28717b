#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <limits>
#include <mutex>

#include "../errors.h"

namespace db3kd::cpu {

// The minimum number of rows of one task of a parallel loop, so that its work outweighs the cost of
// handing it to a thread.
inline std::int64_t rows_per_task(std::int64_t elements_per_row) {
  constexpr std::int64_t kElementsPerTask = 32768;
  return std::max<std::int64_t>(kElementsPerTask / std::max<std::int64_t>(elements_per_row, 1), 1);
}

// Runs body(begin, end) on torch's threads over the parts of [0, rows). No exception may cross the
// stable ABI: each part catches its own, and the one of the first rows is raised at the end, so
// that an error does not depend on the number of threads.
template <typename Body>
void parallel_rows(std::int64_t rows, std::int64_t grain, const Body& body) {
  std::mutex mutex;
  std::exception_ptr failure;
  std::int64_t failed_at = std::numeric_limits<std::int64_t>::max();
  torch::stable::parallel_for(0, rows, grain, [&](std::int64_t begin, std::int64_t end) {
    try {
      body(begin, end);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (begin < failed_at) failure = std::current_exception(), failed_at = begin;
    }
  });
  if (failure) std::rethrow_exception(failure);
}

// Returns values[i] after checking that it lies in [0, limit).
inline std::int64_t checked_index(const std::int64_t* values, std::int64_t i, std::int64_t limit,
                                  const char* name) {
  const std::int64_t value = values[i];
  DB3KD_CHECK(IndexError, value >= 0 && value < limit, name, ": expected indices from 0 to ",
              limit - 1, ", got ", value, " at ", i);
  return value;
}

}  // namespace db3kd::cpu
