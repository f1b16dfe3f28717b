#include "checks.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <sstream>
#include <string>

#include "errors.h"

namespace db3kd {
namespace {

// The number of a probe is one word of its counter.
constexpr std::int64_t kMaxProbes = std::int64_t{1} << 32;
// The number of a Philox block is another word, and one block of normal numbers yields four
// components.
constexpr std::int64_t kMaxComponents = std::int64_t{4} << 32;

// The product of non-negative sizes, checked for overflow. Every size that an op computes from its
// arguments comes from here or is at most the size of a tensor.
std::int64_t checked_product(std::initializer_list<std::int64_t> sizes, const char* what) {
  std::int64_t total = 1;
  for (const std::int64_t size : sizes) {
    DB3KD_CHECK(ValueError, !__builtin_mul_overflow(total, size, &total), what,
                ": expected sizes whose product is below 2^63, got ",
                describe(Sizes(sizes.begin(), sizes.size())));
  }
  return total;
}

bool fits(Sizes sizes, std::initializer_list<Dimension> shape) {
  if (sizes.size() != shape.size()) return false;
  std::size_t i = 0;
  for (const Dimension& dimension : shape) {
    if (dimension.size >= 0 && sizes[i] != dimension.size) return false;
    ++i;
  }
  return true;
}

std::string describe_shape(std::initializer_list<Dimension> shape) {
  std::ostringstream text;
  const char* separator = "[";
  for (const Dimension& dimension : shape) {
    text << separator << dimension.name;
    if (dimension.size >= 0) text << "=" << dimension.size;
    separator = ", ";
  }
  text << "]";
  return text.str();
}

void check_positive(double value, const char* name) {
  DB3KD_CHECK(ValueError, std::isfinite(value) && value > 0, name,
              ": expected a finite number above 0, got ", value);
}

void check_not_negative(double value, const char* name) {
  DB3KD_CHECK(ValueError, std::isfinite(value) && value >= 0, name,
              ": expected a finite number of at least 0, got ", value);
}

void check_bounds(double lower, double upper) {
  DB3KD_CHECK(ValueError, lower <= upper, "lower, upper: expected lower ≤ upper, got ", lower,
              " and ", upper);
}

void check_query_dtype(ScalarType dtype) {
  DB3KD_CHECK(
      TypeError,
      dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16,
      "dtype: expected float32, float16 or bfloat16, got ", describe(dtype));
}

// The number of elements from the first to the last in memory, both included. Strides can make it
// overflow; no storage can hold such a tensor.
std::int64_t reach(const Tensor& tensor) {
  if (tensor.numel() == 0) return 0;
  std::int64_t total = 1;
  for (std::int64_t d = 0; d < tensor.dim(); ++d) {
    std::int64_t along;
    if (__builtin_mul_overflow(tensor.size(d) - 1, tensor.stride(d), &along) ||
        __builtin_add_overflow(total, along, &total)) {
      return std::numeric_limits<std::int64_t>::max();
    }
  }
  return total;
}

std::int64_t element_size(const Tensor& tensor) {
  return static_cast<std::int64_t>(tensor.element_size());
}

std::int64_t storage_bytes(const Tensor& tensor) {
  std::int64_t bytes = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
  return bytes;
}

// The storage of a tensor may have been shrunk after the tensor was created.
bool storage_holds(const Tensor& tensor) {
  std::int64_t end;
  if (__builtin_add_overflow(tensor.storage_offset(), reach(tensor), &end)) return false;
  return tensor.numel() == 0 || end <= storage_bytes(tensor) / element_size(tensor);
}

struct Argument {
  const Tensor& tensor;
  const char* name;
};

bool share_memory(const Tensor& a, const Tensor& b) {
  if (a.numel() == 0 || b.numel() == 0 || a.device() != b.device()) return false;
  const auto* a_begin = static_cast<const char*>(a.const_data_ptr());
  const auto* b_begin = static_cast<const char*>(b.const_data_ptr());
  const std::less<const char*> before;
  return before(a_begin, b_begin + reach(b) * element_size(b)) &&
         before(b_begin, a_begin + reach(a) * element_size(a));
}

// Checks a tensor that an op updates in place: it must be contiguous and share no memory with
// another argument.
void check_state(std::initializer_list<Argument> state, std::initializer_list<Argument> others) {
  for (const Argument* updated = state.begin(); updated != state.end(); ++updated) {
    DB3KD_CHECK(ValueError, updated->tensor.is_contiguous(), updated->name,
                ": expected a contiguous tensor, since it is updated in place, got strides ",
                describe(updated->tensor.strides()));
    const auto check = [&](const Argument& other) {
      DB3KD_CHECK(ValueError, !share_memory(updated->tensor, other.tensor), updated->name, ", ",
                  other.name, ": expected tensors that share no memory, since ", updated->name,
                  " is updated in place");
    };
    std::for_each(updated + 1, state.end(), check);
    std::for_each(others.begin(), others.end(), check);
  }
}

void check_pair_rays(const Tensor& samples, const Tensor& ends, const Tensor& sample_of,
                     const Tensor& pair_of, const Tensor& end_of, const Tensor& lengths,
                     const Tensor& radius, const Tensor& active) {
  const Device device = samples.device();
  check_tensor(samples, "samples", ScalarType::Float, device, {{"S"}, {"D"}});
  check_tensor(ends, "ends", ScalarType::Float, device, {{"E"}, {"D", samples.size(1)}});
  check_tensor(sample_of, "sample_of", ScalarType::Long, device, {{"P"}});
  check_tensor(pair_of, "pair_of", ScalarType::Long, device, {{"R"}});
  check_tensor(end_of, "end_of", ScalarType::Long, device, {{"R", pair_of.size(0)}});
  check_tensor(lengths, "lengths", ScalarType::Float, device, {{"R", pair_of.size(0)}});
  check_tensor(radius, "radius", ScalarType::Float, device, {{"P", sample_of.size(0)}});
  check_tensor(active, "active", ScalarType::Long, device, {{"A"}});
}

Noise parse_noise(const std::string& noise) {
  if (noise == "rademacher") return Noise::kRademacher;
  if (noise == "gaussian") return Noise::kGaussian;
  DB3KD_CHECK(ValueError, false, "noise: expected \"rademacher\" or \"gaussian\", got \"", noise,
              "\"");
}

Directions check_directions(const Tensor& counters, std::int64_t rows, Device device,
                            std::int64_t seed, const std::string& noise,
                            const std::optional<Tensor>& row_basis,
                            const std::optional<Tensor>& column_basis, std::int64_t channels,
                            std::int64_t components) {
  check_tensor(counters, "counters", ScalarType::Long, device, {{"P", rows}, {"3", 3}});
  DB3KD_CHECK(ValueError, channels >= 1, "channels: expected at least 1, got ", channels);
  DB3KD_CHECK(ValueError, components >= 1 && components <= kMaxComponents,
              "components: expected 1 to ", kMaxComponents, ", got ", components);
  DB3KD_CHECK(ValueError, row_basis.has_value() == column_basis.has_value(),
              "row_basis, column_basis: expected both or neither, got only ",
              row_basis.has_value() ? "row_basis" : "column_basis");
  Directions directions{parse_noise(noise), seed, channels, components, components, {}, {}};
  if (!row_basis.has_value()) return directions;

  check_tensor(*row_basis, "row_basis", ScalarType::Float, device, {{"h"}, {"H"}});
  check_tensor(*column_basis, "column_basis", ScalarType::Float, device, {{"w"}, {"W"}});
  DB3KD_CHECK(ValueError, row_basis->size(0) >= 1 && column_basis->size(0) >= 1,
              "row_basis, column_basis: expected at least one row each, got ",
              describe(row_basis->sizes()), " and ", describe(column_basis->sizes()));
  const std::int64_t described = checked_product(
      {channels, row_basis->size(1), column_basis->size(1)}, "channels, row_basis, column_basis");
  DB3KD_CHECK(ValueError, components == described,
              "row_basis, column_basis: expected channels·H·W = ", components, " components, got ",
              channels, "·", row_basis->size(1), "·", column_basis->size(1), " = ", described);
  directions.coefficients = checked_product({channels, row_basis->size(0), column_basis->size(0)},
                                            "channels, row_basis, column_basis");
  DB3KD_CHECK(ValueError, directions.coefficients <= kMaxComponents,
              "row_basis, column_basis: expected at most ", kMaxComponents, " coefficients, got ",
              directions.coefficients);
  directions.row_basis = as_contiguous(*row_basis);
  directions.column_basis = as_contiguous(*column_basis);
  return directions;
}

}  // namespace

void check_tensor(const Tensor& tensor, const char* name, ScalarType dtype, Device device,
                  std::initializer_list<Dimension> shape) {
  const auto mismatch = [&] {
    return std::string(name) + ": expected " + describe_shape(shape) + " " + describe(dtype) +
           " on " + describe(device) + ", got " + describe(tensor.sizes()) + " " +
           describe(tensor.scalar_type()) + " on " + describe(tensor.device());
  };
  DB3KD_CHECK(TypeError, tensor.scalar_type() == dtype && tensor.device() == device, mismatch());
  DB3KD_CHECK(ValueError, fits(tensor.sizes(), shape), mismatch());
  DB3KD_CHECK(ValueError, storage_holds(tensor), name, ": expected a storage that holds all of ",
              describe(tensor.sizes()), ", got one of ", storage_bytes(tensor), " bytes");
}

void check_ray_lengths(const Tensor& samples, const Tensor& ends, const Tensor& sample_of,
                       const Tensor& end_of) {
  const Device device = samples.device();
  check_tensor(samples, "samples", ScalarType::Float, device, {{"S"}, {"D"}});
  check_tensor(ends, "ends", ScalarType::Float, device, {{"E"}, {"D", samples.size(1)}});
  check_tensor(sample_of, "sample_of", ScalarType::Long, device, {{"R"}});
  check_tensor(end_of, "end_of", ScalarType::Long, device, {{"R", sample_of.size(0)}});
}

void check_bracket_queries(const Tensor& samples, const Tensor& ends, const Tensor& sample_of,
                           const Tensor& pair_of, const Tensor& end_of, const Tensor& lengths,
                           const Tensor& radius, const Tensor& active, double lower, double upper,
                           ScalarType dtype) {
  check_pair_rays(samples, ends, sample_of, pair_of, end_of, lengths, radius, active);
  check_bounds(lower, upper);
  check_query_dtype(dtype);
}

void check_bracket_step(const Tensor& low, const Tensor& high, const Tensor& radius,
                        const Tensor& winner, const Tensor& active, const Tensor& decisions,
                        const Tensor& samples, const Tensor& ends, const Tensor& sample_of,
                        const Tensor& pair_of, const Tensor& end_of, const Tensor& lengths,
                        const Tensor& criterion_class, double absolute, double relative,
                        double lower, double upper, std::int64_t limit) {
  const Device device = samples.device();
  check_pair_rays(samples, ends, sample_of, pair_of, end_of, lengths, radius, active);
  check_tensor(low, "low", ScalarType::Float, device, {{"P", sample_of.size(0)}});
  check_tensor(high, "high", ScalarType::Float, device, {{"P", sample_of.size(0)}});
  check_tensor(winner, "winner", ScalarType::Long, device, {{"P", sample_of.size(0)}});
  check_tensor(decisions, "decisions", ScalarType::Long, device, {{"A", active.size(0)}});
  check_tensor(criterion_class, "criterion_class", ScalarType::Long, device,
               {{"P", sample_of.size(0)}});
  check_state({{low, "low"}, {high, "high"}, {radius, "radius"}, {winner, "winner"}},
              {{active, "active"},
               {decisions, "decisions"},
               {samples, "samples"},
               {ends, "ends"},
               {sample_of, "sample_of"},
               {pair_of, "pair_of"},
               {end_of, "end_of"},
               {lengths, "lengths"},
               {criterion_class, "criterion_class"}});
  check_not_negative(absolute, "absolute");
  check_not_negative(relative, "relative");
  check_bounds(lower, upper);
  DB3KD_CHECK(ValueError, limit >= 0, "limit: expected at least 0 queries, got ", limit);
}

void fail_order(std::int64_t row) {
  DB3KD_CHECK(ValueError, false,
              "active: expected the rays in the order of their pairs, got one of an earlier pair "
              "at ",
              row);
}

Directions check_probe_queries(const Tensor& origins, const Tensor& points, const Tensor& step,
                               const Tensor& counters, std::int64_t seed, std::int64_t count,
                               const std::string& noise, const std::optional<Tensor>& row_basis,
                               const std::optional<Tensor>& column_basis, std::int64_t channels,
                               double lower, double upper, ScalarType dtype) {
  const Device device = points.device();
  check_tensor(points, "points", ScalarType::Float, device, {{"P"}, {"D"}});
  check_tensor(origins, "origins", ScalarType::Float, device,
               {{"P", points.size(0)}, {"D", points.size(1)}});
  check_tensor(step, "step", ScalarType::Float, device, {{"P", points.size(0)}});
  DB3KD_CHECK(ValueError, count >= 0 && count <= kMaxProbes, "count: expected 0 to ", kMaxProbes,
              ", got ", count);
  checked_product({points.size(0), count, points.size(1)}, "points, count");
  check_bounds(lower, upper);
  check_query_dtype(dtype);
  return check_directions(counters, points.size(0), device, seed, noise, row_basis, column_basis,
                          channels, points.size(1));
}

Directions check_probe_gradient(const Tensor& decisions, const Tensor& criterion_class,
                                const Tensor& counters, std::int64_t seed, const std::string& noise,
                                const std::optional<Tensor>& row_basis,
                                const std::optional<Tensor>& column_basis, std::int64_t channels,
                                std::int64_t components) {
  const Device device = decisions.device();
  check_tensor(decisions, "decisions", ScalarType::Long, device, {{"P"}, {"K"}});
  check_tensor(criterion_class, "criterion_class", ScalarType::Long, device,
               {{"P", decisions.size(0)}});
  DB3KD_CHECK(ValueError, decisions.size(1) <= kMaxProbes, "decisions: expected at most ",
              kMaxProbes, " probes a row, got ", decisions.size(1));
  const Directions directions = check_directions(counters, decisions.size(0), device, seed, noise,
                                                 row_basis, column_basis, channels, components);
  checked_product({decisions.size(0), components}, "decisions, components");
  checked_product({decisions.size(1), components}, "decisions, components");
  return directions;
}

SoftLabelSettings check_soft_labels(const Tensor& distances, const Tensor& predicted,
                                    const std::string& normalisation, double scale,
                                    double temperature) {
  const Device device = distances.device();
  check_tensor(distances, "distances", ScalarType::Float, device, {{"N"}, {"C"}});
  check_tensor(predicted, "predicted", ScalarType::Long, device, {{"N", distances.size(0)}});
  DB3KD_CHECK(ValueError, normalisation == "inverse" || normalisation == "margin",
              "normalisation: expected \"inverse\" or \"margin\", got \"", normalisation, "\"");
  check_positive(scale, "scale");
  check_positive(temperature, "temperature");
  return {normalisation == "inverse" ? Normalisation::kInverse : Normalisation::kMargin, scale,
          temperature};
}

void fail_distance(std::int64_t sample, std::int64_t target, float distance) {
  DB3KD_CHECK(ValueError, false,
              "distances: expected positive distances, +inf where a class was not reached, got ",
              distance, " in row ", sample, ", column ", target);
}

}  // namespace db3kd
