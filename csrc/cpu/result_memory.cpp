#include "result_memory.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <mutex>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace db3kd::cpu {
namespace {

constexpr std::size_t kSmallest = std::size_t{1} << 20;  // torch's allocator reuses smaller ones
constexpr std::size_t kPage = std::size_t{2} << 20;      // a huge page

struct Block {
  void* data = nullptr;
  std::size_t bytes = 0;
};

// Blocks that no tensor uses, the one that was used last at the end.
class IdleBlocks {
 public:
  // The smallest idle block that fits, or a new one; without data if there is no memory. A block
  // of more than twice the size stays idle: a small result may live long.
  Block take(std::size_t bytes) {
    const std::size_t whole = (bytes + kPage - 1) / kPage * kPage;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      auto best = blocks_.end();
      for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
        if (block->bytes >= bytes && block->bytes <= 2 * whole &&
            (best == blocks_.end() || block->bytes <= best->bytes))
          best = block;
      }
      if (best != blocks_.end()) {
        const Block found = *best;
        blocks_.erase(best);
        return found;
      }
    }
    void* data = std::aligned_alloc(kPage, whole);
#if defined(__linux__)
    if (data != nullptr) madvise(data, whole, MADV_HUGEPAGE);
#endif
    return {data, whole};
  }

  void give_back(Block block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocks_.push_back(block);
    free_excess();
  }

  std::size_t keep(std::size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::size_t before = most_.exchange(bytes);
    free_excess();
    return before;
  }

  bool is_off() const { return most_ == 0; }

 private:
  // Frees the blocks that were idle longest as long as there are too many bytes.
  void free_excess() {
    std::size_t kept = 0;
    for (const Block& idle : blocks_) kept += idle.bytes;
    while (kept > most_) {
      kept -= blocks_.front().bytes;
      std::free(blocks_.front().data);
      blocks_.erase(blocks_.begin());
    }
  }

  std::mutex mutex_;
  std::vector<Block> blocks_;
  std::atomic<std::size_t> most_{std::size_t{1} << 30};
};

// Never destroyed: tensors may outlive all static objects.
IdleBlocks& idle_blocks() {
  static auto* blocks = new IdleBlocks;
  return *blocks;
}

}  // namespace

Tensor make_result(std::int64_t rows, std::int64_t size) {
  const Device device(torch::headeronly::DeviceType::CPU);
#if defined(__SANITIZE_ADDRESS__)
  constexpr bool kReuses = false;  // a step past the end of a block would not be seen
#else
  constexpr bool kReuses = true;
#endif
  std::int64_t bytes = 0;
  if (kReuses && !idle_blocks().is_off() && !__builtin_mul_overflow(rows, size, &bytes) &&
      !__builtin_mul_overflow(bytes, static_cast<std::int64_t>(sizeof(float)), &bytes) &&
      static_cast<std::size_t>(bytes) >= kSmallest) {
    const Block block = idle_blocks().take(static_cast<std::size_t>(bytes));
    if (block.data != nullptr) {
      const std::array<std::int64_t, 2> sizes{rows, size}, strides{size, 1};
      return torch::stable::from_blob(block.data, Sizes(sizes.data(), 2), Sizes(strides.data(), 2),
                                      device, ScalarType::Float,
                                      [block](void*) { idle_blocks().give_back(block); });
    }
  }
  return make_empty({rows, size}, ScalarType::Float, device);
}

std::size_t keep_result_memory(std::size_t bytes) { return idle_blocks().keep(bytes); }

}  // namespace db3kd::cpu
