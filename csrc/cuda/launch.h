// The kernels in the order in which a call launches them.
#pragma once

#include "device.cuh"

namespace diffrgen::cuda {

// value_sums
void sum_values(const Problem& p, Dtype dtype, Stream stream);
// out, lse
void attend(const Problem& p, Dtype dtype, Stream stream);
// dq, statistics
void differentiate_queries(const Problem& p, Dtype dtype, Stream stream);
// grad_sums
void sum_grads(const Problem& p, Dtype dtype, Stream stream);
// dk, dv
void differentiate_keys(const Problem& p, Dtype dtype, Stream stream);
// dalpha
void differentiate_alpha(const Problem& p, Stream stream);

inline void forward(const Problem& p, Dtype dtype, Stream stream) {
  if (p.value_sums != nullptr) sum_values(p, dtype, stream);
  attend(p, dtype, stream);
}

inline void backward(const Problem& p, Dtype dtype, Stream stream) {
  if (p.value_sums != nullptr) sum_values(p, dtype, stream);
  differentiate_queries(p, dtype, stream);
  if (p.grad_sums != nullptr) sum_grads(p, dtype, stream);
  differentiate_keys(p, dtype, stream);
  differentiate_alpha(p, stream);
}

template <class Run>
void for_dtype(Dtype dtype, Run run) {
  switch (dtype) {
    case Dtype::float32: return run(0.0f);
    case Dtype::float16: return run(c10::Half());
    case Dtype::bfloat16: return run(c10::BFloat16());
  }
}

}  // namespace diffrgen::cuda
