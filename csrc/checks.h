#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "core/noise.h"
#include "core/soft_label.h"
#include "tensor.h"

// Argument checks shared by all back ends. An error names the argument, what was expected and what
// came. Values on a device are not read here; the CPU ops check values as they use them.

namespace db3kd {

// One dimension of an expected shape; −1 matches any size.
struct Dimension {
  const char* name;
  std::int64_t size = -1;
};

void check_tensor(const Tensor& tensor, const char* name, ScalarType dtype, Device device,
                  std::initializer_list<Dimension> shape);

void check_ray_lengths(const Tensor& samples, const Tensor& ends, const Tensor& sample_of,
                       const Tensor& end_of);

void check_bracket_queries(const Tensor& samples, const Tensor& ends, const Tensor& sample_of,
                           const Tensor& pair_of, const Tensor& end_of, const Tensor& lengths,
                           const Tensor& radius, const Tensor& active, double lower, double upper,
                           ScalarType dtype);

void check_bracket_step(const Tensor& low, const Tensor& high, const Tensor& radius,
                        const Tensor& winner, const Tensor& active, const Tensor& decisions,
                        const Tensor& samples, const Tensor& ends, const Tensor& sample_of,
                        const Tensor& pair_of, const Tensor& end_of, const Tensor& lengths,
                        const Tensor& criterion_class, double absolute, double relative,
                        double lower, double upper, std::int64_t limit);

// The pair of the active ray `row` is lower than that of the ray before it.
[[noreturn]] void fail_order(std::int64_t row);

// The distribution of probe directions: `coefficients` random numbers per direction, which the
// bases, if any, turn into `components`.
struct Directions {
  Noise noise;
  std::int64_t seed;
  std::int64_t channels;
  std::int64_t components;
  std::int64_t coefficients;
  std::optional<Tensor> row_basis;     // [h, H], contiguous
  std::optional<Tensor> column_basis;  // [w, W], contiguous
};

Directions check_probe_queries(const Tensor& origins, const Tensor& points, const Tensor& step,
                               const Tensor& counters, std::int64_t seed, std::int64_t count,
                               const std::string& noise, const std::optional<Tensor>& row_basis,
                               const std::optional<Tensor>& column_basis, std::int64_t channels,
                               double lower, double upper, ScalarType dtype);

Directions check_probe_gradient(const Tensor& decisions, const Tensor& criterion_class,
                                const Tensor& counters, std::int64_t seed, const std::string& noise,
                                const std::optional<Tensor>& row_basis,
                                const std::optional<Tensor>& column_basis, std::int64_t channels,
                                std::int64_t components);

SoftLabelSettings check_soft_labels(const Tensor& distances, const Tensor& predicted,
                                    const std::string& normalisation, double scale,
                                    double temperature);

[[noreturn]] void fail_distance(std::int64_t sample, std::int64_t target, float distance);

}  // namespace db3kd
