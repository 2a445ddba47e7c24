// The softmax of a lane's two rows over keys that come tile by tile. With s = scale q.k and n keys outside the window:
//   M0 = max(0, max_W s), c = e^-M0  (n = 0 or exclusive: M0 = max_W s, c = 0);  L = sum_W e^(s - M0) + n c
#pragma once

#include "block.cuh"

namespace diffrgen::cuda {

struct Softmax {
  // finite, so that the difference of two empty maxima is a number
  static constexpr float kLowest = -3.402823466e38f;
  float top[2], total[2], floor[2];
  int outside[2];

  __device__ Softmax(const Problem& p, int order, const LaneWindows& windows) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      outside[half] = p.exclusive ? 0 : outside_of(p, order, windows.at[half]);
      top[half] = outside[half] > 0 ? 0.0f : kLowest;
      total[half] = floor[half] = 0.0f;
    }
  }

  __device__ void add(const Accumulator& products, uint32_t inside, float scale) {
    const float before[2] = {top[0], top[1]};
#pragma unroll
    for (int e = 0; e < Accumulator::kElements; ++e)
      if (is_set(inside, e)) top[Accumulator::half(e)] = fmaxf(top[Accumulator::half(e)], scale * products.at[e]);
#pragma unroll
    for (int half = 0; half < 2; ++half) total[half] *= expf(before[half] - top[half]);
#pragma unroll
    for (int e = 0; e < Accumulator::kElements; ++e)
      if (is_set(inside, e)) total[Accumulator::half(e)] += expf(scale * products.at[e] - top[Accumulator::half(e)]);
  }

  // After the last tile: the four lanes of a row agree on M0, L and c.
  __device__ void finish() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float own = top[half];
      top[half] = max_of_row(own);
      total[half] = sum_of_row(total[half] * expf(own - top[half]));
      floor[half] = outside[half] > 0 ? expf(-top[half]) : 0.0f;
      total[half] += static_cast<float>(outside[half]) * floor[half];
    }
  }

  __device__ float lse(int half) const { return top[half] + logf(total[half]); }
};

}  // namespace diffrgen::cuda
