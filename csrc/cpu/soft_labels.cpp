#include <torch/csrc/stable/library.h>

#include <vector>

#include "../checks.h"
#include "../core/soft_label.h"
#include "../errors.h"
#include "../tensor.h"
#include "loops.h"

namespace db3kd::cpu {
namespace {

void check_distances(const float* distances, std::int64_t classes, std::int64_t predicted,
                     std::int64_t sample) {
  for (std::int64_t m = 0; m < classes; ++m) {
    if (m != predicted && !is_distance(distances[m])) fail_distance(sample, m, distances[m]);
  }
}

// weights: space for `classes` numbers, so that each exponential is computed once.
void soft_label(const float* distances, std::int64_t classes, std::int64_t predicted,
                const SoftLabelSettings& settings, double* weights, float* label) {
  const double largest = predicted_logit(distances, classes, predicted, settings);
  weights[predicted] = 1.0;
  double total = 1.0;
  for (std::int64_t m = 0; m < classes; ++m) {
    if (m == predicted) continue;
    weights[m] = relative_weight(distances[m], largest, settings);
    total += weights[m];
  }
  for (std::int64_t m = 0; m < classes; ++m) label[m] = static_cast<float>(weights[m] / total);
}

Tensor soft_labels(const Tensor& distances, const Tensor& predicted,
                   const std::string& normalisation, double scale, double temperature) {
  const SoftLabelSettings settings =
      check_soft_labels(distances, predicted, normalisation, scale, temperature);
  const std::int64_t classes = distances.size(1);
  Tensor labels = make_empty({distances.size(0), classes}, ScalarType::Float, distances.device());

  const Contiguous<float> distance_data(distances);
  const Contiguous<std::int64_t> predicted_data(predicted);
  float* out = labels.mutable_data_ptr<float>();
  parallel_rows(
      distances.size(0), rows_per_task(classes), [&](std::int64_t begin, std::int64_t end) {
        std::vector<double> weights(classes);
        for (std::int64_t sample = begin; sample < end; ++sample) {
          const std::int64_t predicted_column =
              checked_index(predicted_data, sample, classes, "predicted");
          check_distances(distance_data + sample * classes, classes, predicted_column, sample);
          soft_label(distance_data + sample * classes, classes, predicted_column, settings,
                     weights.data(), out + sample * classes);
        }
      });
  return labels;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(db3kd, CPU, library) {
  library.impl("soft_labels", TORCH_BOX(soft_labels));
}

}  // namespace db3kd::cpu
