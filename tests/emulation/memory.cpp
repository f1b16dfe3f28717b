#include "memory.h"

#include <c10/core/Allocator.h>
#include <link.h>
#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "machine.h"

namespace emulation {

Actor actor;

namespace {

constexpr std::size_t kWord = 4;       // bytes that one cell watches
constexpr std::size_t kRedZone = 256;  // bytes between shared variables
constexpr std::size_t kMargin = 4096;  // bytes before and behind each allocation
// Allocations of at least this size take memory only when written, and no allocation may exceed it.
constexpr std::size_t kLarge = std::size_t{1} << 26, kLargest = std::size_t{1} << 35;
constexpr std::uint32_t kMany = 0xffffffffu;

// The last accesses to a word in the running launch; kMany if several threads accessed it since the
// last barrier.
struct Use {
  std::uint32_t block = 0, warp = 0, thread = 0, block_barriers = 0, warp_barriers = 0;
  std::uint8_t bytes = 0;  // a bit for each, 0 for nobody
  bool atomic = false;
};

struct Cell {
  std::uint32_t launch = 0;
  Use write, read;
};

// Whether all these accesses are ordered before any access of the running thread.
bool is_before(const Use& use, std::uint8_t bytes) {
  if ((use.bytes & bytes) == 0) return true;
  if (use.block != actor.block) return false;
  if (use.thread == actor.thread || use.block_barriers < actor.block_barriers) return true;
  return use.warp == actor.thread / kWarpSize && use.warp_barriers < actor.warp_barriers;
}

std::uint32_t shared_by(std::uint32_t one, std::uint32_t other) {
  return one == other ? one : kMany;
}

[[noreturn]] void fail_race(const char* what, const Use& other, const void* address) {
  const std::string who =
      other.thread == kMany ? "several threads" : "thread " + std::to_string(other.thread);
  const std::string where = other.block == actor.block ? "the same block" : "another block";
  fail(std::string("race: ") + what + " " + describe(address) + ", which " + who + " of " + where +
       " used, without a barrier between");
}

// Records an access to one word after checking earlier accesses.
void note(Cell& cell, std::uint8_t bytes, Access access, const void* address) {
  if (cell.launch != actor.launch) cell = {actor.launch, {}, {}};
  const bool atomic = access == Access::kAtomic;
  if (!(atomic && cell.write.atomic) && !is_before(cell.write, bytes)) {
    fail_race(access == Access::kRead ? "a read of" : "a write to", cell.write, address);
  }
  const std::uint32_t warp = actor.thread / kWarpSize;
  Use now{actor.block,         warp,  actor.thread, actor.block_barriers,
          actor.warp_barriers, bytes, atomic};
  if (access != Access::kRead) {
    if (!is_before(cell.read, bytes)) fail_race("a write to", cell.read, address);
    cell.write = now;
    return;
  }
  if (!is_before(cell.read, 0xff)) {
    now.block = shared_by(cell.read.block, now.block);
    now.warp = shared_by(cell.read.warp, now.warp);
    now.thread = shared_by(cell.read.thread, now.thread);
    now.bytes |= cell.read.bytes;
  }
  cell.read = now;
}

template <typename Cells>
void note_range(Cells& cells, std::size_t offset, std::size_t size, Access access,
                const char* address) {
  for (std::size_t done = 0; done < size;) {
    const std::size_t at = offset + done, within = at % kWord;
    const std::size_t count = std::min(kWord - within, size - done);
    const auto bytes = static_cast<std::uint8_t>(((1u << count) - 1) << within);
    note(cells[at / kWord], bytes, access, address + done);
    done += count;
  }
}

// Device memory

struct Allocation {
  std::size_t size;
  Cell* cells = nullptr;  // [size / kWord], made when a kernel first comes here

  std::size_t cell_bytes() const { return (size / kWord + 1) * sizeof(Cell); }
};

std::map<const char*, Allocation, std::greater<>> allocations;  // by where they begin
std::array<std::pair<const char*, Allocation*>, 8> recent;      // those found last
std::size_t next_recent = 0;

void* map_pages(std::size_t size) {
  void* pages = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return pages == MAP_FAILED ? nullptr : pages;
}

std::pair<const char*, Allocation*> find_allocation(const char* address) {
  for (const auto& [begin, allocation] : recent) {
    if (begin != nullptr && address >= begin && address < begin + allocation->size) {
      return {begin, allocation};
    }
  }
  const auto found = allocations.lower_bound(address);
  if (found == allocations.end() || address >= found->first + found->second.size) return {};
  recent[next_recent++ % recent.size()] = {found->first, &found->second};
  return {found->first, &found->second};
}

class WatchedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t size) override {
    if (size == 0) return {nullptr, nullptr, &release, c10::kCPU};
    void* data = nullptr;
    if (size > kLargest) {
      data = nullptr;
    } else if (size >= kLarge) {
      data = map_pages(size);
    } else if (posix_memalign(&data, 64, size + 2 * kMargin) == 0) {
      data = static_cast<char*>(data) + kMargin;
    } else {
      data = nullptr;
    }
    TORCH_CHECK(data != nullptr, "emulation: not enough memory for ", size, " bytes");
    if (size < kLarge) std::memset(data, 0xff, size);  // NaN, or -1
    allocations[static_cast<const char*>(data)] = {size};
    return {data, data, &release, c10::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    std::memcpy(to, from, count);
  }

