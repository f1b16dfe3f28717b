#include "mix.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "clones.h"

#if DB3KD_HAS_CLONES
#include <immintrin.h>
#endif

// As DB3KD_CLONES, but each clone has its own vector width: wider vectors than the machine's would
// be kept in memory, and narrower ones would waste its registers.
namespace db3kd::cpu {

namespace plain {
namespace {
constexpr int kLanes = 4;
#define DB3KD_MULTIPLY_ADD(a, b, c) ((c) + (a) * (b))
#include "mix_tiles.h"
#undef DB3KD_MULTIPLY_ADD
}  // namespace
}  // namespace plain

#if DB3KD_HAS_CLONES
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
namespace v3 {
namespace {
constexpr int kLanes = 8;
#define DB3KD_MULTIPLY_ADD(a, b, c) ((Vector)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#include "mix_tiles.h"
#undef DB3KD_MULTIPLY_ADD
}  // namespace
}  // namespace v3
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
namespace v4 {
namespace {
constexpr int kLanes = 16;
#define DB3KD_MULTIPLY_ADD(a, b, c) ((Vector)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#include "mix_tiles.h"
#undef DB3KD_MULTIPLY_ADD
}  // namespace
}  // namespace v4
#pragma GCC pop_options

// The versions are chosen between within this file only: callers elsewhere see one function.
namespace {
__attribute__((target("arch=x86-64-v4"))) void rows_of(const Mix& mix) { v4::mix_rows(mix); }
__attribute__((target("arch=x86-64-v3"))) void rows_of(const Mix& mix) { v3::mix_rows(mix); }
__attribute__((target("default"))) void rows_of(const Mix& mix) { plain::mix_rows(mix); }
__attribute__((target("arch=x86-64-v4"))) void mirrored_of(const Mix& mix) {
  v4::mix_mirrored(mix);
}
__attribute__((target("arch=x86-64-v3"))) void mirrored_of(const Mix& mix) {
  v3::mix_mirrored(mix);
}
__attribute__((target("default"))) void mirrored_of(const Mix& mix) { plain::mix_mirrored(mix); }
}  // namespace

void mix_rows(const Mix& mix) { rows_of(mix); }
void mix_mirrored(const Mix& mix) { mirrored_of(mix); }
#else
void mix_rows(const Mix& mix) { plain::mix_rows(mix); }
void mix_mirrored(const Mix& mix) { plain::mix_mirrored(mix); }
#endif

}  // namespace db3kd::cpu
