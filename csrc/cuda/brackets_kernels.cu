#include <cassert>

#include "device.cuh"

namespace db3kd::cuda {
namespace {

__device__ std::int64_t pair_at(const BracketStep& step, std::int64_t row) {
  const std::int64_t ray = step.active[row];
  assert(ray >= 0 && ray < step.ray_count);
  const std::int64_t pair = step.pair_of[ray];
  assert(pair >= 0 && pair < step.pair_count);
  return pair;
}

__device__ Outcome outcome_at(const BracketStep& step, std::int64_t row, std::int64_t pair) {
  return outcome_of(step.decisions[row], step.criterion_class[pair], step.targeted);
}

// One row a thread, loaded by all threads at once, so that the walk over a pair reads shared
// memory.
struct Tile {
  std::int64_t ray[kThreads];
  std::int64_t pair[kThreads];
  Outcome outcome[kThreads];
  bool stays[kThreads];
  int first_head;       // the first row whose ray begins a pair, kThreads if none does
  int first_unordered;  // the first row whose pair is lower than the one before, likewise
  int appended;         // rays of the last pair that stay and lie beyond the tile
};

// A pair whose first ray is in a tile. Its last rays may be in the next tiles.
struct WalkedPair {
  Answers answers;
  std::int64_t end;  // the row after its last one
  bool goes_on = false;
};

// Narrows the bracket of the pair that begins at `row`, and marks the rays within the tile [top,
// bottom) that stay. No other thread has the pair.
__device__ WalkedPair walk_pair(const BracketStep& step, Tile& tile, std::int64_t top,
                                std::int64_t bottom, std::int64_t row, std::int64_t pair) {
  WalkedPair walked;
  std::int64_t& end = walked.end = row;
  for (; end < bottom && tile.pair[end - top] == pair; ++end)
    walked.answers.add(tile.ray[end - top], tile.outcome[end - top]);
  if (end == bottom) {
    for (; end < step.active_count && pair_at(step, end) == pair; ++end)
      walked.answers.add(step.active[end], outcome_at(step, end, pair));
  }

  Bracket bracket{step.low[pair], step.high[pair], step.radius[pair]};
  walked.goes_on = narrow(bracket, walked.answers, step.tolerance);
  step.low[pair] = bracket.low;
  step.high[pair] = bracket.high;
  step.radius[pair] = bracket.radius;
  if (walked.answers.hit()) step.winner[pair] = walked.answers.first_hit;
  for (std::int64_t at = row; walked.goes_on && at < min(walked.end, bottom); ++at)
    tile.stays[at - top] = can_still_win(tile.outcome[at - top], walked.answers);
  return walked;
}

// The rays that stay, of the pairs that begin in a chunk.
struct Kept {
  std::int64_t first = -1;  // where the first of these pairs begins; the rays are kept from there
  std::int64_t count = 0;
  std::int64_t unordered = -1;  // the first row that is not in order
};

// Processes the pairs that begin in the tile [top, bottom). All threads of the block must call it,
// and all return the same.
__device__ Kept step_tile(const BracketStep& step, Tile& tile, std::int64_t top,
                          std::int64_t bottom, Kept kept) {
  const int thread = threadIdx.x;
  const std::int64_t row = top + thread;
  const bool is_row = row < bottom;
  std::int64_t pair = 0;
  __syncthreads();  // the last tile may still be read
  if (thread == 0) {
    tile.first_head = tile.first_unordered = kThreads;
    tile.appended = 0;
  }
  if (is_row) {
    pair = pair_at(step, row);
    tile.ray[thread] = step.active[row];
    tile.pair[thread] = pair;
    tile.outcome[thread] = outcome_at(step, row, pair);
    tile.stays[thread] = false;
  }
  __syncthreads();
  bool is_head = false;
  if (is_row) {
    const std::int64_t before =
        thread > 0 ? tile.pair[thread - 1] : (row > 0 ? pair_at(step, row - 1) : -1);
    is_head = pair != before;
    if (is_head) atomicMin(&tile.first_head, thread);
    if (pair < before) atomicMin(&tile.first_unordered, thread);
  }
  __syncthreads();
  if (tile.first_unordered < kThreads) {
    // A pair could begin twice, so nothing of this tile is updated.
    if (kept.unordered < 0) kept.unordered = top + tile.first_unordered;
    return kept;
  }
  WalkedPair walked;
  walked.end = row;
  if (is_head) walked = walk_pair(step, tile, top, bottom, row, pair);
  __syncthreads();
  const int stays = is_row && tile.stays[thread] ? 1 : 0;
  int count = 0;
  const int place = sum_before(stays, count);
  if (kept.first < 0 && tile.first_head < kThreads) kept.first = top + tile.first_head;
  std::int64_t* out = step.kept + kept.first + kept.count;
  if (stays != 0) out[place] = tile.ray[thread];
  if (walked.end > bottom && walked.goes_on) {
    int appended = 0;
    for (std::int64_t at = bottom; at < walked.end; ++at) {
      if (can_still_win(outcome_at(step, at, pair), walked.answers))
        out[count + appended++] = step.active[at];
    }
    tile.appended = appended;
  }
  __syncthreads();
  kept.count += count + tile.appended;
  return kept;
}

// A block takes the pairs that begin in one chunk of rows.
__global__ void bracket_step_kernel(BracketStep step) {
  __shared__ Tile tile;
  for (std::int64_t chunk = blockIdx.x; chunk < step.chunks; chunk += gridDim.x) {
    const std::int64_t end = min((chunk + 1) * step.chunk_rows, step.active_count);
    Kept kept;
    for (std::int64_t top = chunk * step.chunk_rows; top < end; top += kThreads)
      kept = step_tile(step, tile, top, min(top + kThreads, end), kept);
    if (threadIdx.x == 0) {
      const std::int64_t count = kept.unordered < 0 ? kept.count : -1 - kept.unordered;
      step.first_of_chunk[chunk] = kept.first;
      step.count_of_chunk[chunk] = step.host_counts[chunk] = count;
    }
  }
}

}  // namespace

cudaError_t launch_bracket_step(const BracketStep& step, cudaStream_t stream) {
  if (step.active_count == 0) return cudaSuccess;
  bracket_step_kernel<<<grid_x(step.chunks), kThreads, 0, stream>>>(step);
  return cudaGetLastError();
}

std::int64_t chunk_rows_for(std::int64_t active_count) {
  return kThreads * std::max<std::int64_t>(divide_up(active_count, kThreads * kMaxChunks), 1);
}

}  // namespace db3kd::cuda