 private:
  static void release(void* data) {
    if (data == nullptr) return;
    const auto found = allocations.find(static_cast<const char*>(data));
    if (found == allocations.end()) std::abort();
    const Allocation allocation = found->second;
    allocations.erase(found);
    recent.fill({});
    if (allocation.cells != nullptr) munmap(allocation.cells, allocation.cell_bytes());
    if (allocation.size >= kLarge) {
      munmap(data, allocation.size);
    } else {
      std::free(static_cast<char*>(data) - kMargin);
    }
  }
};

// Shared memory

struct Shared {
  std::size_t begin, size;
};

constexpr std::size_t kArena = 4 * kSharedBytes;  // with room for what lies between variables
alignas(256) char arena[kArena];
std::array<Cell, kArena / kWord> arena_cells;
std::array<bool, kArena> written;
std::vector<Shared> variables;  // by number; size 0: not made in this block
std::size_t dynamic_bytes = 0, used = 0, named_bytes = 0;
int numbers = 0;

const Shared* find_shared(std::size_t offset) {
  for (const Shared& variable : variables) {
    if (offset >= variable.begin && offset < variable.begin + variable.size) return &variable;
  }
  return nullptr;
}

void check_shared(const char* address, std::size_t size, Access access) {
  const auto offset = static_cast<std::size_t>(address - arena);
  const bool is_dynamic = offset < dynamic_bytes;
  const Shared* variable = is_dynamic ? nullptr : find_shared(offset);
  const std::size_t end = is_dynamic ? dynamic_bytes
                          : variable ? variable->begin + variable->size
                                     : 0;
  if (offset + size > end) {
    fail("out of bounds: " + std::to_string(size) + " bytes beyond " +
         (is_dynamic || variable ? "the end of a shared variable" : "all shared variables"));
  }
  if (access == Access::kWrite) {
    std::fill_n(written.begin() + offset, size, true);
  } else if (!std::all_of(written.begin() + offset, written.begin() + offset + size,
                          [](bool byte) { return byte; })) {
    fail("uninitialised: a read of " + describe(address) + ", which no thread has written");
  }
  note_range(arena_cells, offset, size, access, address);
}

// Memory that may be accessed freely: the host's stack, which holds launch arguments, and the
// constants and variables of this library.
struct Free {
  const char *begin, *end;
};

std::vector<Free> free_memory() {
  std::vector<Free> found;
  pthread_attr_t attributes;
  void* stack;
  std::size_t size;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &stack, &size);
  pthread_attr_destroy(&attributes);
  found.push_back({static_cast<char*>(stack), static_cast<char*>(stack) + size});
  dl_iterate_phdr(
      [](dl_phdr_info* library, std::size_t, void* out) {
        Free range{nullptr, nullptr};
        for (int i = 0; i < library->dlpi_phnum; ++i) {
          const auto& header = library->dlpi_phdr[i];
          if (header.p_type != PT_LOAD) continue;
          const auto* begin = reinterpret_cast<const char*>(library->dlpi_addr + header.p_vaddr);
          if (range.begin == nullptr) range.begin = begin;
          range.end = begin + header.p_memsz;
        }
        const auto* here = reinterpret_cast<const char*>(&actor);
        if (here < range.begin || here >= range.end) return 0;
        static_cast<std::vector<Free>*>(out)->push_back(range);
        return 1;
      },
      &found);
  return found;
}

}  // namespace

