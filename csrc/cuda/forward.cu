// Forward (Eq. 5) with the exact shortcut: out = sum_j alpha_j ( sum_{l in W} (P - u)_l v_l + u sum_all v ), with P the
// softmax weights and u the weight of a key outside the window W. The keys in reach are read twice: for M0 and L, then
// for the weights, which so need no correction.
#include "launch.h"
#include "softmax.cuh"

namespace diffrgen::cuda {
namespace {

constexpr int kTiles = 4;

template <class T>
struct Forward {
  const Problem& p;
  const Block block;
  const Tile<T> queries{0}, keys{1}, values{2}, weights{3};
  Position* const positions = behind_tiles<T, Position>(kTiles);
  Accumulator out{}, products{};
  uint32_t inside = 0;

  __device__ explicit Forward(const Problem& problem) : p(problem), block(problem, problem.rows, 1) {}

  __device__ void multiply(const Operand<T>& query, const Operand<T>& key, const LaneWindows& windows, bool first) {
    __syncthreads();
    set_positions(p, positions, key.first, key.count);
    multiply_rows(products, query, key, p.dim, !first && p.dim <= kSide);
    inside = windows.holds(positions);
  }

  __device__ void store_weights(const Softmax& softmax, const float (&factor)[2]) {
#pragma unroll
    for (int e = 0; e < Accumulator::kElements; ++e) {
      const int half = Accumulator::half(e);
      const float above = expf(p.scale * products.at[e] - softmax.top[half]) - softmax.floor[half];
      products.at[e] = is_set(inside, e) ? above * factor[half] : 0.0f;
    }
    store(products, weights);
  }

  __device__ void write_lse(const Softmax& softmax, int j) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = Accumulator::row(half);
      if (row < block.rows && lane() % 4 == 0 && block.first_column == 0)
        p.lse[block.index(p, block.first + row, p.rows, j, p.masks)] = softmax.lse(half);
    }
  }

  __device__ void add_mask(int j, float alpha) {
    const int own = p.own_masks == 1 ? 0 : j;
    const Operand<T> query{queries, Rows<T>(p.q, block.batch, own, block.head), block.first, block.rows};
    const Rows<T> key_rows(p.k, block.batch, own, block.head), value_rows(p.v, block.batch, own, block.head);
    const Range range = keys_of_rows(p, p.orders[j], block.first, block.first + block.rows - 1);
    const LaneWindows windows(p, p.orders[j], block.first, block.rows);
    Softmax softmax(p, p.orders[j], windows);
    for (int first = range.first; first < range.end; first += kSide) {
      multiply(query, {keys, key_rows, first, min(kSide, range.end - first)}, windows, first == range.first);
      if (block.warp_works()) softmax.add(products, inside, p.scale);
    }
    softmax.finish();
    if (p.lse != nullptr) write_lse(softmax, j);
    const float factor[2] = {alpha / softmax.total[0], alpha / softmax.total[1]};
    for (int first = range.first; first < range.end; first += kSide) {
      const int count = min(kSide, range.end - first);
      if (range.size() > kSide) multiply(query, {keys, key_rows, first, count}, windows, false);
      values.load(value_rows, first, count, block.first_column, block.columns);
      if (block.warp_works()) store_weights(softmax, factor);
      finish_loads();
      if (block.warp_works()) add_product(out, weights, values, padded(count), block.columns);
    }
    if (p.value_sums != nullptr)
      add_to_rows(out, {factor[0] * softmax.floor[0], factor[1] * softmax.floor[1]},
                  block.vector(p, p.value_sums, own, p.own_masks), block.columns);
  }

  __device__ void run() {
    for (int j = 0; j < p.masks; ++j) {
      const float alpha = block.alpha(p, j);
      if (p.skip_zero && alpha == 0.0f) continue;
      add_mask(j, alpha);
    }
    T* const to = static_cast<T*>(p.out) + block.index(p, block.first, p.rows, 0, 1) * p.dim + block.first_column;
    write(out, 1.0f, to, static_cast<int64_t>(p.heads) * p.dim, block.rows, block.columns, p.dim % 2 == 0);
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads, 3) routed_coattention(const __grid_constant__ Problem p) {
  Forward<T>(p).run();
}

}  // namespace

void attend(const Problem& p, Dtype dtype, Stream stream) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kBytes = kTiles * Tile<T>::kBytes + kSide * sizeof(Position);
    launch(routed_coattention<T>, Block::count(p, p.rows, 1), kThreads, kBytes, stream, p);
  });
}

}  // namespace diffrgen::cuda
