#include <pybind11/pybind11.h>
#include <torch/headeronly/version.h>

#include <string>

#include "cpu/result_memory.h"

#if defined(DB3KD_CUDA)
#include <cuda.h>
#endif

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

std::string torch_minimum() {
  constexpr unsigned long long target = TORCH_TARGET_VERSION;
  return std::to_string(target >> 56) + "." + std::to_string(target >> 48 & 0xff);
}

py::dict build_config() {
#if defined(DB3KD_CUDA)
  const py::object cuda_version =
      py::str(std::to_string(CUDA_VERSION / 1000) + "." + std::to_string(CUDA_VERSION % 1000 / 10));
  const py::object architectures = py::str(DB3KD_ARCHITECTURES);
  const bool cuda = true;
#else
  const py::object cuda_version = py::none();
  const py::object architectures = py::none();
  const bool cuda = false;
#endif
#if defined(__SANITIZE_ADDRESS__)
  const bool sanitizers = true;
#else
  const bool sanitizers = false;
#endif
  return py::dict("cuda"_a = cuda, "cuda_version"_a = cuda_version,
                  "architectures"_a = architectures, "torch_version"_a = TORCH_VERSION,
                  "torch_minimum"_a = torch_minimum(), "compiler"_a = compiler(),
                  "sanitizers"_a = sanitizers);
}

}  // namespace

// The ops register themselves when this module is loaded; see ops.cpp.
PYBIND11_MODULE(_C, module) {
  module.doc() = "Native ops of db3kd.";
  module.def("build_config", &build_config,
             "How this extension was built; db3kd/ops/extension.py describes the keys.");
  module.def("keep_result_memory", &db3kd::cpu::keep_result_memory, "bytes"_a,
             "Sets how much memory of results is kept; see db3kd/ops/extension.py.");
}
