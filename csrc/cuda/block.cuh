// The part of a call that one block computes: 64 rows (queries, or keys in backward_keys.cu) of one study and head, and
// 64 of the D columns of what it writes.
#pragma once

#include "product.cuh"
#include "windows.cuh"

namespace diffrgen::cuda {

struct Block {
  int batch, head, mask, first, rows, first_column, columns;

  // Of `rows` rows in all; `masks` blocks for the masks.
  __device__ Block(const Problem& p, int all_rows, int masks) {
    const int tiles = (all_rows + kSide - 1) / kSide, chunks = (p.dim + kSide - 1) / kSide;
    int number = static_cast<int>(blockIdx.x);
    first = number % tiles * kSide, number /= tiles;
    first_column = number % chunks * kSide, number /= chunks;
    mask = number % masks, number /= masks;
    head = number % p.heads, batch = number / p.heads;
    rows = min(kSide, all_rows - first);
    columns = min(kSide, p.dim - first_column);
  }

  static int64_t count(const Problem& p, int all_rows, int masks) {
    const int64_t tiles = (all_rows + kSide - 1) / kSide, chunks = (p.dim + kSide - 1) / kSide;
    return tiles * chunks * masks * p.heads * p.batches;
  }

  __device__ bool warp_works() const { return first_row_of_warp() < rows; }

  __device__ float alpha(const Problem& p, int j) const {
    return p.alpha[batch * p.alpha_batch + j * p.alpha_mask];
  }

  // Index of (batch, row, mask, head) in a contiguous (B, rows, masks, H).
  __device__ int64_t index(const Problem& p, int row, int all_rows, int mask_number, int masks) const {
    return ((static_cast<int64_t>(batch) * all_rows + row) * masks + mask_number) * p.heads + head;
  }

  // The D-vector of this study, head and a mask in a contiguous (B, masks, H, D), from the block's first column on.
  __device__ const float* vector(const Problem& p, const float* data, int mask_number, int masks) const {
    return data + ((static_cast<int64_t>(batch) * masks + mask_number) * p.heads + head) * p.dim + first_column;
  }
};

// The patches of the lane's two rows, of which the block has `rows` from `first` on, and their windows under a mask.
// Being in one another's window is symmetric: the rows are queries and the columns keys, or the other way round.
struct LaneWindows {
  Position at[2];
  int reach;

  __device__ LaneWindows(const Problem& p, int order, int first, int rows) : reach(order == 0 ? kWholeGrid : order) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = Accumulator::row(half);
      at[half] = row < rows ? position_of(p, first + row) : Position{-kFar, -kFar};
    }
  }

  // Bit e: the column of the accumulator's element e is inside the window of its row.
  __device__ uint32_t holds(const Position* columns) const {
    uint32_t bits = 0;
#pragma unroll
    for (int e = 0; e < Accumulator::kElements; ++e)
      bits |= static_cast<uint32_t>(distance(at[Accumulator::half(e)], columns[Accumulator::column(e)]) <= reach) << e;
    return in_one_register(bits);
  }
};

__device__ inline bool is_set(uint32_t bits, int e) { return bits >> e & 1; }

// Positions of a tile's columns: `count` rows or keys from `first` on, then padding.
__device__ inline void set_positions(const Problem& p, Position* positions, int first, int count) {
  const int i = threadIdx.x;
  if (i < kSide) positions[i] = i < count ? position_of(p, first + i) : Position{kFar, kFar};
}

// Over the four lanes that share a row.
__device__ inline float sum_of_row(float value) {
  value += exchange(value, 1);
  return value + exchange(value, 2);
}

__device__ inline float max_of_row(float value) {
  value = fmaxf(value, exchange(value, 1));
  return fmaxf(value, exchange(value, 2));
}

}  // namespace diffrgen::cuda
