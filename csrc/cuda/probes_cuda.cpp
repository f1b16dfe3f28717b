#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sub.h>
#include <torch/library.h>

#include "../checks.h"
#include "../contiguous.h"
#include "queries.h"

namespace db3kd::cuda {
namespace {

BasisPair basis_pair(const at::Tensor& rows, const at::Tensor& columns, std::int64_t channels) {
  const BasisPair basis{rows.const_data_ptr<float>(),
                        columns.const_data_ptr<float>(),
                        channels,
                        rows.size(0),
                        rows.size(1),
                        columns.size(0),
                        columns.size(1)};
  TORCH_CHECK_VALUE(basis_fits(basis),
                    "row_basis, column_basis: expected at most about 12000 rows "
                    "in both together on CUDA, got ",
                    basis.h, " and ", basis.w);
  return basis;
}

std::optional<BasisPair> basis_of(const Directions& directions) {
  if (!directions.row_basis) return std::nullopt;
  return basis_pair(*directions.row_basis, *directions.column_basis, directions.channels);
}

// What each point is off its origin, as coefficients of the bases: the directions lie in their
// span, so this is all that an inner product with one needs.
at::Tensor offsets_of(const Directions& directions, const at::Tensor& origins,
                      const at::Tensor& points, cudaStream_t stream) {
  const at::Tensor offsets = at::sub(points, origins).contiguous();
  if (!directions.row_basis) return offsets;
  const at::Tensor rows = directions.row_basis->t().contiguous();
  const at::Tensor columns = directions.column_basis->t().contiguous();
  at::Tensor coefficients = at::empty({points.size(0), directions.coefficients}, points.options());
  C10_CUDA_CHECK(launch_to_pixels(basis_pair(rows, columns, directions.channels),
                                  offsets.const_data_ptr<float>(), points.size(0),
                                  coefficients.mutable_data_ptr<float>(), stream));
  return coefficients;
}

// How far each point is from its origin.
at::Tensor radius_of(const float* origins, const float* points, const at::Tensor& like,
                     cudaStream_t stream) {
  const std::int64_t count = like.size(0), size = like.size(1);
  const at::Tensor self = at::arange(count, like.options().dtype(at::kLong));
  const std::int64_t* row = self.const_data_ptr<std::int64_t>();
  at::Tensor radius = at::empty({count}, like.options());
  C10_CUDA_CHECK(launch_ray_lengths({origins, points, row, row, count, count, size}, count,
                                    radius.mutable_data_ptr<float>(), stream));
  return radius;
}

// The source of all directions, and what holds its scales.
class Source {
 public:
  Source(const Directions& directions, const at::Tensor& counters, std::int64_t probes,
         cudaStream_t stream)
      : counters_(counters),
        scales_(at::empty({counters.size(0), probes}, counters.options().dtype(at::kFloat))),
        source_{directions.noise,
                directions.seed,
                counters_,
                counters.size(0),
                probes,
                directions.coefficients,
                scales_.const_data_ptr<float>()} {
    C10_CUDA_CHECK(launch_direction_scales(source_, scales_.mutable_data_ptr<float>(), stream));
  }

  const DirectionSource& operator*() const { return source_; }

 private:
  Contiguous<std::int64_t> counters_;
  at::Tensor scales_;
  DirectionSource source_;
};

at::Tensor probe_queries(const at::Tensor& origins, const at::Tensor& points,
                         const at::Tensor& step, const at::Tensor& counters, std::int64_t seed,
                         std::int64_t count, std::string_view noise,
                         const std::optional<at::Tensor>& row_basis,
                         const std::optional<at::Tensor>& column_basis, std::int64_t channels,
                         double lower, double upper, at::ScalarType dtype) {
  const Directions directions =
      check_probe_queries(origins, points, step, counters, seed, count, noise, row_basis,
                          column_basis, channels, lower, upper, dtype);
  const c10::cuda::CUDAGuard guard(points.device());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const std::optional<BasisPair> basis = basis_of(directions);
  at::Tensor queries =
      at::empty({points.size(0) * count, points.size(1)}, points.options().dtype(dtype));

  const Contiguous<float> origin_data(origins), point_data(points), step_of(step);
  const Source source(directions, counters, count, stream);
  const at::Tensor offsets = offsets_of(directions, origins, points, stream);
  const at::Tensor radius = radius_of(origin_data, point_data, points, stream);
  at::Tensor corrections = at::empty({points.size(0), count}, points.options());
  C10_CUDA_CHECK(launch_radius_corrections(*source, offsets.const_data_ptr<float>(),
                                           radius.const_data_ptr<float>(), step_of,
                                           corrections.mutable_data_ptr<float>(), stream));

  const ProbePoints at{origin_data, point_data, step_of, corrections.const_data_ptr<float>(),
                       points.size(1)};
  const QuerySink sink = sink_of(queries, lower, upper);
  C10_CUDA_CHECK(basis ? launch_probe_queries(*source, *basis, at, sink, stream)
                       : launch_probe_queries(*source, at, sink, stream));
  return queries;
}

at::Tensor probe_gradient(const at::Tensor& decisions, const at::Tensor& wanted, bool targeted,
                          const at::Tensor& counters, std::int64_t seed, std::string_view noise,
                          const std::optional<at::Tensor>& row_basis,
                          const std::optional<at::Tensor>& column_basis, std::int64_t channels,
                          std::int64_t components) {
  const Directions directions = check_probe_gradient(decisions, wanted, counters, seed, noise,
                                                     row_basis, column_basis, channels, components);
  const c10::cuda::CUDAGuard guard(decisions.device());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const std::optional<BasisPair> basis = basis_of(directions);
  const std::int64_t points = decisions.size(0), count = decisions.size(1);
  const at::TensorOptions options = decisions.options().dtype(at::kFloat);
  const at::Tensor weights = at::empty({points, count}, options);
  at::Tensor gradient = at::empty({points, components}, options);
  at::Tensor total = basis ? at::empty({points, directions.coefficients}, options) : gradient;

  const Contiguous<std::int64_t> decision_data(decisions), wanted_class(wanted);
  const Source source(directions, counters, count, stream);
  C10_CUDA_CHECK(launch_probe_weights(*source, decision_data, wanted_class, targeted,
                                      weights.mutable_data_ptr<float>(), stream));
  C10_CUDA_CHECK(launch_weighted_sum(*source, weights.const_data_ptr<float>(),
                                     total.mutable_data_ptr<float>(), stream));
  if (basis) {
    C10_CUDA_CHECK(launch_to_pixels(*basis, total.const_data_ptr<float>(), points,
                                    gradient.mutable_data_ptr<float>(), stream));
  }
  C10_CUDA_CHECK(launch_normalise(gradient.mutable_data_ptr<float>(), points, components, stream));
  return gradient;
}

}  // namespace

TORCH_LIBRARY_IMPL(db3kd, CUDA, library) {
  library.impl("probe_queries", &probe_queries);
  library.impl("probe_gradient", &probe_gradient);
}

}  // namespace db3kd::cuda
