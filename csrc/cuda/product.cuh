// Products of tiles. A warp computes 16 x 64 elements, on tensor cores for the 16-bit types and by fused multiply-adds
// for float32; the sums are float32, in the one layout of PTX's mma.m16n8k16.
#pragma once

#include "tile.cuh"

namespace diffrgen::cuda {

// Element e of a lane is row (l / 4) + 8 half(e), column 8 (e / 4) + 2 (l % 4) + e % 2 of the warp's 16 x 64.
struct Accumulator {
  static constexpr int kElements = 32;
  float at[kElements];

  __device__ static constexpr int half(int e) { return e / 2 % 2; }
  __device__ static int row(int half) { return first_row_of_warp() + lane() / 4 + 8 * half; }
  __device__ static int column(int e) { return e / 4 * 8 + lane() % 4 * 2 + e % 2; }
};

// On tensor cores; `of_rows`: b^T instead of b.
template <bool of_rows, class T>
__device__ void add_on_tensor_cores(Accumulator& c, const Tile<T>& a, const Tile<T>& b, int depth, int columns) {
  const int half = lane() / 16 * 8;
  const T* a_row = a.row(first_row_of_warp() + lane() % 16) + half;
  const T* b_row = of_rows ? b.row(lane() % 8 + half) + lane() / 8 % 2 * 8 : b.row(lane() % 16) + half;
  constexpr int kDepthStep = of_rows ? 1 : Tile<T>::kStride, kColumnStep = of_rows ? Tile<T>::kStride : 1;
#pragma unroll 1
  for (int k = 0; k < depth; k += 16) {
    uint32_t left[4];
    load_matrices<false>(left, a_row + k);
#pragma unroll
    for (int n = 0; n < kSide; n += 16) {
      if (n >= columns) continue;
      uint32_t right[4];
      load_matrices<!of_rows>(right, b_row + k * kDepthStep + n * kColumnStep);
      multiply_add(c.at + n / 2, left, right[0], right[1], T());
      multiply_add(c.at + n / 2 + 4, left, right[2], right[3], T());
    }
  }
}

// c += a b^T: a is the warp's 16 rows, b has `columns` rows; both are `depth` long.
template <class T>
__device__ void add_product_of_rows(Accumulator& c, const Tile<T>& a, const Tile<T>& b, int depth, int columns) {
  add_on_tensor_cores<true>(c, a, b, depth, columns);
}

// c += a b: a is the warp's 16 rows, `depth` long; b has `depth` rows, `columns` long.
template <class T>
__device__ void add_product(Accumulator& c, const Tile<T>& a, const Tile<T>& b, int depth, int columns) {
  add_on_tensor_cores<false>(c, a, b, depth, columns);
}

template <>
__device__ inline void add_product_of_rows(Accumulator& c, const Tile<float>& a, const Tile<float>& b, int depth,
                                           int columns) {
  const float *upper = a.row(Accumulator::row(0)), *lower = a.row(Accumulator::row(1));
  const float* b_row = b.row(lane() % 4 * 2);
  for (int k = 0; k < depth; k += 4) {
    const auto high = *reinterpret_cast<const Vector<float>*>(upper + k);
    const auto low = *reinterpret_cast<const Vector<float>*>(lower + k);
#pragma unroll
    for (int n = 0; n < kSide; n += 8) {
      if (n >= columns) continue;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const auto right = *reinterpret_cast<const Vector<float>*>(b_row + (n + i) * Tile<float>::kStride + k);
#pragma unroll
        for (int d = 0; d < 4; ++d) {
          c.at[n / 2 + i] = fmaf(high.at[d], right.at[d], c.at[n / 2 + i]);
          c.at[n / 2 + 2 + i] = fmaf(low.at[d], right.at[d], c.at[n / 2 + 2 + i]);
        }
      }
    }
  }
}

template <>
__device__ inline void add_product(Accumulator& c, const Tile<float>& a, const Tile<float>& b, int depth, int columns) {
  const float *upper = a.row(Accumulator::row(0)), *lower = a.row(Accumulator::row(1));
  const float* b_row = b.row(0) + lane() % 4 * 2;
  for (int k = 0; k < depth; ++k) {
    const float high = upper[k], low = lower[k];
#pragma unroll
    for (int n = 0; n < kSide; n += 8) {
      if (n >= columns) continue;
      const auto right = *reinterpret_cast<const Pair<float>*>(b_row + k * Tile<float>::kStride + n);
      c.at[n / 2] = fmaf(high, right.first, c.at[n / 2]);
      c.at[n / 2 + 1] = fmaf(high, right.second, c.at[n / 2 + 1]);
      c.at[n / 2 + 2] = fmaf(low, right.first, c.at[n / 2 + 2]);
      c.at[n / 2 + 3] = fmaf(low, right.second, c.at[n / 2 + 3]);
    }
  }
}

// Rows in global memory with the tile that they pass through.
template <class T>
struct Operand {
  Tile<T> tile;
  Rows<T> rows;
  int first, count;

  __device__ void load(int first_column, int dim) const {
    tile.load(rows, first, count, first_column, min(kSide, dim - first_column));
  }
};

// c = own other^T over all `dim` columns. `own_is_there`: the last call has left own's tile filled (dim <= 64).
// The block's barriers before and after each load are here.
template <class T>
__device__ void multiply_rows(Accumulator& c, const Operand<T>& own, const Operand<T>& other, int dim,
                              bool own_is_there) {
  c = Accumulator{};
  for (int d = 0; d < dim; d += kSide) {
    __syncthreads();
    if (!own_is_there) own.load(d, dim);
    other.load(d, dim);
    finish_loads();
    if (first_row_of_warp() < own.count)
      add_product_of_rows(c, own.tile, other.tile, padded(min(kSide, dim - d)), other.count);
  }
}

// The warp's rows to its rows of a tile, for a product that follows.
template <class T>
__device__ void store(const Accumulator& c, const Tile<T>& to) {
  __syncwarp();
#pragma unroll
  for (int e = 0; e < Accumulator::kElements; e += 2)
    *reinterpret_cast<Pair<T>*>(to.row(Accumulator::row(Accumulator::half(e))) + Accumulator::column(e)) = {
        T(c.at[e]), T(c.at[e + 1])};
  __syncwarp();
}

// factor c to `rows` x `columns` elements of global memory, whose rows are `stride` apart.
template <class T>
__device__ void write(const Accumulator& c, float factor, T* to, int64_t stride, int rows, int columns, bool in_pairs) {
#pragma unroll
  for (int e = 0; e < Accumulator::kElements; e += 2) {
    const int row = Accumulator::row(Accumulator::half(e)), column = Accumulator::column(e);
    if (row >= rows || column >= columns) continue;
    T* target = to + row * stride + column;
    const T first = T(factor * c.at[e]), second = T(factor * c.at[e + 1]);
    if (in_pairs) {
      *reinterpret_cast<Pair<T>*>(target) = {first, second};
    } else {
      target[0] = first;
      if (column + 1 < columns) target[1] = second;
    }
  }
}

// Adds factor[half] vector to every row.
__device__ inline void add_to_rows(Accumulator& c, const float (&factor)[2], const float* vector, int columns) {
#pragma unroll
  for (int e = 0; e < Accumulator::kElements; ++e)
    if (Accumulator::column(e) < columns)
      c.at[e] = fmaf(factor[Accumulator::half(e)], vector[Accumulator::column(e)], c.at[e]);
}

}  // namespace diffrgen::cuda
