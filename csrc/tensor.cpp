#include "tensor.h"

#include <sstream>
#include <stdexcept>

#include "errors.h"

namespace db3kd {

std::string describe(Sizes sizes) {
  std::ostringstream text;
  text << "[";
  for (std::size_t i = 0; i < sizes.size(); ++i) text << (i > 0 ? ", " : "") << sizes[i];
  text << "]";
  return text.str();
}

std::string describe(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Int:
      return "int32";
    default:
      return torch::headeronly::toString(dtype);
  }
}

std::string describe(const Device& device) {
  const auto name = [&]() -> std::string {
    if (device.is_cpu()) return "cpu";
    if (device.is_cuda()) return "cuda";
    return "a device of another kind";
  }();
  return device.is_cuda() && device.has_index() ? name + ":" + std::to_string(device.index())
                                                : name;
}

Tensor make_empty(const std::vector<std::int64_t>& sizes, ScalarType dtype, const Device& device) {
  try {
    return torch::stable::empty(sizes, dtype, std::nullopt, device);
  } catch (const std::exception&) {
    // Sizes and dtype have been checked, and torch's own words do not cross the stable ABI.
    DB3KD_CHECK(OutOfMemoryError, false, "expected memory for ", describe(Sizes(sizes)), " ",
                describe(dtype), " on ", describe(device), ", got none; use smaller batches");
  }
}

Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

Tensor as_dtype(const Tensor& tensor, ScalarType dtype) {
  return tensor.scalar_type() == dtype ? tensor : torch::stable::to(tensor, dtype);
}

}  // namespace db3kd
