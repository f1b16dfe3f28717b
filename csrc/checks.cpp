#include "checks.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <sstream>
#include <string>

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
    TORCH_CHECK_VALUE(!__builtin_mul_overflow(total, size, &total), what,
                      ": expected sizes whose product is below 2^63, got ", at::IntArrayRef(sizes));
  }
  return total;
}

bool fits(at::IntArrayRef sizes, std::initializer_list<Dimension> shape) {
  if (sizes.size() != shape.size()) return false;
  std::size_t i = 0;
  for (const Dimension& dimension : shape) {
    if (dimension.size >= 0 && sizes[i] != dimension.size) return false;
    ++i;
  }
  return true;
}

std::string describe(std::initializer_list<Dimension> shape) {
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

// Names of dtypes as Python shows them ("float32"), not as ATen does ("Float").
std::string describe(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    case at::kLong:
      return "int64";
    case at::kInt:
      return "int32";
    default:
      return c10::toString(dtype);
  }
}

void check_positive(double value, const char* name) {
  TORCH_CHECK_VALUE(std::isfinite(value) && value > 0, name,
                    ": expected a finite number above 0, got ", value);
}

void check_not_negative(double value, const char* name) {
  TORCH_CHECK_VALUE(std::isfinite(value) && value >= 0, name,
                    ": expected a finite number of at least 0, got ", value);
}

void check_bounds(double lower, double upper) {
  TORCH_CHECK_VALUE(lower <= upper, "lower, upper: expected lower ≤ upper, got ", lower, " and ",
                    upper);
}

void check_query_dtype(at::ScalarType dtype) {
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16,
                   "dtype: expected float32, float16 or bfloat16, got ", describe(dtype));
}

// The number of elements from the first to the last in memory, both included. Strides can make it
// overflow; no storage can hold such a tensor.
std::int64_t reach(const at::Tensor& tensor) {
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

// The storage of a tensor may have been shrunk after the tensor was created.
bool storage_holds(const at::Tensor& tensor) {
  std::int64_t end;
  if (__builtin_add_overflow(tensor.storage_offset(), reach(tensor), &end)) return false;
  const auto held = tensor.storage().nbytes() / tensor.itemsize();
  return tensor.numel() == 0 || static_cast<std::uint64_t>(end) <= held;
}

struct Argument {
  const at::Tensor& tensor;
  const char* name;
};

bool share_memory(const at::Tensor& a, const at::Tensor& b) {
  if (a.numel() == 0 || b.numel() == 0 || a.device() != b.device()) return false;
  const auto* a_begin = static_cast<const char*>(a.const_data_ptr());
  const auto* b_begin = static_cast<const char*>(b.const_data_ptr());
  const std::less<const char*> before;
  return before(a_begin, b_begin + reach(b) * b.itemsize()) &&
         before(b_begin, a_begin + reach(a) * a.itemsize());
}

// Checks a tensor that an op updates in place: it must be contiguous and share no memory with
// another argument.
void check_state(std::initializer_list<Argument> state, std::initializer_list<Argument> others) {
  for (const Argument* updated = state.begin(); updated != state.end(); ++updated) {
    TORCH_CHECK_VALUE(updated->tensor.is_contiguous(), updated->name,
                      ": expected a contiguous tensor, since it is updated in place, got strides ",
                      updated->tensor.strides());
    const auto check = [&](const Argument& other) {
      TORCH_CHECK_VALUE(!share_memory(updated->tensor, other.tensor), updated->name, ", ",
                        other.name, ": expected tensors that share no memory, since ",
                        updated->name, " is updated in place");
    };
    std::for_each(updated + 1, state.end(), check);
    std::for_each(others.begin(), others.end(), check);
  }
}

Noise parse_noise(std::string_view noise) {
  if (noise == "rademacher") return Noise::kRademacher;
  if (noise == "gaussian") return Noise::kGaussian;
  TORCH_CHECK_VALUE(false, "noise: expected \"rademacher\" or \"gaussian\", got \"", noise, "\"");
}

Directions check_directions(const at::Tensor& counters, std::int64_t rows, c10::Device device,
                            std::int64_t seed, std::string_view noise,
                            const std::optional<at::Tensor>& row_basis,
                            const std::optional<at::Tensor>& column_basis, std::int64_t channels,
                            std::int64_t components) {
  check_tensor(counters, "counters", at::kLong, device, {{"P", rows}, {"3", 3}});
  TORCH_CHECK_VALUE(channels >= 1, "channels: expected at least 1, got ", channels);
  TORCH_CHECK_VALUE(components >= 1 && components <= kMaxComponents, "components: expected 1 to ",
                    kMaxComponents, ", got ", components);
  TORCH_CHECK_VALUE(row_basis.has_value() == column_basis.has_value(),
                    "row_basis, column_basis: expected both or neither, got only ",
                    row_basis.has_value() ? "row_basis" : "column_basis");
  Directions directions{parse_noise(noise), seed, channels, components, components, {}, {}};
  if (!row_basis.has_value()) return directions;

  check_tensor(*row_basis, "row_basis", at::kFloat, device, {{"h"}, {"H"}});
  check_tensor(*column_basis, "column_basis", at::kFloat, device, {{"w"}, {"W"}});
  TORCH_CHECK_VALUE(row_basis->size(0) >= 1 && column_basis->size(0) >= 1,
                    "row_basis, column_basis: expected at least one row each, got ",
                    row_basis->sizes(), " and ", column_basis->sizes());
  const std::int64_t described = checked_product(
      {channels, row_basis->size(1), column_basis->size(1)}, "channels, row_basis, column_basis");
  TORCH_CHECK_VALUE(components == described,
                    "row_basis, column_basis: expected channels·H·W = ", components,
                    " components, got ", channels, "·", row_basis->size(1), "·",
                    column_basis->size(1), " = ", described);
  directions.coefficients = checked_product({channels, row_basis->size(0), column_basis->size(0)},
                                            "channels, row_basis, column_basis");
  TORCH_CHECK_VALUE(directions.coefficients <= kMaxComponents,
                    "row_basis, column_basis: expected at most ", kMaxComponents,
                    " coefficients, got ", directions.coefficients);
  directions.row_basis = row_basis->contiguous();
  directions.column_basis = column_basis->contiguous();
  return directions;
}

}  // namespace

