#include <cassert>
#include <cub/device/device_select.cuh>

#include "device.cuh"

namespace db3kd::cuda {
namespace {

__device__ std::int64_t pair_at(const BracketUpdate& update, std::int64_t row) {
  const std::int64_t ray = update.active[row];
  assert(ray >= 0 && ray < update.ray_count);
  const std::int64_t pair = update.pair_of[ray];
  assert(pair >= 0 && pair < update.pair_count);
  return pair;
}

__device__ Outcome outcome_at(const BracketUpdate& update, std::int64_t row, std::int64_t pair) {
  return outcome_of(update.decisions[row], update.criterion_class[pair], update.targeted);
}

// The thread of a pair's first active ray walks over all rays of the pair, so no two threads share
// a pair. If the rays of a pair are not adjacent, the thread that reaches the pair first processes
// it, and the earliest row at which the pair occurs again is reported.
__device__ void update_pair(const BracketUpdate& update, std::int64_t begin, std::int64_t pair,
                            std::uint8_t* stays) {
  // Rows are numbered from the end, so 0 means none and the largest number is the earliest row.
  // Whichever of two threads comes first, the later row is the repetition, and the earliest
  // repetition counts.
  auto* met = reinterpret_cast<unsigned long long*>(update.met + pair);
  auto* repeated = reinterpret_cast<unsigned long long*>(update.repeated);
  const auto own = static_cast<unsigned long long>(update.active_count - begin);
  const unsigned long long other = atomicMax(met, own);
  if (other != 0) atomicMax(repeated, min(other, own));
  Answers answers;
  std::int64_t end = begin;
  do {
    answers.add(update.active[end], outcome_at(update, end, pair));
    stays[end] = 0;
    ++end;
  } while (end < update.active_count && pair_at(update, end) == pair);
  if (other != 0) return;

  Bracket bracket{update.low[pair], update.high[pair], update.radius[pair]};
  const bool goes_on = narrow(bracket, answers, update.tolerance);
  update.low[pair] = bracket.low;
  update.high[pair] = bracket.high;
  update.radius[pair] = bracket.radius;
  if (answers.hit()) update.winner[pair] = answers.first_hit;
  for (std::int64_t row = begin; goes_on && row < end; ++row) {
    stays[row] = can_still_win(outcome_at(update, row, pair), answers);
  }
}

__global__ void bracket_update_kernel(BracketUpdate update, std::uint8_t* stays) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       row < update.active_count; row += stride) {
    const std::int64_t pair = pair_at(update, row);
    const bool is_first = row == 0 || pair_at(update, row - 1) != pair;
    if (is_first) update_pair(update, row, pair, stays);
  }
}

}  // namespace

cudaError_t launch_bracket_update(const BracketUpdate& update, std::uint8_t* stays,
                                  cudaStream_t stream) {
  if (update.active_count == 0) return cudaSuccess;
  const unsigned blocks = grid_x(divide_up(update.active_count, kThreads));
  bracket_update_kernel<<<blocks, kThreads, 0, stream>>>(update, stays);
  return cudaGetLastError();
}

cudaError_t launch_select(void* scratch, std::size_t& scratch_bytes, const std::int64_t* values,
                          const std::uint8_t* flags, std::int64_t count, std::int64_t* selected,
                          std::int64_t* selected_count, cudaStream_t stream) {
  return cub::DeviceSelect::Flagged(scratch, scratch_bytes, values, flags, selected, selected_count,
                                    count, stream);
}

}  // namespace db3kd::cuda
