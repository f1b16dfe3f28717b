#include "machine.h"

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "memory.h"

namespace emulation {

Place place;

namespace {

constexpr std::size_t kStackBytes = 64 * 1024;

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Fibre {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  State state = State::kDone;
  Index index;
  std::uint32_t block_barriers = 0;
};

// The state that the lanes of a warp share. There are two sets of values, because a slow lane may
// still read one of them when the others have reached the next shuffle.
struct Warp {
  std::uint32_t arrived = 0, mask = 0;
  bool shuffles = false;
  unsigned generation = 0;
  std::uint32_t barriers = 0;
  std::uint64_t value[2][kWarpSize];
};

ucontext_t scheduler;
std::array<Fibre, kMaxThreads> fibres;
std::array<Warp, kMaxThreads / kWarpSize> warps;
std::vector<int> ready;
int running = -1, alive = 0, waiting = 0;
std::uint32_t launches = 0;
Call body;
std::string error;
std::mt19937_64 order;

Fibre& self() { return fibres[running]; }
Warp& own_warp() { return warps[running / kWarpSize]; }

void make_ready(int number) {
  fibres[number].state = State::kReady;
  ready.push_back(number);
}

void pause() {
  const int number = running;
  swapcontext(&fibres[number].context, &scheduler);
}

void release_block() {
  if (alive == 0 || waiting < alive) return;
  for (int number = 0; number < kMaxThreads; ++number) {
    if (fibres[number].state != State::kAtBlockBarrier) continue;
    ++fibres[number].block_barriers;
    make_ready(number);
  }
  for (Warp& warp : warps) ++warp.barriers;
  waiting = 0;
}

void entry() {
  body.function(body.closure);
  self().state = State::kDone;
  --alive;
  setcontext(&scheduler);
}

// Waits until all lanes of the mask are here. Returns the generation of the warp's values.
unsigned meet(std::uint32_t mask, bool shuffles, std::uint64_t value) {
  Warp& warp = own_warp();
  const std::uint32_t bit = 1u << lane();
  if ((mask & bit) == 0) fail("a thread is not in the mask of its own warp operation");
  if (warp.arrived != 0 && (warp.mask != mask || warp.shuffles != shuffles)) {
    fail("threads of a warp wait for different operations or masks");
  }
  warp.mask = mask;
  warp.shuffles = shuffles;
  warp.arrived |= bit;
  const unsigned generation = warp.generation;
  warp.value[generation % 2][lane()] = value;
  if (warp.arrived == mask) {
    warp.arrived = 0;
    ++warp.generation;
    if (!shuffles) ++warp.barriers;
    const int first = running / kWarpSize * kWarpSize;
    for (int other = 0; other < kWarpSize; ++other) {
      if (fibres[first + other].state == State::kAtWarpBarrier && (mask >> other & 1u) != 0) {
        make_ready(first + other);
      }
    }
    make_ready(running);
  } else {
    self().state = State::kAtWarpBarrier;
  }
  pause();
  return generation;
}

void resume(int number) {
  running = number;
  Fibre& fibre = fibres[number];
  place.thread = fibre.index;
  actor.thread = static_cast<std::uint32_t>(number);
  actor.block_barriers = fibre.block_barriers;
  actor.warp_barriers = warps[number / kWarpSize].barriers;
  actor.stack = fibre.stack.get();
  actor.stack_end = actor.stack + kStackBytes;
  swapcontext(&scheduler, &fibre.context);
  running = -1;
}

void run_block(Index size, std::size_t shared_bytes) {
  const int count = static_cast<int>(size.x * size.y * size.z);
  new_shared_memory(order(), shared_bytes);
  warps.fill(Warp{});
  ready.clear();
  alive = count;
  waiting = 0;
  for (int number = 0; number < count; ++number) {
    Fibre& fibre = fibres[number];
    const unsigned n = static_cast<unsigned>(number);
    fibre.index = {n % size.x, n / size.x % size.y, n / size.x / size.y};
    fibre.block_barriers = 0;
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.get();
    fibre.context.uc_stack.ss_size = kStackBytes;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, entry, 0);
    make_ready(number);
  }
  while (alive > 0 && error.empty()) {
    if (ready.empty()) {
      error = "some threads of a block wait at a barrier that others never reach";
      break;
    }
    const std::size_t chosen = order() % ready.size();
    const int number = ready[chosen];
    ready[chosen] = ready.back();
    ready.pop_back();
    resume(number);
    release_block();
  }
  for (Fibre& fibre : fibres) fibre.state = State::kDone;
}

}  // namespace

void fail(const std::string& message) {
  if (running < 0) {
    std::fprintf(stderr, "emulation: %s\n", message.c_str());
    std::abort();
  }
  const auto text = [](const Index& at) {
    return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) +
           ")";
  };
  error = message + ", by thread " + text(place.thread) + " of block " + text(place.block);
  setcontext(&scheduler);
  std::abort();
}

void fail_assertion(const char* condition) { fail(std::string("device assertion: ") + condition); }

int lane() { return running % kWarpSize; }

void synchronise_block() {
  self().state = State::kAtBlockBarrier;
  ++waiting;
  pause();
}

void synchronise_warp(std::uint32_t mask) {
  meet(mask, false, 0);
  actor.warp_barriers = own_warp().barriers;
}

std::uint64_t shuffle(std::uint32_t mask, std::uint64_t value, int source) {
  if (source < 0 || source >= kWarpSize || (mask >> source & 1u) == 0) {
    fail("a shuffle reads from lane " + std::to_string(source) + ", which takes no part in it");
  }
  const unsigned generation = meet(mask, true, value);
  return own_warp().value[generation % 2][source];
}

void run(Index grid, Index block, std::size_t shared_bytes, Call kernel) {
  if (!error.empty()) return;  // as on a device, until somebody asks
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  const bool fits = threads >= 1 && threads <= kMaxThreads && block.z <= 64 && grid.x >= 1 &&
                    grid.x < 2147483648u && grid.y >= 1 && grid.y < 65536u && grid.z >= 1 &&
                    grid.z < 65536u && shared_bytes <= kSharedBytes;
  if (!fits) {
    error = "a launch asks for more, or for fewer, blocks, threads or bytes than a device has";
    return;
  }
  body = kernel;
  place.block_size = block;
  place.grid_size = grid;
  actor.launch = ++launches;
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  std::vector<std::uint32_t> numbers(blocks);
  for (std::uint64_t i = 0; i < blocks; ++i) numbers[i] = static_cast<std::uint32_t>(i);
  std::shuffle(numbers.begin(), numbers.end(), order);
  for (const std::uint32_t number : numbers) {
    place.block = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
    actor.block = number;
    run_block(block, shared_bytes);
    if (!error.empty()) break;
  }
  actor.launch = 0;
}

bool has_error() { return !error.empty(); }

std::string take_error() {
  const std::string taken = error;
  error.clear();
  return taken;
}

extern "C" __attribute__((visibility("default"))) void emulation_seed(std::uint64_t seed) {
  order.seed(seed);
}

}  // namespace emulation