void check_tensor(const at::Tensor& tensor, const char* name, at::ScalarType dtype,
                  c10::Device device, std::initializer_list<Dimension> shape) {
  const auto message = [&] {
    return c10::str(name, ": expected ", describe(shape), " ", describe(dtype), " on ", device,
                    ", got ", tensor.sizes(), " ", describe(tensor.scalar_type()), " on ",
                    tensor.device());
  };
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype && tensor.device() == device, message());
  TORCH_CHECK_VALUE(fits(tensor.sizes(), shape), message());
  TORCH_CHECK_VALUE(storage_holds(tensor), name, ": expected a storage that holds all of ",
                    tensor.sizes(), ", got one of ", tensor.storage().nbytes(), " bytes");
}

void check_ray_lengths(const at::Tensor& samples, const at::Tensor& ends,
                       const at::Tensor& sample_of, const at::Tensor& end_of) {
  const c10::Device device = samples.device();
  check_tensor(samples, "samples", at::kFloat, device, {{"S"}, {"D"}});
  check_tensor(ends, "ends", at::kFloat, device, {{"E"}, {"D", samples.size(1)}});
  check_tensor(sample_of, "sample_of", at::kLong, device, {{"R"}});
  check_tensor(end_of, "end_of", at::kLong, device, {{"R", sample_of.size(0)}});
}

void check_bracket_queries(const at::Tensor& samples, const at::Tensor& ends,
                           const at::Tensor& sample_of, const at::Tensor& pair_of,
                           const at::Tensor& end_of, const at::Tensor& lengths,
                           const at::Tensor& radius, const at::Tensor& active, double lower,
                           double upper, at::ScalarType dtype) {
  const c10::Device device = samples.device();
  check_tensor(samples, "samples", at::kFloat, device, {{"S"}, {"D"}});
  check_tensor(ends, "ends", at::kFloat, device, {{"E"}, {"D", samples.size(1)}});
  check_tensor(sample_of, "sample_of", at::kLong, device, {{"P"}});
  check_tensor(pair_of, "pair_of", at::kLong, device, {{"R"}});
  check_tensor(end_of, "end_of", at::kLong, device, {{"R", pair_of.size(0)}});
  check_tensor(lengths, "lengths", at::kFloat, device, {{"R", pair_of.size(0)}});
  check_tensor(radius, "radius", at::kFloat, device, {{"P", sample_of.size(0)}});
  check_tensor(active, "active", at::kLong, device, {{"A"}});
  check_bounds(lower, upper);
  check_query_dtype(dtype);
}

