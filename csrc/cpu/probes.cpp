#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "../checks.h"
#include "../core/probe.h"
#include "../errors.h"
#include "../tensor.h"
#include "basis.h"
#include "loops.h"
#include "result_memory.h"
#include "rows.h"

namespace db3kd::cpu {
namespace {

void check_counters(const std::int64_t* counters, std::int64_t rows) {
  constexpr std::int64_t kLimits[] = {kMaxSamples, kMaxTargets, kMaxRounds};
  constexpr const char* kNames[] = {"sample index", "target", "round"};
  for (std::int64_t i = 0; i < 3 * rows; ++i) {
    DB3KD_CHECK(IndexError, counters[i] >= 0 && counters[i] < kLimits[i % 3],
                "counters: expected a ", kNames[i % 3], " from 0 to ", kLimits[i % 3] - 1, ", got ",
                counters[i], " in row ", i / 3);
  }
}

// `signs`: all coefficients to transform are −1 or 1.
std::optional<Basis> basis_of(const Directions& directions, bool signs) {
  if (!directions.row_basis) return std::nullopt;
  const Tensor &rows = *directions.row_basis, &columns = *directions.column_basis;
  return Basis(rows.const_data_ptr<float>(), rows.size(0), rows.size(1),
               columns.const_data_ptr<float>(), columns.size(0), columns.size(1),
               directions.channels, signs);
}

Tensor probe_queries(const Tensor& origins, const Tensor& points, const Tensor& step,
                     const Tensor& counters, std::int64_t seed, std::int64_t count,
                     const std::string& noise, const std::optional<Tensor>& row_basis,
                     const std::optional<Tensor>& column_basis, std::int64_t channels, double lower,
                     double upper, ScalarType dtype) {
  const Directions directions =
      check_probe_queries(origins, points, step, counters, seed, count, noise, row_basis,
                          column_basis, channels, lower, upper, dtype);
  const std::int64_t size = points.size(1), rows = points.size(0) * count;
  const auto low = static_cast<float>(lower), high = static_cast<float>(upper);
  const auto basis = basis_of(directions, directions.noise == Noise::kRademacher);
  Tensor queries = make_result(rows, size);

  const Contiguous<float> origin_data(origins), point_data(points), step_of(step);
  const Contiguous<std::int64_t> counter_data(counters);
  check_counters(counter_data, points.size(0));
  float* out = queries.mutable_data_ptr<float>();
  parallel_rows(rows, rows_per_task(size), [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> coefficients(padded(directions.coefficients));
    std::vector<float> scratch(basis ? basis->scratch() : 0);
    double radius = 0.0;
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t point = row / count;
      const float *from = origin_data + point * size, *at = point_data + point * size;
      if (row == begin || row % count == 0) radius = distance_between(from, at, size);
      const DirectionId id = direction_id(seed, row % count, counter_data + 3 * point);
      const float scale =
          draw_direction(directions.noise, id, directions.coefficients, coefficients.data());
      // A direction in pixels is built where its query will be: it is read again while it is in
      // the cache, and waiting for the result's memory overlaps with arithmetic.
      float* query = out + row * size;
      const float* direction = basis ? query : coefficients.data();
      Along along(from, at, direction, size);
      for (std::int64_t channel = 0; basis && channel < basis->channels(); ++channel) {
        basis->to_pixels(channel, coefficients.data(), scratch.data(), query);
        along.add_up_to((channel + 1) * basis->pixels_per_channel());
      }
      const double across = scale * along.total();
      points_at_radius(from, at, direction, step_of[point] * scale,
                       radius_correction(radius, step_of[point], across), low, high, size, query);
    }
  });
  return as_dtype(queries, dtype);
}

Tensor probe_gradient(const Tensor& decisions, const Tensor& criterion_class, bool targeted,
                      const Tensor& counters, std::int64_t seed, const std::string& noise,
                      const std::optional<Tensor>& row_basis,
                      const std::optional<Tensor>& column_basis, std::int64_t channels,
                      std::int64_t components) {
  const Directions directions =
      check_probe_gradient(decisions, criterion_class, counters, seed, noise, row_basis,
                           column_basis, channels, components);
  const std::int64_t points = decisions.size(0), count = decisions.size(1);
  const auto basis = basis_of(directions, false);  // of sums
  Tensor gradient = make_empty({points, components}, ScalarType::Float, decisions.device());

  const Contiguous<std::int64_t> decision_data(decisions), criterion_data(criterion_class),
      counter_data(counters);
  check_counters(counter_data, points);
  float* out = gradient.mutable_data_ptr<float>();
  parallel_rows(
      points, rows_per_task(components * count), [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> direction(padded(directions.coefficients)),
            total(directions.coefficients);
        std::vector<float> scratch(basis ? basis->scratch() : 0);
        for (std::int64_t point = begin; point < end; ++point) {
          const std::int64_t* row = decision_data + point * count;
          Tally tally;
          for (std::int64_t k = 0; k < count; ++k)
            tally.add(outcome_of(row[k], criterion_data[point], targeted));

          std::fill(total.begin(), total.end(), 0.0f);
          for (std::int64_t k = 0; k < count; ++k) {
            const float weight =
                probe_weight(outcome_of(row[k], criterion_data[point], targeted), tally);
            if (weight == 0.0f) continue;
            const DirectionId id = direction_id(seed, k, counter_data + 3 * point);
            const float scale =
                draw_direction(directions.noise, id, directions.coefficients, direction.data());
            accumulate(direction.data(), weight * scale, directions.coefficients, total.data());
          }
          float* normal = out + point * components;
          for (std::int64_t channel = 0; basis && channel < basis->channels(); ++channel)
            basis->to_pixels(channel, total.data(), scratch.data(), normal);
          if (!basis) std::copy_n(total.data(), components, normal);
          normalise(components, normal);
        }
      });
  return gradient;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(db3kd, CPU, library) {
  library.impl("probe_queries", TORCH_BOX(probe_queries));
  library.impl("probe_gradient", TORCH_BOX(probe_gradient));
}

}  // namespace db3kd::cpu
