#pragma once

#include <cstdint>

#include "platform.h"

// Counter-based random numbers. The direction of a probe is a pure function of its counter, so it
// is regenerated when needed and never stored. Philox-4x32-10: Salmon et al., "Parallel Random
// Numbers: As Easy as 1, 2, 3", SC 2011.

namespace db3kd {

// Four 32-bit words per lane: before philox() the counters of `Lanes` blocks, after it their random
// words.
template <int Lanes>
struct Blocks {
  std::uint32_t word[4][Lanes];
};

// Identifies one direction: probe `probe` of one round of one pair under one seed.
struct DirectionId {
  std::uint32_t key_low;
  std::uint32_t key_high;
  std::uint32_t probe;
  std::uint32_t sample;
  std::uint32_t target_and_round;
};

// A counter is a sample index, a target and a round. The sample index fills one word of a
// DirectionId; target and round share another. Beyond these limits, directions would repeat.
constexpr std::int64_t kMaxSamples = std::int64_t{1} << 32;
constexpr std::int64_t kMaxTargets = 65536;
constexpr std::int64_t kMaxRounds = 65536;

DB3KD_HOST_DEVICE bool counter_fits(const std::int64_t* counter) {
  return counter[0] >= 0 && counter[0] < kMaxSamples && counter[1] >= 0 &&
         counter[1] < kMaxTargets && counter[2] >= 0 && counter[2] < kMaxRounds;
}

DB3KD_HOST_DEVICE DirectionId direction_id(std::int64_t seed, std::int64_t probe,
                                           const std::int64_t* counters) {
  const auto bits = static_cast<std::uint64_t>(seed);
  return {
      static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32),
      static_cast<std::uint32_t>(probe), static_cast<std::uint32_t>(counters[0]),
      static_cast<std::uint32_t>(counters[1]) * 65536u + static_cast<std::uint32_t>(counters[2])};
}

// The loop over lanes is the outer one: compilers would unroll an inner loop over lanes and fail to
// vectorise it.
template <int Lanes>
DB3KD_HOST_DEVICE void philox(Blocks<Lanes>& blocks, std::uint32_t key_low,
                              std::uint32_t key_high) {
  for (int lane = 0; lane < Lanes; ++lane) {
    std::uint32_t word[4];
    for (int i = 0; i < 4; ++i) word[i] = blocks.word[i][lane];
    for (std::uint32_t round = 0; round < 10; ++round) {
      const std::uint64_t first = std::uint64_t{0xD2511F53u} * word[0];
      const std::uint64_t second = std::uint64_t{0xCD9E8D57u} * word[2];
      const std::uint32_t low = key_low + round * 0x9E3779B9u;
      const std::uint32_t high = key_high + round * 0xBB67AE85u;
      word[0] = static_cast<std::uint32_t>(second >> 32) ^ word[1] ^ low;
      word[1] = static_cast<std::uint32_t>(second);
      word[2] = static_cast<std::uint32_t>(first >> 32) ^ word[3] ^ high;
      word[3] = static_cast<std::uint32_t>(first);
    }
    for (int i = 0; i < 4; ++i) blocks.word[i][lane] = word[i];
  }
}

// The random words of blocks first, first + 1, ... of a direction.
template <int Lanes>
DB3KD_HOST_DEVICE Blocks<Lanes> random_blocks(const DirectionId& id, std::uint32_t first) {
  Blocks<Lanes> blocks;
  for (int lane = 0; lane < Lanes; ++lane) {
    blocks.word[0][lane] = first + static_cast<std::uint32_t>(lane);
    blocks.word[1][lane] = id.probe;
    blocks.word[2][lane] = id.sample;
    blocks.word[3][lane] = id.target_and_round;
  }
  philox(blocks, id.key_low, id.key_high);
  return blocks;
}

}  // namespace db3kd
