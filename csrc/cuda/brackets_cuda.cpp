#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../checks.h"
#include "../contiguous.h"
#include "kernels.h"

namespace db3kd::cuda {
namespace {

// Compacts the flagged rays in order into a tensor with one entry per flag, and writes their number
// into `count`.
at::Tensor select(const std::int64_t* rays, const at::Tensor& flags, std::int64_t* count,
                  const at::TensorOptions& options) {
  at::Tensor selected = at::empty({flags.size(0)}, options);
  const auto run = [&](void* scratch, std::size_t& bytes) {
    C10_CUDA_CHECK(launch_select(scratch, bytes, rays, flags.const_data_ptr<std::uint8_t>(),
                                 flags.size(0), selected.mutable_data_ptr<std::int64_t>(), count,
                                 c10::cuda::getCurrentCUDAStream()));
  };
  std::size_t bytes = 0;
  run(nullptr, bytes);
  const at::Tensor scratch =
      at::empty({static_cast<std::int64_t>(bytes)}, options.dtype(at::kByte));
  run(scratch.mutable_data_ptr(), bytes);
  return selected;
}

at::Tensor bracket_update(const at::Tensor& low, const at::Tensor& high, const at::Tensor& radius,
                          const at::Tensor& winner, const at::Tensor& active,
                          const at::Tensor& pair_of, const at::Tensor& decisions,
                          const at::Tensor& criterion_class, bool targeted, double absolute,
                          double relative) {
  check_bracket_update(low, high, radius, winner, active, pair_of, decisions, criterion_class,
                       absolute, relative);
  const c10::cuda::CUDAGuard guard(low.device());
  if (active.size(0) == 0) return at::empty({0}, active.options());

  const Contiguous<std::int64_t> ray(active), ray_pair(pair_of), decision(decisions),
      criterion_data(criterion_class);
  // The number of remaining rays, whether a pair occurred twice, and which pairs occurred.
  const at::Tensor counts = at::zeros({2 + low.size(0)}, active.options());
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
  const at::Tensor stays = at::empty({active.size(0)}, active.options().dtype(at::kByte));
  C10_CUDA_CHECK(launch_bracket_update(update, stays.mutable_data_ptr<std::uint8_t>(),
                                       c10::cuda::getCurrentCUDAStream()));
  const at::Tensor selected = select(ray, stays, count, active.options());

  const at::Tensor known = counts.narrow(0, 0, 2).cpu();  // waits for the device, once
  const auto* found = known.const_data_ptr<std::int64_t>();
  TORCH_CHECK_VALUE(found[1] == 0,
                    "active: expected the rays of a pair side by side, got those of one again at ",
                    active.size(0) - found[1], "; the brackets are no longer right");
  return selected.narrow(0, 0, found[0]);
}

}  // namespace

TORCH_LIBRARY_IMPL(db3kd, CUDA, library) { library.impl("bracket_update", &bracket_update); }

}  // namespace db3kd::cuda
