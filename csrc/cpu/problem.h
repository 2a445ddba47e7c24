// One call of the operator as the kernels see it: raw pointers, strides in elements, everything already checked.
#pragma once

#include <cstdint>

namespace diffrgen {

struct View {
  const void* data;
  int64_t batch, row, mask, head, dim;
};

struct Problem {
  int64_t batches, rows, patches, heads, dim, masks;
  int64_t grid_height, grid_width;
  const int64_t* orders;  // (P,)
  bool shared;            // the masks share the projections: P-axis length 1 in q, k, v
  bool exclusive;         // masked logits are -inf instead of 0
  double scale;
  int64_t heads_at_once;  // heads of one unit of work: their rows are adjacent in memory and are read together
  View q, k, v;           // (B, N or M, P or 1, H, D)
  const void* alpha;      // (B, P), contiguous, in the dtype of the sums

  void* lse;  // (B, N, P, H) in the dtype of the sums, or null in a forward whose masks with alpha = 0 need not run

  void* out;  // forward: (B, N, H, D)

  View grad;           // backward: (B, N, H, D); its mask stride is not used
  void *dq, *dk, *dv;  // contiguous, as q, k, v
  double* dalpha;      // (B, P, H): each head's share
  bool past_caches;    // the gradients are larger than the caches
};

// Kernel: computes the units [begin, end) of a problem; unit i is group i % groups of the heads of study i / groups,
// with groups = ceil(heads / heads_at_once).
using Kernel = void (*)(const Problem&, int64_t begin, int64_t end);

struct Kernels {
  Kernel forward, backward;
};

}  // namespace diffrgen