void check_bracket_update(const at::Tensor& low, const at::Tensor& high, const at::Tensor& radius,
                          const at::Tensor& winner, const at::Tensor& active,
                          const at::Tensor& pair_of, const at::Tensor& decisions,
                          const at::Tensor& criterion_class, double absolute, double relative) {
  const c10::Device device = low.device();
  check_tensor(low, "low", at::kFloat, device, {{"P"}});
  check_tensor(high, "high", at::kFloat, device, {{"P", low.size(0)}});
  check_tensor(radius, "radius", at::kFloat, device, {{"P", low.size(0)}});
  check_tensor(winner, "winner", at::kLong, device, {{"P", low.size(0)}});
  check_tensor(active, "active", at::kLong, device, {{"A"}});
  check_tensor(pair_of, "pair_of", at::kLong, device, {{"R"}});
  check_tensor(decisions, "decisions", at::kLong, device, {{"A", active.size(0)}});
  check_tensor(criterion_class, "criterion_class", at::kLong, device, {{"P", low.size(0)}});
  check_state({{low, "low"}, {high, "high"}, {radius, "radius"}, {winner, "winner"}},
              {{active, "active"},
               {pair_of, "pair_of"},
               {decisions, "decisions"},
               {criterion_class, "criterion_class"}});
  check_not_negative(absolute, "absolute");
  check_not_negative(relative, "relative");
}

Directions check_probe_queries(const at::Tensor& origins, const at::Tensor& points,
                               const at::Tensor& step, const at::Tensor& counters,
                               std::int64_t seed, std::int64_t count, std::string_view noise,
                               const std::optional<at::Tensor>& row_basis,
                               const std::optional<at::Tensor>& column_basis, std::int64_t channels,
                               double lower, double upper, at::ScalarType dtype) {
  const c10::Device device = points.device();
  check_tensor(points, "points", at::kFloat, device, {{"P"}, {"D"}});
  check_tensor(origins, "origins", at::kFloat, device,
               {{"P", points.size(0)}, {"D", points.size(1)}});
  check_tensor(step, "step", at::kFloat, device, {{"P", points.size(0)}});
  TORCH_CHECK_VALUE(count >= 0 && count <= kMaxProbes, "count: expected 0 to ", kMaxProbes,
                    ", got ", count);
  checked_product({points.size(0), count, points.size(1)}, "points, count");
  check_bounds(lower, upper);
  check_query_dtype(dtype);
  return check_directions(counters, points.size(0), device, seed, noise, row_basis, column_basis,
                          channels, points.size(1));
}

Directions check_probe_gradient(const at::Tensor& decisions, const at::Tensor& criterion_class,
                                const at::Tensor& counters, std::int64_t seed,
                                std::string_view noise, const std::optional<at::Tensor>& row_basis,
                                const std::optional<at::Tensor>& column_basis,
                                std::int64_t channels, std::int64_t components) {
  const c10::Device device = decisions.device();
  check_tensor(decisions, "decisions", at::kLong, device, {{"P"}, {"K"}});
  check_tensor(criterion_class, "criterion_class", at::kLong, device, {{"P", decisions.size(0)}});
  TORCH_CHECK_VALUE(decisions.size(1) <= kMaxProbes, "decisions: expected at most ", kMaxProbes,
                    " probes a row, got ", decisions.size(1));
  const Directions directions = check_directions(counters, decisions.size(0), device, seed, noise,
                                                 row_basis, column_basis, channels, components);
  checked_product({decisions.size(0), components}, "decisions, components");
  checked_product({decisions.size(1), components}, "decisions, components");
  return directions;
}

SoftLabelSettings check_soft_labels(const at::Tensor& distances, const at::Tensor& predicted,
                                    std::string_view normalisation, double scale,
                                    double temperature) {
  const c10::Device device = distances.device();
  check_tensor(distances, "distances", at::kFloat, device, {{"N"}, {"C"}});
  check_tensor(predicted, "predicted", at::kLong, device, {{"N", distances.size(0)}});
  TORCH_CHECK_VALUE(normalisation == "inverse" || normalisation == "margin",
                    "normalisation: expected \"inverse\" or \"margin\", got \"", normalisation,
                    "\"");
  check_positive(scale, "scale");
  check_positive(temperature, "temperature");
  return {normalisation == "inverse" ? Normalisation::kInverse : Normalisation::kMargin, scale,
          temperature};
}

void fail_distance(std::int64_t sample, std::int64_t target, float distance) {
  TORCH_CHECK_VALUE(
      false, "distances: expected positive distances, +inf where a class was not reached, got ",
      distance, " in row ", sample, ", column ", target);
}

}  // namespace db3kd
