// diffrgen_native::forward and ::backward on CUDA, on PyTorch's stable ABI. Nothing here is of libtorch_cuda and the
// CUDA runtime is linked statically, so the same binary loads where there is no CUDA at all.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <tuple>
#include <vector>

#include "launch.h"

namespace diffrgen::cuda {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The tensors' device is current while this lives.
class Device {
 public:
  explicit Device(const Tensor& x) {
    check(cudaGetDevice(&before_), "current device");
    check(cudaSetDevice(x.get_device()), "device of q");
  }
  ~Device() { static_cast<void>(cudaSetDevice(before_)); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

 private:
  int before_ = 0;
};

Dtype dtype_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return Dtype::float32;
    case ScalarType::Half: return Dtype::float16;
    case ScalarType::BFloat16: return Dtype::bfloat16;
    default: STD_TORCH_CHECK(false, "q: expected float32, float16 or bfloat16 on CUDA");
  }
}

View view_of(const Tensor& x) {
  View view{x.const_data_ptr(), x.stride(0), x.stride(1), 0, x.stride(x.dim() - 2), x.stride(x.dim() - 1), false};
  if (x.dim() == 5) view.mask = x.stride(2);
  view.vectors = reads_vectors(view, static_cast<int>(x.size(x.dim() - 1)), static_cast<int>(x.element_size()));
  return view;
}

Problem problem_of(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& alpha,
                   const std::vector<int64_t>& grid, const std::vector<int64_t>& orders, bool exclusive, double scale) {
  STD_TORCH_CHECK(q.dim() == 5 && k.dim() == 5 && v.dim() == 5, "q, k, v: expected 5 axes each");
  STD_TORCH_CHECK(grid.size() == 2 && grid[0] * grid[1] == k.size(1), "grid: expected gh * gw = M = ", k.size(1));
  STD_TORCH_CHECK(alpha.dim() == 2 && alpha.size(1) == static_cast<int64_t>(orders.size()),
                  "alpha: expected (B, P) with P = ", orders.size());
  STD_TORCH_CHECK(alpha.scalar_type() == ScalarType::Float, "alpha: expected float32");
  STD_TORCH_CHECK(orders.size() <= kMaxMasks, "orders: expected at most ", kMaxMasks, " masks on CUDA, got ",
                  orders.size());
  constexpr int64_t kMostRows = int64_t{1} << 30;
  STD_TORCH_CHECK(q.size(1) <= kMostRows && k.size(1) <= kMostRows, "expected at most 2^30 rows, got N = ", q.size(1),
                  " and M = ", k.size(1));
  Problem p{};
  p.batches = static_cast<int>(q.size(0)), p.rows = static_cast<int>(q.size(1));
  p.patches = static_cast<int>(k.size(1)), p.heads = static_cast<int>(q.size(3)), p.dim = static_cast<int>(q.size(4));
  p.masks = static_cast<int>(orders.size()), p.own_masks = static_cast<int>(q.size(2));
  p.grid_height = static_cast<int>(grid[0]), p.grid_width = static_cast<int>(grid[1]);
  for (int j = 0; j < p.masks; ++j) p.orders[j] = order_on_grid(orders[j], grid[0], grid[1]);
  p.exclusive = exclusive, p.scale = static_cast<float>(scale);
  p.q = view_of(q), p.k = view_of(k), p.v = view_of(v);
  p.alpha = static_cast<const float*>(alpha.const_data_ptr());
  p.alpha_batch = alpha.stride(0), p.alpha_mask = alpha.stride(1);
  return p;
}

// Uninitialised, on the device of `like`.
Tensor empty(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype) {
  return torch::stable::new_empty(like, shape, dtype);
}

float* floats(Tensor& x) { return static_cast<float*>(x.mutable_data_ptr()); }

std::tuple<Tensor, Tensor> run_forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& alpha,
                                       std::vector<int64_t> grid, std::vector<int64_t> orders, bool exclusive,
                                       double scale, bool needs_grad, int64_t stream) {
  const Device device(q);
  Problem p = problem_of(q, k, v, alpha, grid, orders, exclusive, scale);
  p.skip_zero = !needs_grad;
  Tensor out = empty(q, {p.batches, p.rows, p.heads, p.dim}, q.scalar_type());
  const std::vector<int64_t> lse_shape = {p.batches, p.rows, p.masks, p.heads};
  Tensor lse = empty(q, needs_grad ? lse_shape : std::vector<int64_t>{0}, ScalarType::Float);
  Tensor value_sums = empty(q, {p.batches, p.own_masks, p.heads, p.dim}, ScalarType::Float);
  p.out = out.mutable_data_ptr();
  if (needs_grad) p.lse = floats(lse);
  if (any_key_outside(p)) p.value_sums = floats(value_sums);
  forward(p, dtype_of(q), reinterpret_cast<Stream>(stream));
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> run_backward(const Tensor& grad, const Tensor& q, const Tensor& k,
                                                        const Tensor& v, const Tensor& alpha, const Tensor& lse,
                                                        std::vector<int64_t> grid, std::vector<int64_t> orders,
                                                        bool exclusive, double scale, int64_t stream) {
  const Device device(q);
  Problem p = problem_of(q, k, v, alpha, grid, orders, exclusive, scale);
  STD_TORCH_CHECK(grad.dim() == 4 && grad.scalar_type() == q.scalar_type(), "grad: expected 4 axes and the dtype of q");
  STD_TORCH_CHECK(lse.numel() == int64_t{p.batches} * p.rows * p.masks * p.heads && lse.is_contiguous(),
                  "lse: expected forward's contiguous (B, N, P, H), got ", lse.numel(), " elements");
  Tensor dq = empty(q, {p.batches, p.rows, p.own_masks, p.heads, p.dim}, q.scalar_type());
  Tensor dk = empty(q, {p.batches, p.patches, p.own_masks, p.heads, p.dim}, q.scalar_type());
  Tensor dv = empty(q, {p.batches, p.patches, p.own_masks, p.heads, p.dim}, q.scalar_type());
  Tensor dalpha = empty(q, {p.batches, p.masks}, ScalarType::Float);
  Tensor value_sums = empty(q, {p.batches, p.own_masks, p.heads, p.dim}, ScalarType::Float);
  Tensor grad_sums = empty(q, {p.batches, p.masks, p.heads, p.dim}, ScalarType::Float);
  Tensor statistics = empty(q, {p.batches, p.rows, p.masks, p.heads, 4}, ScalarType::Float);
  p.grad = view_of(grad);
  p.lse = static_cast<float*>(lse.data_ptr());
  p.dq = dq.mutable_data_ptr(), p.dk = dk.mutable_data_ptr(), p.dv = dv.mutable_data_ptr();
  p.dalpha = floats(dalpha);
  p.statistics = static_cast<RowStatistics*>(statistics.mutable_data_ptr());
  if (any_key_outside(p)) p.value_sums = floats(value_sums), p.grad_sums = floats(grad_sums);
  backward(p, dtype_of(q), reinterpret_cast<Stream>(stream));
  return {dq, dk, dv, dalpha};
}

}  // namespace
}  // namespace diffrgen::cuda

STABLE_TORCH_LIBRARY_IMPL(diffrgen_native, CUDA, m) {
  m.impl("forward", TORCH_BOX(&diffrgen::cuda::run_forward));
  m.impl("backward", TORCH_BOX(&diffrgen::cuda::run_backward));
}
