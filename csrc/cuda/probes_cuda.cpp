#include <ATen/ops/empty.h>
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
                    "row_basis, column_basis: expected at most about 2900 rows in both together, "
                    "and at most 2^20 columns in each, on CUDA, got ",
                    rows.sizes(), " and ", columns.sizes());
  return basis;
}

std::optional<BasisPair> basis_of(const Directions& directions) {
  if (!directions.row_basis) return std::nullopt;
  return basis_pair(*directions.row_basis, *directions.column_basis, directions.channels);
}

// The offsets of points from their origins as coefficients of the bases. Directions lie in the span
// of the bases, so an inner product with a direction needs nothing else.
at::Tensor to_coefficients(const Directions& directions, const at::Tensor& offsets,
                           cudaStream_t stream) {
  if (!directions.row_basis) return offsets;
  const at::Tensor rows = directions.row_basis->t().contiguous();
  const at::Tensor columns = directions.column_basis->t().contiguous();
  at::Tensor coefficients =
      at::empty({offsets.size(0), directions.coefficients}, offsets.options());
  C10_CUDA_CHECK(launch_to_pixels(basis_pair(rows, columns, directions.channels),
                                  offsets.const_data_ptr<float>(), offsets.size(0),
                                  coefficients.mutable_data_ptr<float>(), stream));
  return coefficients;
}

DirectionSource source_of(const Directions& directions, const std::int64_t* counters,
                          std::int64_t points, std::int64_t probes) {
  const auto size = static_cast<double>(directions.coefficients);
  return {directions.noise, directions.seed,         counters,        points,
          probes,           directions.coefficients, unit_scale(size)};
}

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
  const Contiguous<std::int64_t> counter_data(counters);
  const DirectionSource source = source_of(directions, counter_data, points.size(0), count);
  const at::Tensor offsets = at::empty(points.sizes(), points.options());
  const at::Tensor radius = at::empty({points.size(0)}, points.options());
  C10_CUDA_CHECK(launch_offsets(origin_data, point_data, points.size(0), points.size(1),
                                offsets.mutable_data_ptr<float>(), radius.mutable_data_ptr<float>(),
                                stream));

  const at::Tensor coefficients = to_coefficients(directions, offsets, stream);
  const at::Tensor factors = at::empty({points.size(0), count, 2}, points.options());
  auto* factor = reinterpret_cast<ProbeFactors*>(factors.mutable_data_ptr<float>());
  C10_CUDA_CHECK(launch_probe_factors(source, coefficients.const_data_ptr<float>(),
                                      radius.const_data_ptr<float>(), step_of, factor, stream));

  const ProbePoints at{origin_data, offsets.const_data_ptr<float>(), factor, points.size(1)};
  const QuerySink sink = sink_of(queries, lower, upper);
  C10_CUDA_CHECK(basis ? launch_probe_queries(source, *basis, at, sink, stream)
                       : launch_probe_queries(source, at, sink, stream));
  return queries;
}

at::Tensor probe_gradient(const at::Tensor& decisions, const at::Tensor& criterion_class,
                          bool targeted, const at::Tensor& counters, std::int64_t seed,
                          std::string_view noise, const std::optional<at::Tensor>& row_basis,
                          const std::optional<at::Tensor>& column_basis, std::int64_t channels,
                          std::int64_t components) {
  const Directions directions =
      check_probe_gradient(decisions, criterion_class, counters, seed, noise, row_basis,
                           column_basis, channels, components);
  const c10::cuda::CUDAGuard guard(decisions.device());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const std::optional<BasisPair> basis = basis_of(directions);
  const std::int64_t points = decisions.size(0), count = decisions.size(1);
  const at::TensorOptions options = decisions.options().dtype(at::kFloat);
  const at::Tensor weights = at::empty({points, count}, options);
  at::Tensor gradient = at::empty({points, components}, options);
  at::Tensor total = basis ? at::empty({points, directions.coefficients}, options) : gradient;

  const Contiguous<std::int64_t> decision_data(decisions), criterion_data(criterion_class),
      counter_data(counters);
  const DirectionSource source = source_of(directions, counter_data, points, count);
  if (directions.noise == Noise::kGaussian) {
    C10_CUDA_CHECK(launch_gaussian_scales(source, weights.mutable_data_ptr<float>(), stream));
  }
  C10_CUDA_CHECK(launch_probe_weights(source, decision_data, criterion_data, targeted,
                                      weights.mutable_data_ptr<float>(), stream));
  C10_CUDA_CHECK(launch_weighted_sum(source, weights.const_data_ptr<float>(),
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
