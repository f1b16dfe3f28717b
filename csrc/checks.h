#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "core/noise.h"
#include "core/soft_label.h"

// Argument checks shared by all back ends. An error names the argument, what was expected and what
// came. Values on a device are not read here; the CPU ops check values as they use them.

namespace db3kd {

// One dimension of an expected shape; −1 matches any size.
struct Dimension {
  const char* name;
  std::int64_t size = -1;
};

void check_tensor(const at::Tensor& tensor, const char* name, at::ScalarType dtype,
                  c10::Device device, std::initializer_list<Dimension> shape);

void check_ray_lengths(const at::Tensor& samples, const at::Tensor& ends,
                       const at::Tensor& sample_of, const at::Tensor& end_of);

void check_bracket_queries(const at::Tensor& samples, const at::Tensor& ends,
                           const at::Tensor& sample_of, const at::Tensor& pair_of,
                           const at::Tensor& end_of, const at::Tensor& lengths,
                           const at::Tensor& radius, const at::Tensor& active, double lower,
                           double upper, at::ScalarType dtype);

void check_bracket_update(const at::Tensor& low, const at::Tensor& high, const at::Tensor& radius,
                          const at::Tensor& winner, const at::Tensor& active,
                          const at::Tensor& pair_of, const at::Tensor& decisions,
                          const at::Tensor& criterion_class, double absolute, double relative);

// The distribution of probe directions: `coefficients` random numbers per direction, which the
// bases, if any, turn into `components`.
struct Directions {
  Noise noise;
  std::int64_t seed;
  std::int64_t channels;
  std::int64_t components;
  std::int64_t coefficients;
  std::optional<at::Tensor> row_basis;     // [h, H], contiguous
  std::optional<at::Tensor> column_basis;  // [w, W], contiguous
};

Directions check_probe_queries(const at::Tensor& origins, const at::Tensor& points,
                               const at::Tensor& step, const at::Tensor& counters,
                               std::int64_t seed, std::int64_t count, std::string_view noise,
                               const std::optional<at::Tensor>& row_basis,
                               const std::optional<at::Tensor>& column_basis, std::int64_t channels,
                               double lower, double upper, at::ScalarType dtype);

Directions check_probe_gradient(const at::Tensor& decisions, const at::Tensor& criterion_class,
                                const at::Tensor& counters, std::int64_t seed,
                                std::string_view noise, const std::optional<at::Tensor>& row_basis,
                                const std::optional<at::Tensor>& column_basis,
                                std::int64_t channels, std::int64_t components);

SoftLabelSettings check_soft_labels(const at::Tensor& distances, const at::Tensor& predicted,
                                    std::string_view normalisation, double scale,
                                    double temperature);

[[noreturn]] void fail_distance(std::int64_t sample, std::int64_t target, float distance);

}  // namespace db3kd
