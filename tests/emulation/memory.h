#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

// The memory of the emulated GPU. Kernels are compiled with the instrumentation of the thread
// sanitizer, whose calls end up here: each access of a kernel must lie within one allocation of the
// device or one variable in shared memory; a shared variable must have been written before it is
// read; and of two threads that use the same memory, one of them writing, a barrier must stand
// between them.

namespace emulation {

// The running thread, for whoever asks which accesses are ordered.
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

// Fails, if the running kernel must not do this.
void check_access(const void* address, std::size_t size, Access access);

// Forgets what is in shared memory, and gives it random contents: a new block begins.
void new_shared_memory(std::uint64_t seed, std::size_t dynamic_bytes);

constexpr std::size_t kSharedBytes = 48 * 1024;

// The variable of this number in shared memory, made when a block first asks for it.
void* shared_variable(int number, std::size_t size);
int new_shared_number();
void* dynamic_shared_memory();

// `Site` is a type of its own for each variable and each instance of its template, as in CUDA.
template <typename Variable, typename Site>
Variable& shared(Site) {
  static const int number = new_shared_number();
  return *static_cast<Variable*>(shared_variable(number, sizeof(Variable)));
}

// Makes torch's CPU memory that of the device: from now on every allocation is registered, and
// filled with NaN.
void watch_allocations();

// The allocations and shared variables are told apart by this in messages.
std::string describe(const void* address);

}  // namespace emulation
