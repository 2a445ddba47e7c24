// What both devices' entry points check of a call, whoever calls: every number that an address is computed from.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <vector>

namespace diffrgen {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kMaxHeadDim = 256;
constexpr int64_t kMaxRows = int64_t{1} << 30;  // so that products of a few sizes fit in 64 bits

// The arguments that forward and backward share.
struct Call {
  const Tensor &q, &k, &v, &alpha;
  const std::optional<Tensor>&centres, &key_mask;
  const std::vector<int64_t>&grid, &windows;

  int64_t batches() const { return q.size(0); }
  int64_t rows() const { return q.size(1); }
  int64_t keys() const { return k.size(1); }
  int64_t heads() const { return q.size(3); }
  int64_t dim() const { return q.size(4); }
  int64_t masks() const { return alpha.size(alpha.dim() - 1); }
  int64_t patches() const { return grid[0] * grid[1]; }
  bool row_alpha() const { return alpha.dim() == 3; }
};

inline ScalarType sum_type(ScalarType type) { return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float; }

inline bool same_device(const Tensor& x, const Tensor& y) {
  return x.is_cpu() == y.is_cpu() && x.is_cuda() == y.is_cuda() && x.get_device_index() == y.get_device_index();
}

inline void check_projection(const Tensor& x, const char* name, const Tensor& q, int64_t rows) {
  STD_TORCH_CHECK(x.dim() == 5, name, ": expected 5 axes, got ", x.dim());
  STD_TORCH_CHECK(x.scalar_type() == q.scalar_type(), name, ": expected the dtype of q");
  STD_TORCH_CHECK(same_device(x, q), name, ": expected the device of q");
  for (const int64_t axis : {0, 2, 3, 4})
    STD_TORCH_CHECK(x.size(axis) == q.size(axis), name, ": expected the size of q along axis ", axis, ", ", q.size(axis),
                    ", got ", x.size(axis));
  STD_TORCH_CHECK(rows < 0 || x.size(1) == rows, name, ": expected ", rows, " rows (axis 1), got ", x.size(1));
}

inline void check_grid(const Call& call) {
  STD_TORCH_CHECK(call.grid.size() == 2, "grid: expected (gh, gw), got ", call.grid.size(), " numbers");
  const int64_t height = call.grid[0], width = call.grid[1], keys = call.keys();
  STD_TORCH_CHECK(height > 0 && width > 0 && height <= keys && width <= keys && keys % (height * width) == 0,
                  "grid: expected M = ", keys, " to be a multiple of gh * gw, got (", height, ", ", width, ")");
}

inline void check_windows(const Call& call) {
  STD_TORCH_CHECK(static_cast<int64_t>(call.windows.size()) == 2 * call.masks(), "windows: expected two numbers for each of ",
                  call.masks(), " masks, got ", call.windows.size());
  for (const int64_t size : call.windows)
    STD_TORCH_CHECK(size >= 0, "windows: expected numbers >= 0, got ", size);
}

inline void check_alpha(const Call& call) {
  const Tensor& alpha = call.alpha;
  STD_TORCH_CHECK(alpha.dim() == 2 || alpha.dim() == 3, "alpha: expected 2 or 3 axes, got ", alpha.dim());
  STD_TORCH_CHECK(alpha.scalar_type() == sum_type(call.q.scalar_type()), "alpha: expected float32 (float64 with float64)");
  STD_TORCH_CHECK(same_device(alpha, call.q), "alpha: expected the device of q");
  STD_TORCH_CHECK(alpha.size(0) == call.batches(), "alpha: expected the batch size of q, ", call.batches(), ", got ",
                  alpha.size(0));
  STD_TORCH_CHECK(!call.row_alpha() || alpha.size(1) == call.rows(), "alpha: expected the rows of q, ", call.rows(),
                  ", got ", alpha.size(1));
  STD_TORCH_CHECK(call.q.size(2) == 1 || call.q.size(2) == call.masks(), "q: expected 1 or P = ", call.masks(),
                  " along axis 2, got ", call.q.size(2));
}

inline void check_optional(const Call& call) {
  if (call.centres.has_value()) {
    const Tensor& x = *call.centres;
    STD_TORCH_CHECK(x.dim() == 2 && (x.size(0) == 1 || x.size(0) == call.batches()) && x.size(1) == call.rows(),
                    "centres: expected (B or 1, N)");
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Long && same_device(x, call.q),
                    "centres: expected int64 on the device of q");
  }
  if (call.key_mask.has_value()) {
    const Tensor& x = *call.key_mask;
    STD_TORCH_CHECK(x.dim() == 2 && x.size(0) == call.batches() && x.size(1) == call.keys(), "key_mask: expected (B, M)");
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Bool && same_device(x, call.q),
                    "key_mask: expected bool on the device of q");
  }
}

inline void check_call(const Call& call) {
  const Tensor& q = call.q;
  STD_TORCH_CHECK(q.dim() == 5, "q: expected 5 axes, got ", q.dim());
  const ScalarType type = q.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
                      type == ScalarType::BFloat16,
                  "q: expected float32, float64, float16 or bfloat16");
  check_projection(call.k, "k", q, -1);
  check_projection(call.v, "v", q, call.k.size(1));
  for (const int64_t axis : {1, 2, 3, 4})
    STD_TORCH_CHECK(q.size(axis) > 0, "q: expected at least one element along axis ", axis);
  STD_TORCH_CHECK(q.size(4) <= kMaxHeadDim, "q: expected D of at most ", kMaxHeadDim, ", got ", q.size(4));
  STD_TORCH_CHECK(call.keys() > 0, "k: expected at least one element along axis 1");
  STD_TORCH_CHECK(q.size(1) <= kMaxRows && call.keys() <= kMaxRows, "expected at most 2^30 rows, got N = ", q.size(1),
                  " and M = ", call.keys());
  check_alpha(call);
  check_grid(call);
  check_windows(call);
  check_optional(call);
}

inline void check_backward(const Call& call, const Tensor& grad, const Tensor& lse) {
  const Tensor& q = call.q;
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == q.size(0) && grad.size(1) == q.size(1) &&
                      grad.size(2) == q.size(3) && grad.size(3) == q.size(4),
                  "grad: expected (B, N, H, D) as q");
  STD_TORCH_CHECK(grad.scalar_type() == q.scalar_type() && same_device(grad, q), "grad: expected the dtype and device of q");
  STD_TORCH_CHECK(lse.dim() == 4 && lse.size(0) == q.size(0) && lse.size(1) == q.size(1) && lse.size(2) == call.masks() &&
                      lse.size(3) == q.size(3),
                  "lse: expected forward's (B, N, P, H) of a call with needs_lse");
  STD_TORCH_CHECK(lse.scalar_type() == sum_type(q.scalar_type()) && same_device(lse, q),
                  "lse: expected the dtype of the sums, on the device of q");
}

}  // namespace diffrgen
