#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

// The memory of the emulated GPU. Kernels are compiled with the instrumentation of the thread
// sanitizer, whose calls arrive here. Each access of a kernel must lie within one allocation of the
// device or one shared variable; a shared variable must be written before it is read; and a barrier
// must separate accesses of two threads to the same memory if one of them writes.

namespace emulation {

// The running thread, for deciding which accesses are ordered.
struct Actor {
  std::uint32_t launch = 0;  // 0: no kernel runs
  std::uint32_t block = 0;
  std::uint32_t thread = 0;          // within the block
  std::uint32_t block_barriers = 0;  // that it has passed
  std::uint32_t warp_barriers = 0;   // that it has passed, those of the block among them
  const char* stack = nullptr;       // its own, whose use is free
  const char* stack_end = nullptr;
};
extern Actor actor;

enum class Access { kRead, kWrite, kAtomic };

// Fails if the running kernel must not do this.
void check_access(const void* address, std::size_t size, Access access);

// Clears the shared variables and fills shared memory with random contents for a new block.
void new_shared_memory(std::uint64_t seed, std::size_t dynamic_bytes);

constexpr std::size_t kSharedBytes = 48 * 1024;

// The shared variable with this number, created when a block first uses it.
void* shared_variable(int number, std::size_t size);
int new_shared_number();
void* dynamic_shared_memory();

// `Site` is a distinct type for each variable and each instance of its template, as in CUDA.
template <typename Variable, typename Site>
Variable& shared(Site) {
  static const int number = new_shared_number();
  return *static_cast<Variable*>(shared_variable(number, sizeof(Variable)));
}

// Turns torch's CPU memory into device memory: from now on every allocation is registered and
// filled with NaN.
void watch_allocations();

// Names allocations and shared variables in messages.
std::string describe(const void* address);

}  // namespace emulation
