// Backward of the queries, and what every row hands to backward_keys.cu. With g the gradient of the output:
//   delta = sum_W (P - u)(g.v) + u (g . sum_all v);   dS = alpha P (g.v - delta) on W;   dQ = scale dS K
// P = exp(s - lse) / Z, where Z = sum_W exp(s - lse) + n exp(-lse) is 1 but for the rounding of lse.
#include "launch.h"
#include "softmax.cuh"

namespace diffrgen::cuda {
namespace {

constexpr int kTiles = 5;

template <class T>
struct BackwardQueries {
  const Problem& p;
  const Block block;
  const Rows<T> grad_rows;
  const Tile<T> queries{0}, grads{1}, keys{2}, values{3}, weights{4};
  Position* const positions = behind_tiles<T, Position>(kTiles);
  Accumulator dq{}, products{}, changes{};  // q.k and g.v
  uint32_t inside = 0;

  __device__ explicit BackwardQueries(const Problem& problem)
      : p(problem),
        block(problem, problem.rows, problem.own_masks),
        grad_rows(problem.grad, block.batch, 0, block.head) {}

  // Products of the block's rows with `count` keys.
  __device__ void multiply(const LaneWindows& windows, int first, int count, bool is_first) {
    const Rows<T> query_rows(p.q, block.batch, block.mask, block.head);
    const Rows<T> key_rows(p.k, block.batch, block.mask, block.head);
    const Rows<T> value_rows(p.v, block.batch, block.mask, block.head);
    const bool own_is_there = !is_first && p.dim <= kSide;
    set_positions(p, positions, first, count);
    multiply_rows<T>(products, {queries, query_rows, block.first, block.rows}, {keys, key_rows, first, count}, p.dim,
                     own_is_there);
    inside = windows.holds(positions);
    multiply_rows<T>(changes, {grads, grad_rows, block.first, block.rows}, {values, value_rows, first, count}, p.dim,
                     own_is_there);
  }

  // g . sum_all v of the lane's rows.
  __device__ void multiply_sums(float (&to)[2]) {
    const float* sums = block.vector(p, p.value_sums, block.mask, p.own_masks) - block.first_column;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = Accumulator::row(half);
      float total = 0.0f;
      for (int d = lane() % 4; d < p.dim && row < block.rows; d += 4)
        total = fmaf(static_cast<float>(*grad_rows.at(block.first + row, d)), sums[d], total);
      to[half] = sum_of_row(total);
    }
  }

  __device__ void add_mask(int j) {
    const float alpha = block.alpha(p, j);
    const Range range = keys_of_rows(p, p.orders[j], block.first, block.first + block.rows - 1);
    const LaneWindows windows(p, p.orders[j], block.first, block.rows);
    float outside[2], total[2] = {}, delta[2] = {}, through_sums[2] = {};
    RowStatistics row[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = min(block.first + Accumulator::row(half), p.rows - 1);
      row[half].lse = p.lse[block.index(p, r, p.rows, j, p.masks)];
      outside[half] = p.exclusive ? 0.0f : static_cast<float>(outside_of(p, p.orders[j], windows.at[half]));
      row[half].outside = outside[half] > 0.0f ? expf(-row[half].lse) : 0.0f;
    }
    for (int first = range.first; first < range.end; first += kSide) {
      multiply(windows, first, min(kSide, range.end - first), first == range.first);
#pragma unroll
      for (int e = 0; e < Accumulator::kElements; ++e) {
        const int half = Accumulator::half(e);
        if (!is_set(inside, e)) continue;
        const float weight = expf(p.scale * products.at[e] - row[half].lse);
        total[half] += weight;
        delta[half] = fmaf(weight - row[half].outside, changes.at[e], delta[half]);
      }
    }
    if (p.value_sums != nullptr) multiply_sums(through_sums);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      row[half].inverse = 1.0f / (sum_of_row(total[half]) + outside[half] * row[half].outside);
      row[half].delta = (sum_of_row(delta[half]) + row[half].outside * through_sums[half]) * row[half].inverse;
      row[half].outside *= row[half].inverse;
      const int r = Accumulator::row(half);
      if (r < block.rows && lane() % 4 == 0 && block.first_column == 0)
        p.statistics[block.index(p, block.first + r, p.rows, j, p.masks)] = row[half];
    }
    for (int first = range.first; first < range.end; first += kSide) {
      const int count = min(kSide, range.end - first);
      if (range.size() > kSide) multiply(windows, first, count, false);
      add_keys(row, alpha, first, count);
    }
  }

  // dq += dS K for the tile of keys whose products are at hand.
  __device__ void add_keys(const RowStatistics (&row)[2], float alpha, int first, int count) {
#pragma unroll
    for (int e = 0; e < Accumulator::kElements; ++e) {
      const RowStatistics& own = row[Accumulator::half(e)];
      const float weight = alpha * own.inverse * expf(p.scale * products.at[e] - own.lse);
      products.at[e] = is_set(inside, e) ? weight * (changes.at[e] - own.delta) : 0.0f;
    }
    if (p.dim > kSide) {  // the tile holds the last columns, not the block's own
      keys.load(Rows<T>(p.k, block.batch, block.mask, block.head), first, count, block.first_column, block.columns);
      finish_loads();
    }
    if (!block.warp_works()) return;
    store(products, weights);
    add_product(dq, weights, keys, padded(count), block.columns);
  }

  __device__ void run() {
    const int first_mask = p.own_masks == 1 ? 0 : block.mask, end = p.own_masks == 1 ? p.masks : block.mask + 1;
    for (int j = first_mask; j < end; ++j) add_mask(j);
    const int64_t row_length = static_cast<int64_t>(p.own_masks) * p.heads * p.dim;
    T* const to = static_cast<T*>(p.dq) + block.index(p, block.first, p.rows, block.mask, p.own_masks) * p.dim;
    write(dq, p.scale, to + block.first_column, row_length, block.rows, block.columns, p.dim % 2 == 0);
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 3 : 2)
    routed_coattention_dq(const __grid_constant__ Problem p) {
  BackwardQueries<T>(p).run();
}

}  // namespace

void differentiate_queries(const Problem& p, Dtype dtype, Stream stream) {
  for_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kBytes = kTiles * Tile<T>::kBytes + kSide * sizeof(Position);
    launch(routed_coattention_dq<T>, Block::count(p, p.rows, p.own_masks), kThreads, kBytes, stream, p);
  });
}

}  // namespace diffrgen::cuda
