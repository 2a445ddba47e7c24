// One call of the operator as the CUDA kernels see it: raw pointers, strides in elements, everything already checked.
#pragma once

#include <cstdint>

namespace diffrgen::cuda {

constexpr int kMaxMasks = 64;

enum class Dtype { float32, float16, bfloat16 };

// Element (b, row, mask, head, d) is data[b * batch + row * row_stride + ...]; `vectors`: rows can be read by 16 bytes.
struct View {
  const void* data;
  int64_t batch, row, mask, head, dim;
  bool vectors;
};

// What backward knows of a query row under a mask: P = exp(s - lse) * inverse inside its window, u = outside for every
// key outside, and delta = sum_l (weight of key l) (g . v_l).
struct alignas(16) RowStatistics {
  float lse, inverse, outside, delta;
};

struct Problem {
  int batches, rows, patches, heads, dim, masks;
  int grid_height, grid_width;
  int orders[kMaxMasks];  // 0 where every window is the whole grid
  int own_masks;          // length of the P-axis of q, k, v: 1 where the masks share the projections
  bool exclusive;         // masked logits are -inf instead of 0
  bool skip_zero;         // a mask with alpha = 0 need not run
  float scale;
  View q, k, v;  // (B, N or M, own masks, H, D)
  const float* alpha;
  int64_t alpha_batch, alpha_mask;  // strides of alpha (B, P)
  float* value_sums;                // (B, own masks, H, D): sum of v over the keys; null if no key is ever outside

  void* out;   // forward: (B, N, H, D)
  float* lse;  // (B, N, P, H): written by forward unless null, read by backward

  View grad;                  // backward: (B, N, H, D); its mask stride is 0
  void *dq, *dk, *dv;         // contiguous, as q, k, v
  float* dalpha;              // (B, P)
  RowStatistics* statistics;  // (B, N, P, H)
  float* grad_sums;           // (B, P, H, D): sum of u g over the rows; null as value_sums
};

inline bool reads_vectors(const View& view, int dim, int element_bytes) {
  const int64_t length = 16 / element_bytes;
  const int64_t steps[] = {view.batch, view.row, view.mask, view.head, dim};
  bool aligned = reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.dim == 1;
  for (const int64_t step : steps) aligned = aligned && step % length == 0;
  return aligned;
}

// The order of windows of a half height and width, which are squares or cover the whole grid: 0 where they cover it.
inline int order_on_grid(int64_t height, int64_t width, const Problem& p) {
  return height >= p.grid_height - 1 && width >= p.grid_width - 1 ? 0 : static_cast<int>(height);
}

inline bool any_key_outside(const Problem& p) {
  bool windowed = false;
  for (int j = 0; j < p.masks; ++j) windowed = windowed || p.orders[j] > 0;
  return windowed && !p.exclusive;
}

}  // namespace diffrgen::cuda
