#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

// A GPU emulated on the CPU: every thread of a block is a fibre, and the next fibre to run is drawn
// at random at each barrier or shuffle. Memory accesses are checked; see memory.h.

namespace emulation {

struct Index {
  unsigned x = 1, y = 1, z = 1;
  constexpr Index(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// The position of the running thread.
struct Place {
  Index thread, block, block_size, grid_size;
};
extern Place place;

constexpr int kWarpSize = 32;
constexpr int kMaxThreads = 1024;  // of a block

// Ends the running kernel with an error, which the launcher returns. Outside a kernel it ends the
// process.
[[noreturn]] void fail(const std::string& message);
[[noreturn]] void fail_assertion(const char* condition);

// A kernel call with its arguments, which are on the host's stack.
struct Call {
  void (*function)(const void* closure);
  const void* closure;
};

void run(Index grid, Index block, std::size_t shared_bytes, Call kernel);

// Returns and clears the error of the last launch; "" if there is none.
std::string take_error();
bool has_error();

void synchronise_block();
void synchronise_warp(std::uint32_t mask);

// The value of lane `source`; all lanes of the mask must call it.
std::uint64_t shuffle(std::uint32_t mask, std::uint64_t value, int source);

int lane();

// One launch; operator<< receives the kernel call.
struct Launch {
  Index grid, block;
  std::size_t shared_bytes = 0;
  void* stream = nullptr;

  template <typename Kernel>
  void operator<<(const Kernel& kernel) const {
    run(grid, block, shared_bytes,
        {[](const void* closure) { (*static_cast<const Kernel*>(closure))(); }, &kernel});
  }
};

}  // namespace emulation
