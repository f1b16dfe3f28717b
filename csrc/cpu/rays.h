#pragma once

#include "../tensor.h"

namespace db3kd::cpu {

// The rays of pairs, with shapes and dtypes that have been checked; see bracket_queries.
struct PairRays {
  Contiguous<float> samples, ends;
  Contiguous<std::int64_t> sample_of, pair_of, end_of;
  Contiguous<float> lengths;
  std::int64_t sample_count, end_count, pair_count, ray_count, size;

  PairRays(const Tensor& samples, const Tensor& ends, const Tensor& sample_of,
           const Tensor& pair_of, const Tensor& end_of, const Tensor& lengths)
      : samples(samples),
        ends(ends),
        sample_of(sample_of),
        pair_of(pair_of),
        end_of(end_of),
        lengths(lengths),
        sample_count(samples.size(0)),
        end_count(ends.size(0)),
        pair_count(sample_of.size(0)),
        ray_count(pair_of.size(0)),
        size(samples.size(1)) {}
};

// Writes the query of each of the first rays in `active`, at the radius of its pair, into the rows
// of `queries` [rows, size] float32.
void write_queries(const PairRays& rays, const float* radius, const std::int64_t* active,
                   double lower, double upper, const Tensor& queries);

}  // namespace db3kd::cpu
