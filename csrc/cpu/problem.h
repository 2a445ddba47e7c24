// One call of the operator as the kernels see it: raw pointers, strides in elements, everything already checked.
#pragma once

#include <cstdint>

namespace diffrgen {

struct View {
  const void* data;
  int64_t batch, row, mask, head, dim;
};

// Half of a window: patches above (and below) and left (and right) of its centre. Where it covers the grid from every
// patch it is the whole grid.
struct WindowSize {
  int64_t height, width;
};

struct Problem {
  int64_t batches, rows, keys, heads, dim, masks;
  int64_t grid_height, grid_width, views;  // keys = views * grid_height * grid_width
  const WindowSize* windows;               // (P,)
  bool shared;                             // the masks share the projections: P-axis length 1 in q, k, v
  bool exclusive;                          // masked logits are -inf instead of 0
  double scale;
  int64_t heads_at_once;  // heads of one unit of work: their rows are adjacent in memory and are read together
  View q, k, v;           // (B, N or M, P or 1, H, D)
  const void* alpha;      // (B, P), or (B, N, P) where row_alpha; contiguous, in the dtype of the sums
  bool row_alpha;

  // Where windows lie round given centres: rows are worked on in the order of their centres. (B or 1, N) each, with the
  // distance of studies; null where row i's centre is i mod the patches of a view.
  const int64_t *centres, *row_order;
  int64_t centres_batch;

  // Where some keys do not exist, else null: (B, M), and for each study a table of (grid_height + 1) x (grid_width + 1)
  // whose entry y, x is the number of keys of all views that exist above y and left of x.
  const bool* key_mask;
  const int64_t* key_counts;

  void* lse;  // (B, N, P, H) in the dtype of the sums, or null in a forward whose masks with alpha = 0 need not run

  void* out;  // forward: (B, N, H, D)

  View grad;           // backward: (B, N, H, D); its mask stride is not used
  void *dq, *dk, *dv;  // contiguous, as q, k, v
  double* dalpha;      // each head's share: (B, P, H), or (B, P, H, N) where row_alpha
  bool past_caches;    // the gradients are larger than the caches

  int64_t patches() const { return grid_height * grid_width; }
  int64_t counts_size() const { return (grid_height + 1) * (grid_width + 1); }
};

// Kernel: computes the units [begin, end) of a problem; unit i is group i % groups of the heads of study i / groups,
// with groups = ceil(heads / heads_at_once).
using Kernel = void (*)(const Problem&, int64_t begin, int64_t end);

struct Kernels {
  Kernel forward, backward;
};

}  // namespace diffrgen
