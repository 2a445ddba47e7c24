// Tiles of 64 x 64 elements in shared memory, and the rows of global memory that fill them.
#pragma once

#include "device.cuh"

namespace diffrgen::cuda {

constexpr int kSide = 64;
constexpr int kThreads = 128;  // four warps, each with 16 rows of a tile
constexpr int kWarpRows = 16;

__device__ inline int lane() { return threadIdx.x % 32; }
__device__ inline int first_row_of_warp() { return threadIdx.x / 32 * kWarpRows; }

// Products take rows and columns by 16: so many are filled, with zeros behind the last one.
__device__ inline int padded(int count) { return (count + 15) / 16 * 16; }

// The rows of one study, mask and head of a view.
template <class T>
struct Rows {
  const View& view;
  const T* data;

  __device__ Rows(const View& of, int batch, int mask, int head)
      : view(of), data(static_cast<const T*>(of.data) + batch * of.batch + mask * of.mask + head * of.head) {}
  __device__ const T* at(int row, int d) const { return data + row * view.row + d * view.dim; }
};

template <class T>
struct alignas(16) Vector {
  T at[16 / sizeof(T)];
};

template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T first, second;
};

template <class T>
struct Tile {
  // 16 bytes more than 64 elements: the eight rows that a warp reads together lie in different banks
  static constexpr int kStride = kSide + 16 / sizeof(T);
  static constexpr int kBytes = kSide * kStride * sizeof(T);
  T* data;

  __device__ explicit Tile(int number) : data(reinterpret_cast<T*>(shared_memory() + number * kBytes)) {}
  __device__ T* row(int r) const { return data + r * kStride; }

  // The whole block starts to copy `rows` x `columns` elements, from row `first_row` and column `first_column` on;
  // finish_loads() comes before they are read.
  __device__ void load(const Rows<T>& from, int first_row, int rows, int first_column, int columns) const {
    constexpr int kLength = 16 / sizeof(T), kVectors = kSide / kLength;
    if (from.view.vectors) {
#pragma unroll 1
      for (int i = threadIdx.x; i < padded(rows) * kVectors; i += kThreads) {
        const int r = i / kVectors, c = i % kVectors * kLength;
        if (c >= padded(columns)) continue;
        const bool there = r < rows && c < columns;
        start_copy(row(r) + c, there ? from.at(first_row + r, first_column + c) : from.data, there);
      }
    } else {
#pragma unroll 1
      for (int i = threadIdx.x; i < padded(rows) * kSide; i += kThreads) {
        const int r = i / kSide, c = i % kSide;
        if (c >= padded(columns)) continue;
        row(r)[c] = r < rows && c < columns ? *from.at(first_row + r, first_column + c) : T(0.0f);
      }
    }
  }
};

__device__ inline void finish_loads() {
  finish_copies();
  __syncthreads();
}

// The first byte behind `tiles` tiles of shared memory.
template <class T, class Element>
__device__ Element* behind_tiles(int tiles) {
  return reinterpret_cast<Element*>(shared_memory() + tiles * Tile<T>::kBytes);
}

}  // namespace diffrgen::cuda
