// Sums over rows that the exact shortcut needs once a call, in a fixed order:
//   value_sums = sum_l v_l;   grad_sums = sum_i u_i g_i;   dalpha_j = sum over heads and rows of delta
#include "launch.h"
#include "tile.cuh"

namespace diffrgen::cuda {
namespace {

constexpr int kColumns = 32, kGroups = kThreads / kColumns;

// to (B, masks, H, D) = sum over rows of weight x (B, rows, masks, H, D); a weight is the rows' `outside`, else 1.
struct RowSums {
  View x;
  int rows, masks, heads, dim;
  const RowStatistics* weights;
  float* to;
};

template <class T>
__global__ void __launch_bounds__(kThreads) sum_rows(const __grid_constant__ RowSums s) {
  const int chunks = (s.dim + kColumns - 1) / kColumns;
  const int column = static_cast<int>(threadIdx.x) % kColumns, group = static_cast<int>(threadIdx.x) / kColumns;
  int number = static_cast<int>(blockIdx.x);
  const int d = number % chunks * kColumns + column;
  number /= chunks;
  const int head = number % s.heads, mask = number / s.heads % s.masks, batch = number / s.heads / s.masks;
  const Rows<T> x(s.x, batch, mask, head);
  float total = 0.0f;
  for (int row = group; row < s.rows && d < s.dim; row += kGroups) {
    const int64_t index = ((static_cast<int64_t>(batch) * s.rows + row) * s.masks + mask) * s.heads + head;
    const float weight = s.weights == nullptr ? 1.0f : s.weights[index].outside;
    total = fmaf(weight, static_cast<float>(*x.at(row, d)), total);
  }
  auto* const shares = reinterpret_cast<float*>(shared_memory());
  shares[threadIdx.x] = total;
  __syncthreads();
  if (group > 0 || d >= s.dim) return;
  for (int other = 1; other < kGroups; ++other) total += shares[other * kColumns + column];
  s.to[static_cast<int64_t>(number) * s.dim + d] = total;
}

__global__ void __launch_bounds__(kThreads) sum_deltas(const __grid_constant__ Problem p) {
  const int thread = static_cast<int>(threadIdx.x);
  const int mask = static_cast<int>(blockIdx.x) % p.masks, batch = static_cast<int>(blockIdx.x) / p.masks;
  double total = 0.0;
  for (int64_t i = thread; i < static_cast<int64_t>(p.rows) * p.heads; i += kThreads) {
    const int64_t row = static_cast<int64_t>(batch) * p.rows + i / p.heads;
    total += p.statistics[(row * p.masks + mask) * p.heads + i % p.heads].delta;
  }
  auto* const shares = reinterpret_cast<double*>(shared_memory());
  shares[thread] = total;
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (thread < width) shares[thread] += shares[thread + width];
  }
  if (thread == 0) p.dalpha[static_cast<int64_t>(batch) * p.masks + mask] = static_cast<float>(shares[0]);
}

void launch_sums(const RowSums& sums, int batches, Dtype dtype, Stream stream) {
  const int64_t chunks = (sums.dim + kColumns - 1) / kColumns;
  for_dtype(dtype, [&](auto zero) {
    launch(sum_rows<decltype(zero)>, chunks * sums.heads * sums.masks * batches, kThreads, kThreads * sizeof(float),
           stream, sums);
  });
}

}  // namespace

void sum_values(const Problem& p, Dtype dtype, Stream stream) {
  launch_sums({p.v, p.patches, p.own_masks, p.heads, p.dim, nullptr, p.value_sums}, p.batches, dtype, stream);
}

void sum_grads(const Problem& p, Dtype dtype, Stream stream) {
  launch_sums({p.grad, p.rows, p.masks, p.heads, p.dim, p.statistics, p.grad_sums}, p.batches, dtype, stream);
}

void differentiate_alpha(const Problem& p, Stream stream) {
  launch(sum_deltas, static_cast<int64_t>(p.batches) * p.masks, kThreads, kThreads * sizeof(double), stream, p);
}

}  // namespace diffrgen::cuda