void check_access(const void* pointer, std::size_t size, Access access) {
  if (actor.launch == 0) return;
  const auto* address = static_cast<const char*>(pointer);
  if (address >= actor.stack && address < actor.stack_end) return;
  if (address >= arena && address < arena + kArena) return check_shared(address, size, access);
  if (const auto [begin, allocation] = find_allocation(address); allocation != nullptr) {
    const auto offset = static_cast<std::size_t>(address - begin);
    if (offset + size > allocation->size) {
      fail("out of bounds: " + std::to_string(size) + " bytes at " + std::to_string(offset) +
           " of an allocation of " + std::to_string(allocation->size));
    }
    if (allocation->cells == nullptr) {
      allocation->cells = static_cast<Cell*>(map_pages(allocation->cell_bytes()));
      if (allocation->cells == nullptr) fail("not enough memory to watch an allocation");
    }
    return note_range(allocation->cells, offset, size, access, address);
  }
  static const std::vector<Free> free = free_memory();
  for (const Free& range : free) {
    if (address >= range.begin && address < range.end) return;
  }
  const auto before = allocations.lower_bound(address);
  if (before != allocations.end() && address < before->first + before->second.size + kMargin) {
    fail("out of bounds: " + std::to_string(size) + " bytes at " +
         std::to_string(address - before->first) + " of an allocation of " +
         std::to_string(before->second.size));
  }
  fail("out of bounds: " + std::to_string(size) + " bytes in no allocation of the device");
}

std::string describe(const void* pointer) {
  const auto* address = static_cast<const char*>(pointer);
  if (address >= arena && address < arena + kArena) return "shared memory";
  const auto [begin, allocation] = find_allocation(address);
  if (allocation == nullptr) return "memory";
  return "byte " + std::to_string(address - begin) + " of an allocation of " +
         std::to_string(allocation->size);
}

void new_shared_memory(std::uint64_t seed, std::size_t bytes) {
  std::minstd_rand random(static_cast<std::uint32_t>(seed) | 1u);
  const std::size_t dirty = std::min(std::max(used, bytes + kRedZone), kArena);
  std::generate_n(arena, dirty, [&] { return static_cast<char>(random()); });
  std::fill_n(written.begin(), dirty, false);
  std::fill_n(arena_cells.begin(), dirty / kWord + 1, Cell{});
  variables.assign(static_cast<std::size_t>(numbers), {0, 0});
  dynamic_bytes = bytes;
  used = (bytes + 255) / 256 * 256 + kRedZone;
  named_bytes = 0;
}

int new_shared_number() { return numbers++; }

void* shared_variable(int number, std::size_t size) {
  if (variables.size() <= static_cast<std::size_t>(number)) {
    variables.resize(static_cast<std::size_t>(number) + 1, {0, 0});
  }
  Shared& variable = variables[static_cast<std::size_t>(number)];
  if (variable.size == 0) {
    named_bytes += size;
    if (dynamic_bytes + named_bytes > kSharedBytes) fail("more than 48 KiB of shared memory");
    variable = {used, size};
    used += (size + 255) / 256 * 256 + kRedZone;
    if (used > kArena) fail("too many variables in shared memory");
  }
  return arena + variable.begin;
}

void* dynamic_shared_memory() { return arena; }

void watch_allocations() {
  static WatchedAllocator allocator;
  c10::SetAllocator(c10::kCPU, &allocator, 255);
}

}  // namespace emulation

// Functions that the compiler calls: the thread sanitizer's instrumentation before each access, and
// the undefined-behaviour sanitizer's on an error.
extern "C" {
using emulation::Access;
using emulation::check_access;

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#define DB3KD_ACCESSES(size)                                                          \
  void __tsan_read##size(void* p) { check_access(p, size, Access::kRead); }           \
  void __tsan_write##size(void* p) { check_access(p, size, Access::kWrite); }         \
  void __tsan_unaligned_read##size(void* p) { check_access(p, size, Access::kRead); } \
  void __tsan_unaligned_write##size(void* p) { check_access(p, size, Access::kWrite); }
DB3KD_ACCESSES(1)
DB3KD_ACCESSES(2)
DB3KD_ACCESSES(4)
DB3KD_ACCESSES(8)
DB3KD_ACCESSES(16)
void __tsan_read_range(void* p, std::size_t size) { check_access(p, size, Access::kRead); }
void __tsan_write_range(void* p, std::size_t size) { check_access(p, size, Access::kWrite); }

#define DB3KD_OVERFLOW(operation)                                                      \
  [[noreturn]] void __ubsan_handle_##operation##_overflow_abort(void*, std::uintptr_t, \
                                                                std::uintptr_t) {      \
    emulation::fail("overflow: a signed " #operation);                                 \
  }
DB3KD_OVERFLOW(add)
DB3KD_OVERFLOW(sub)
DB3KD_OVERFLOW(mul)
[[noreturn]] void __ubsan_handle_negate_overflow_abort(void*, std::uintptr_t) {
  emulation::fail("overflow: a signed negation");
}
[[noreturn]] void __ubsan_handle_divrem_overflow_abort(void*, std::uintptr_t, std::uintptr_t) {
  emulation::fail("overflow: a signed division, or one by 0");
}
[[noreturn]] void __ubsan_handle_type_mismatch_v1_abort(void*, std::uintptr_t) {
  emulation::fail("misaligned: an access at an address that its type does not allow");
}
}
