// diffrgen_native::forward and ::backward on CUDA, on PyTorch's stable ABI. Nothing here is of libtorch_cuda and the
// CUDA runtime is linked statically, so the same binary loads where there is no CUDA at all.
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../checks.h"
#include "../namespace.h"
#include "launch.h"

namespace diffrgen::cuda {
namespace {

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

// What the kernels here lack is refused: backend="triton" and "reference" have it.
void check_features(const Call& call) {
  check_call(call);
  STD_TORCH_CHECK(call.q.is_cuda(), "q: expected a CUDA tensor");
  STD_TORCH_CHECK(call.keys() == call.patches(), "grid: expected gh * gw = M = ", call.keys(),
                  ": the CUDA kernels have no views");
  STD_TORCH_CHECK(!call.centres.has_value(), "centres: the CUDA kernels have none");
  STD_TORCH_CHECK(!call.key_mask.has_value(), "key_mask: the CUDA kernels have none");
  STD_TORCH_CHECK(!call.row_alpha(), "alpha: expected (B, P): the CUDA kernels have no weights of rows");
  STD_TORCH_CHECK(call.masks() <= kMaxMasks, "windows: expected at most ", kMaxMasks, " masks on CUDA, got ",
                  call.masks());
  for (int64_t j = 0; j < call.masks(); ++j) {
    const int64_t height = call.windows[2 * j], width = call.windows[2 * j + 1];
    const bool whole = height >= call.grid[0] - 1 && width >= call.grid[1] - 1;
    STD_TORCH_CHECK(whole || (height == width && height > 0),
                    "windows: expected squares of order 1 and more, or the whole grid, got half sizes ", height, " and ",
                    width);
  }
}

Problem problem_of(const Call& call, bool exclusive, double scale) {
  Problem p{};
  p.batches = static_cast<int>(call.batches()), p.rows = static_cast<int>(call.rows());
  p.patches = static_cast<int>(call.keys()), p.heads = static_cast<int>(call.heads());
  p.dim = static_cast<int>(call.dim()), p.masks = static_cast<int>(call.masks());
  p.own_masks = static_cast<int>(call.q.size(2));
  p.grid_height = static_cast<int>(call.grid[0]), p.grid_width = static_cast<int>(call.grid[1]);
  for (int j = 0; j < p.masks; ++j) p.orders[j] = order_on_grid(call.windows[2 * j], call.windows[2 * j + 1], p);
  p.exclusive = exclusive, p.scale = static_cast<float>(scale);
  p.q = view_of(call.q), p.k = view_of(call.k), p.v = view_of(call.v);
  p.alpha = static_cast<const float*>(call.alpha.const_data_ptr());
  p.alpha_batch = call.alpha.stride(0), p.alpha_mask = call.alpha.stride(1);
  return p;
}

// Uninitialised, on the device of `like`.
Tensor empty(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype) {
  return torch::stable::new_empty(like, shape, dtype);
}

float* floats(Tensor& x) { return static_cast<float*>(x.mutable_data_ptr()); }

std::tuple<Tensor, Tensor> run_forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& alpha,
                                       const std::optional<Tensor>& centres, const std::optional<Tensor>& key_mask,
                                       std::vector<int64_t> grid, std::vector<int64_t> windows, bool exclusive,
                                       double scale, bool needs_lse, int64_t stream) {
  const Call call{q, k, v, alpha, centres, key_mask, grid, windows};
  check_features(call);
  const Device device(q);
  Problem p = problem_of(call, exclusive, scale);
  p.skip_zero = !needs_lse;
  Tensor out = empty(q, {p.batches, p.rows, p.heads, p.dim}, q.scalar_type());
  const std::vector<int64_t> lse_shape = {p.batches, p.rows, p.masks, p.heads};
  Tensor lse = empty(q, needs_lse ? lse_shape : std::vector<int64_t>{0}, ScalarType::Float);
  if (p.batches == 0) return {out, lse};
  Tensor value_sums = empty(q, {p.batches, p.own_masks, p.heads, p.dim}, ScalarType::Float);
  p.out = out.mutable_data_ptr();
  if (needs_lse) p.lse = floats(lse);
  if (any_key_outside(p)) p.value_sums = floats(value_sums);
  forward(p, dtype_of(q), reinterpret_cast<Stream>(stream));
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> run_backward(const Tensor& grad, const Tensor& q, const Tensor& k,
                                                        const Tensor& v, const Tensor& alpha,
                                                        const std::optional<Tensor>& centres,
                                                        const std::optional<Tensor>& key_mask, const Tensor& lse,
                                                        std::vector<int64_t> grid, std::vector<int64_t> windows,
                                                        bool exclusive, double scale, int64_t stream) {
  const Call call{q, k, v, alpha, centres, key_mask, grid, windows};
  check_features(call);
  check_backward(call, grad, lse);
  const Device device(q);
  Problem p = problem_of(call, exclusive, scale);
  Tensor dq = empty(q, {p.batches, p.rows, p.own_masks, p.heads, p.dim}, q.scalar_type());
  Tensor dk = empty(q, {p.batches, p.patches, p.own_masks, p.heads, p.dim}, q.scalar_type());
  Tensor dv = empty(q, {p.batches, p.patches, p.own_masks, p.heads, p.dim}, q.scalar_type());
  Tensor dalpha = empty(q, {p.batches, p.masks}, ScalarType::Float);
  if (p.batches == 0) return {dq, dk, dv, dalpha};
  const Tensor saved = torch::stable::contiguous(lse);
  Tensor value_sums = empty(q, {p.batches, p.own_masks, p.heads, p.dim}, ScalarType::Float);
  Tensor grad_sums = empty(q, {p.batches, p.masks, p.heads, p.dim}, ScalarType::Float);
  Tensor statistics = empty(q, {p.batches, p.rows, p.masks, p.heads, 4}, ScalarType::Float);
  p.grad = view_of(grad);
  p.lse = static_cast<float*>(saved.data_ptr());
  p.dq = dq.mutable_data_ptr(), p.dk = dk.mutable_data_ptr(), p.dv = dv.mutable_data_ptr();
  p.dalpha = floats(dalpha);
  p.statistics = static_cast<RowStatistics*>(statistics.mutable_data_ptr());
  if (any_key_outside(p)) p.value_sums = floats(value_sums), p.grad_sums = floats(grad_sums);
  backward(p, dtype_of(q), reinterpret_cast<Stream>(stream));
  return {dq, dk, dv, dalpha};
}

}  // namespace
}  // namespace diffrgen::cuda

DIFFRGEN_LIBRARY_IMPL(CUDA, m) {
  m.impl("forward", TORCH_BOX(&diffrgen::cuda::run_forward));
  m.impl("backward", TORCH_BOX(&diffrgen::cuda::run_backward));
}
