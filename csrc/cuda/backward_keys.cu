// Backward of the keys and values. A block owns 64 keys and goes through the query rows whose windows can hold them:
//   dK_l = scale sum_i dS_il q_i,   dS = alpha P (g.v - delta) where l is in row i's window
//   dV_l = sum_{i: l in W_i} alpha (P - u)_il g_i + sum_i alpha u_i g_i
#include "launch.h"
#include "softmax.cuh"

namespace diffrgen::cuda {
namespace {

constexpr int kTiles = 5;

template <class T>
struct BackwardKeys {
  const Problem& p;
  const Block block;
  const Rows<T> query_rows, grad_rows;
  const Tile<T> keys{0}, values{1}, queries{2}, grads{3}, weights{4};
  RowStatistics* const statistics = behind_tiles<T, RowStatistics>(kTiles);
  Position* const positions = reinterpret_cast<Position*>(statistics + kSide);
  Accumulator dk{}, dv{}, products{}, changes{};  // k.q and v.g
  bool own_is_there = false;

  __device__ explicit BackwardKeys(const Problem& problem)
      : p(problem),
        block(problem, problem.patches, problem.own_masks),
        query_rows(problem.q, block.batch, block.mask, block.head),
        grad_rows(problem.grad, block.batch, 0, block.head) {}

  // products -> alpha (P - u), changes -> dS; 0 where the key is not in the row's window.
  __device__ void differentiate(uint32_t inside, float alpha) {
#pragma unroll
    for (int e = 0; e < Accumulator::kElements; ++e) {
      const RowStatistics row = statistics[Accumulator::column(e)];
      const float weight = expf(p.scale * products.at[e] - row.lse) * row.inverse;
      products.at[e] = is_set(inside, e) ? alpha * (weight - row.outside) : 0.0f;
      changes.at[e] = is_set(inside, e) ? alpha * weight * (changes.at[e] - row.delta) : 0.0f;
    }
  }

  __device__ void add_rows(int j, float alpha, const LaneWindows& windows, int first, int count) {
    __syncthreads();
    set_positions(p, positions, first, count);
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < count) statistics[thread] = p.statistics[block.index(p, first + thread, p.rows, j, p.masks)];
    const Rows<T> key_rows(p.k, block.batch, block.mask, block.head);
    const Rows<T> value_rows(p.v, block.batch, block.mask, block.head);
    multiply_rows<T>(products, {keys, key_rows, block.first, block.rows}, {queries, query_rows, first, count}, p.dim,
                     own_is_there);
    const uint32_t inside = windows.holds(positions);
    multiply_rows<T>(changes, {values, value_rows, block.first, block.rows}, {grads, grad_rows, first, count}, p.dim,
                     own_is_there);
    own_is_there = p.dim <= kSide;
    if (p.dim > kSide) {  // the tiles hold the last columns, not the block's own
      __syncthreads();
      queries.load(query_rows, first, count, block.first_column, block.columns);
      grads.load(grad_rows, first, count, block.first_column, block.columns);
      finish_loads();
    }
    if (!block.warp_works()) return;
    differentiate(inside, alpha);
    store(products, weights);
    add_product(dv, weights, grads, padded(count), block.columns);
    store(changes, weights);
    add_product(dk, weights, queries, padded(count), block.columns);
  }

  __device__ void add_mask(int j) {
    const float alpha = block.alpha(p, j);
    const LaneWindows windows(p, p.orders[j], block.first, block.rows);
    const Range reach = reach_of(p, p.orders[j], block.first, block.first + block.rows - 1);
    // rows come in cycles of M; where all of a cycle is in reach, so is every row
    const bool all = reach.size() == p.patches;
    const int cycles = all ? 1 : (p.rows + p.patches - 1) / p.patches;
    for (int cycle = 0; cycle < cycles; ++cycle) {
      const int end = all ? p.rows : min(p.rows, cycle * p.patches + reach.end);
      for (int first = cycle * p.patches + reach.first; first < end; first += kSide)
        add_rows(j, alpha, windows, first, min(kSide, end - first));
    }
    if (p.grad_sums != nullptr)
      add_to_rows(dv, {alpha, alpha}, block.vector(p, p.grad_sums, j, p.masks), block.columns);
  }

  __device__ void run() {
    const int first_mask = p.own_masks == 1 ? 0 : block.mask, end = p.own_masks == 1 ? p.masks : block.mask + 1;
    for (int j = first_mask; j < end; ++j) add_mask(j);
    const int64_t row_length = static_cast<int64_t>(p.own_masks) * p.heads * p.dim;
    const int64_t first =
        block.index(p, block.first, p.patches, block.mask, p.own_masks) * p.dim + block.first_column;
    write(dk, p.scale, static_cast<T*>(p.dk) + first, row_length, block.rows, block.columns, p.dim % 2 == 0);
    write(dv, 1.0f, static_cast<T*>(p.dv) + first, row_length, block.rows, block.columns, p.dim % 2 == 0);
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads, 2) routed_coattention_dk_dv(const __grid_constant__ Problem p) {
  BackwardKeys<T>(p).run();
}

}  // namespace

void differentiate_keys(const Problem& p, Dtype dtype, Stream stream) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kBytes = kTiles * Tile<T>::kBytes + kSide * (sizeof(RowStatistics) + sizeof(Position));
    launch(routed_coattention_dk_dv<T>, Block::count(p, p.patches, p.own_masks), kThreads, kBytes, stream, p);
  });
}

}  // namespace diffrgen::cuda
