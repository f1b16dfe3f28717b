#include <torch/csrc/stable/library.h>

#include "../checks.h"
#include "../errors.h"
#include "../tensor.h"
#include "queries.h"
#include "runtime.h"

namespace db3kd::cuda {
namespace {

BasisPair basis_pair(const Tensor& rows, const Tensor& columns, std::int64_t channels) {
  const BasisPair basis{rows.const_data_ptr<float>(),
                        columns.const_data_ptr<float>(),
                        channels,
                        rows.size(0),
                        rows.size(1),
                        columns.size(0),
                        columns.size(1)};
  DB3KD_CHECK(ValueError, basis_fits(basis),
              "row_basis, column_basis: expected at most about 2900 rows in both together, "
              "and at most 2^20 columns in each, on CUDA, got ",
              describe(rows.sizes()), " and ", describe(columns.sizes()));
  return basis;
}

std::optional<BasisPair> basis_of(const Directions& directions) {
  if (!directions.row_basis) return std::nullopt;
  return basis_pair(*directions.row_basis, *directions.column_basis, directions.channels);
}

// The transposes of both bases, which turn pixels into coefficients. They are made beside the
// offsets of each batch: as many bytes as a query, and no launch.
struct TransposedBases {
  Tensor rows;     // [H, h]
  Tensor columns;  // [W, w]
  Transpose first{};
  Transpose second{};

  TransposedBases(const Tensor& row_basis, const Tensor& column_basis)
      : rows(empty_transpose(row_basis)),
        columns(empty_transpose(column_basis)),
        first(transpose(row_basis, rows)),
        second(transpose(column_basis, columns)) {}

 private:
  static Tensor empty_transpose(const Tensor& basis) {
    return make_empty({basis.size(1), basis.size(0)}, ScalarType::Float, basis.device());
  }
  static Transpose transpose(const Tensor& basis, const Tensor& to) {
    return {basis.const_data_ptr<float>(), basis.size(0), basis.size(1),
            to.mutable_data_ptr<float>()};
  }
};

// The offsets of points from their origins as coefficients of the bases. Directions lie in the span
// of the bases, so an inner product with a direction needs nothing else.
Tensor to_coefficients(const Directions& directions, const std::optional<TransposedBases>& bases,
                       const Tensor& offsets, cudaStream_t stream) {
  if (!bases) return offsets;
  Tensor coefficients =
      make_empty({offsets.size(0), directions.coefficients}, ScalarType::Float, offsets.device());
  check_launch(launch_to_pixels(basis_pair(bases->rows, bases->columns, directions.channels),
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

Tensor probe_queries(const Tensor& origins, const Tensor& points, const Tensor& step,
                     const Tensor& counters, std::int64_t seed, std::int64_t count,
                     const std::string& noise, const std::optional<Tensor>& row_basis,
                     const std::optional<Tensor>& column_basis, std::int64_t channels, double lower,
                     double upper, ScalarType dtype) {
  const Directions directions =
      check_probe_queries(origins, points, step, counters, seed, count, noise, row_basis,
                          column_basis, channels, lower, upper, dtype);
  const Launching on(points);
  const cudaStream_t stream = on.stream();
  const std::optional<BasisPair> basis = basis_of(directions);
  Tensor queries = make_empty({points.size(0) * count, points.size(1)}, dtype, points.device());

  const Contiguous<float> origin_data(origins), point_data(points), step_of(step);
  const Contiguous<std::int64_t> counter_data(counters);
  const DirectionSource source = source_of(directions, counter_data, points.size(0), count);
  const Tensor offsets =
      make_empty({points.size(0), points.size(1)}, ScalarType::Float, points.device());
  const Tensor radius = make_empty({points.size(0)}, ScalarType::Float, points.device());
  std::optional<TransposedBases> bases;
  if (basis) bases.emplace(*directions.row_basis, *directions.column_basis);
  check_launch(launch_offsets(origin_data, point_data, points.size(0), points.size(1),
                              offsets.mutable_data_ptr<float>(), radius.mutable_data_ptr<float>(),
                              bases ? bases->first : Transpose{},
                              bases ? bases->second : Transpose{}, stream));

  const Tensor coefficients = to_coefficients(directions, bases, offsets, stream);
  const Tensor factors = make_empty({points.size(0), count, 2}, ScalarType::Float, points.device());
  auto* factor = reinterpret_cast<ProbeFactors*>(factors.mutable_data_ptr<float>());
  check_launch(launch_probe_factors(source, coefficients.const_data_ptr<float>(),
                                    radius.const_data_ptr<float>(), step_of, factor, stream));

  const ProbePoints at{origin_data, offsets.const_data_ptr<float>(), factor, points.size(1)};
  const QuerySink sink = sink_of(queries, lower, upper);
  check_launch(basis ? launch_probe_queries(source, *basis, at, sink, stream)
                     : launch_probe_queries(source, at, sink, stream));
  return queries;
}

Tensor probe_gradient(const Tensor& decisions, const Tensor& criterion_class, bool targeted,
                      const Tensor& counters, std::int64_t seed, const std::string& noise,
                      const std::optional<Tensor>& row_basis,
                      const std::optional<Tensor>& column_basis, std::int64_t channels,
                      std::int64_t components) {
  const Directions directions =
      check_probe_gradient(decisions, criterion_class, counters, seed, noise, row_basis,
                           column_basis, channels, components);
  const Launching on(decisions);
  const cudaStream_t stream = on.stream();
  const std::optional<BasisPair> basis = basis_of(directions);
  const std::int64_t points = decisions.size(0), count = decisions.size(1);
  const auto per_point = [&](std::int64_t size) {
    return make_empty({points, size}, ScalarType::Float, decisions.device());
  };
  const Tensor weights = per_point(count);
  Tensor gradient = per_point(components);
  Tensor total = basis ? per_point(directions.coefficients) : gradient;

  const Contiguous<std::int64_t> decision_data(decisions), criterion_data(criterion_class),
      counter_data(counters);
  const DirectionSource source = source_of(directions, counter_data, points, count);
  if (directions.noise == Noise::kGaussian) {
    check_launch(launch_gaussian_scales(source, weights.mutable_data_ptr<float>(), stream));
  }
  check_launch(launch_probe_weights(source, decision_data, criterion_data, targeted,
                                    weights.mutable_data_ptr<float>(), stream));
  check_launch(launch_weighted_sum(source, weights.const_data_ptr<float>(),
                                   total.mutable_data_ptr<float>(), stream));
  if (basis) {
    check_launch(launch_to_pixels(*basis, total.const_data_ptr<float>(), points,
                                  gradient.mutable_data_ptr<float>(), stream));
  }
  check_launch(launch_normalise(gradient.mutable_data_ptr<float>(), points, components, stream));
  return gradient;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(db3kd, CUDA, library) {
  library.impl("probe_queries", TORCH_BOX(probe_queries));
  library.impl("probe_gradient", TORCH_BOX(probe_gradient));
}

}  // namespace db3kd::cuda
