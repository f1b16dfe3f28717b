#pragma once

#include <cstdint>

#include "platform.h"

// Bisection of one pair. All rays of the pair are queried at one shared radius, and the bracket
// closes around the smallest radius at which any of them crosses the boundary.

namespace db3kd {

struct Bracket {
  float low;
  float high;
  float radius;
};

// The stopping rule: high − low ≤ max(absolute, relative · high).
struct Tolerance {
  float absolute;
  float relative;
};

enum class Outcome { kHit, kMiss, kUnanswered };

DB3KD_HOST_DEVICE Outcome outcome_of(std::int64_t decision, std::int64_t criterion_class,
                                     bool targeted) {
  if (decision < 0) return Outcome::kUnanswered;
  return (decision == criterion_class) == targeted ? Outcome::kHit : Outcome::kMiss;
}

// The decisions for the rays of one pair in one round.
struct Answers {
  std::int64_t first_hit = -1;
  bool missed = false;
  bool unanswered = false;

  DB3KD_HOST_DEVICE void add(std::int64_t ray, Outcome outcome) {
    if (outcome == Outcome::kHit && first_hit < 0) first_hit = ray;
    if (outcome == Outcome::kMiss) missed = true;
    if (outcome == Outcome::kUnanswered) unanswered = true;
  }

  DB3KD_HOST_DEVICE bool hit() const { return first_hit >= 0; }
};

// The comparisons are negated so that a bracket that contains NaN counts as closed and every
// bisection ends.
DB3KD_HOST_DEVICE bool is_settled(const Bracket& bracket, const Tolerance& tolerance) {
  const float relative = tolerance.relative * bracket.high;
  const float allowed = tolerance.absolute > relative ? tolerance.absolute : relative;
  const bool wide = bracket.high - bracket.low > allowed;
  const bool splittable = bracket.radius > bracket.low && bracket.radius < bracket.high;
  return !(wide && splittable);
}

// Narrows the bracket by the decisions of one round and sets the next radius. Returns whether the
// pair continues.
DB3KD_HOST_DEVICE bool narrow(Bracket& bracket, const Answers& answers,
                              const Tolerance& tolerance) {
  if (answers.hit()) {
    bracket.high = bracket.radius;
  } else if (answers.missed) {
    bracket.low = bracket.radius;
  }
  bracket.radius = bracket.low + (bracket.high - bracket.low) / 2.0f;
  return !answers.unanswered && !is_settled(bracket, tolerance);
}

// If one ray hits, rays that miss cannot have the smallest crossing.
DB3KD_HOST_DEVICE bool can_still_win(Outcome outcome, const Answers& answers) {
  return outcome == Outcome::kHit || !answers.hit();
}

}  // namespace db3kd
