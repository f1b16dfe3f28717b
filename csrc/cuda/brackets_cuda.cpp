#include <torch/csrc/stable/library.h>

#include "../checks.h"
#include "../errors.h"
#include "../tensor.h"
#include "kernels.h"
#include "runtime.h"

namespace db3kd::cuda {
namespace {

// Compacts the flagged rays in order into a tensor with one entry per flag, and writes their number
// into `count`.
Tensor select(const std::int64_t* rays, const Tensor& flags, std::int64_t* count,
              cudaStream_t stream) {
  Tensor selected = make_empty({flags.size(0)}, ScalarType::Long, flags.device());
  const auto run = [&](void* scratch, std::size_t& bytes) {
    check_launch(launch_select(scratch, bytes, rays, flags.const_data_ptr<std::uint8_t>(),
                               flags.size(0), selected.mutable_data_ptr<std::int64_t>(), count,
                               stream));
  };
  std::size_t bytes = 0;
  run(nullptr, bytes);
  const Tensor scratch =
      make_empty({static_cast<std::int64_t>(bytes)}, ScalarType::Byte, flags.device());
  run(scratch.mutable_data_ptr(), bytes);
  return selected;
}

Tensor bracket_update(const Tensor& low, const Tensor& high, const Tensor& radius,
                      const Tensor& winner, const Tensor& active, const Tensor& pair_of,
                      const Tensor& decisions, const Tensor& criterion_class, bool targeted,
                      double absolute, double relative) {
  check_bracket_update(low, high, radius, winner, active, pair_of, decisions, criterion_class,
                       absolute, relative);
  const Launching on(low);
  if (active.size(0) == 0) return make_empty({0}, ScalarType::Long, active.device());

  const Contiguous<std::int64_t> ray(active), ray_pair(pair_of), decision(decisions),
      criterion_data(criterion_class);
  // The number of remaining rays, whether a pair occurred twice, and which pairs occurred.
  Tensor counts = make_empty({2 + low.size(0)}, ScalarType::Long, active.device());
  torch::stable::zero_(counts);
  auto* count = counts.mutable_data_ptr<std::int64_t>();
  const BracketUpdate update{low.mutable_data_ptr<float>(),
                             high.mutable_data_ptr<float>(),
                             radius.mutable_data_ptr<float>(),
                             winner.mutable_data_ptr<std::int64_t>(),
                             ray,
                             ray_pair,
                             decision,
                             criterion_data,
                             low.size(0),
                             pair_of.size(0),
                             active.size(0),
                             targeted,
                             {static_cast<float>(absolute), static_cast<float>(relative)},
                             count + 2,
                             count + 1};
  const Tensor stays = make_empty({active.size(0)}, ScalarType::Byte, active.device());
  check_launch(launch_bracket_update(update, stays.mutable_data_ptr<std::uint8_t>(), on.stream()));
  Tensor selected = select(ray, stays, count, on.stream());

  const Tensor known =
      to_host(torch::stable::narrow(counts, 0, 0, 2));  // waits for the device, once
  const auto* found = known.const_data_ptr<std::int64_t>();
  DB3KD_CHECK(ValueError, found[1] == 0,
              "active: expected the rays of a pair side by side, got those of one again at ",
              active.size(0) - found[1], "; the brackets are no longer right");
  return torch::stable::narrow(selected, 0, 0, found[0]);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(db3kd, CUDA, library) {
  library.impl("bracket_update", TORCH_BOX(bracket_update));
}

}  // namespace db3kd::cuda
