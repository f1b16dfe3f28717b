#include <torch/csrc/stable/library.h>

// The schemas of all native ops; db3kd/ops/ documents each op.
STABLE_TORCH_LIBRARY(db3kd, library) {
  library.def(
      "ray_lengths(Tensor samples, Tensor ends, Tensor sample_of, Tensor end_of) -> Tensor");
  library.def(
      "bracket_queries(Tensor samples, Tensor ends, Tensor sample_of, Tensor pair_of, Tensor "
      "end_of, "
      "Tensor lengths, Tensor radius, Tensor active, float lower, float upper, ScalarType dtype) "
      "-> Tensor");
  library.def(
      "bracket_step(Tensor(a!) low, Tensor(b!) high, Tensor(c!) radius, Tensor(d!) winner, "
      "Tensor active, Tensor decisions, Tensor samples, Tensor ends, Tensor sample_of, "
      "Tensor pair_of, Tensor end_of, Tensor lengths, Tensor criterion_class, bool targeted, "
      "float absolute, float relative, float lower, float upper, int limit) "
      "-> (Tensor, Tensor, Tensor)");
  library.def(
      "probe_queries(Tensor origins, Tensor points, Tensor step, Tensor counters, int seed, int "
      "count, str noise, Tensor? row_basis, Tensor? column_basis, int channels, float lower, float "
      "upper, ScalarType dtype) -> Tensor");
  library.def(
      "probe_gradient(Tensor decisions, Tensor criterion_class, bool targeted, Tensor counters, "
      "int seed, "
      "str noise, Tensor? row_basis, Tensor? column_basis, int channels, int components) -> "
      "Tensor");
  library.def(
      "soft_labels(Tensor distances, Tensor predicted, str normalisation, float scale, float "
      "temperature) "
      "-> Tensor");
}
