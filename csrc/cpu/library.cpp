// diffrgen_native::forward and ::backward on the CPU, on PyTorch's stable ABI. Shapes, dtypes and devices have been
// checked by the Python side; what is asserted here only keeps a direct caller from reading outside the tensors.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <tuple>
#include <vector>

#include "huge_pages.h"
#include "instruction_sets.h"

namespace diffrgen {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// DIFFRGEN_CPU=avx2 or portable keeps the better instruction sets out, for tests and comparisons.
std::string instruction_set() {
  const char* wish = std::getenv("DIFFRGEN_CPU");
  const std::string limit = wish == nullptr ? "avx512" : wish;
#ifdef DIFFRGEN_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (avx512 && limit == "avx512") return "avx512";
  if (avx2 && limit != "portable") return "avx2";
#endif
  return "portable";
}

template <class S>
Kernels kernels_of() {
  static const Kernels chosen = [] {
    const std::string set = instruction_set();
#ifdef DIFFRGEN_X86
    if (set == "avx512") return avx512::kernels<S>();
    if (set == "avx2") return avx2::kernels<S>();
#endif
    return portable::kernels<S>();
  }();
  return chosen;
}

Kernels kernels_for(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float: return kernels_of<float>();
    case ScalarType::Double: return kernels_of<double>();
    case ScalarType::Half: return kernels_of<Half>();
    case ScalarType::BFloat16: return kernels_of<BFloat16>();
    default: STD_TORCH_CHECK(false, "q: expected float32, float64, float16 or bfloat16");
  }
}

constexpr size_t kLine = 64;        // bytes of a cache line
constexpr size_t kCaches = 4 << 20;  // a gradient of more bytes than this is not kept in them

View view_of(const Tensor& x) {
  return {x.const_data_ptr(), x.stride(0), x.stride(1), x.stride(2), x.stride(3), x.stride(4)};
}

Problem problem_of(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& alpha,
                   const std::vector<int64_t>& grid, const std::vector<int64_t>& orders, bool exclusive, double scale) {
  STD_TORCH_CHECK(q.dim() == 5 && k.dim() == 5 && v.dim() == 5, "q, k, v: expected 5 axes each");
  STD_TORCH_CHECK(grid.size() == 2 && grid[0] * grid[1] == k.size(1), "grid: expected gh * gw = M = ", k.size(1));
  STD_TORCH_CHECK(alpha.dim() == 2 && alpha.size(1) == static_cast<int64_t>(orders.size()) && alpha.is_contiguous(),
                  "alpha: expected contiguous (B, P) with P = ", orders.size());
  Problem p{};
  p.batches = q.size(0), p.rows = q.size(1), p.patches = k.size(1), p.heads = q.size(3), p.dim = q.size(4);
  p.masks = alpha.size(1), p.shared = q.size(2) == 1;
  p.grid_height = grid[0], p.grid_width = grid[1], p.orders = orders.data();
  p.exclusive = exclusive, p.scale = scale, p.alpha = alpha.const_data_ptr();
  p.q = view_of(q), p.k = view_of(k), p.v = view_of(v);
  return p;
}

// Heads whose rows are read together: as many as leave their buffers, and what is fetched for the next ones, in a
// second-level cache of a megabyte, while every thread has two units or more.
int64_t heads_at_once(const Problem& p) {
  const int64_t bytes = 4 * (4 * p.rows + 6 * p.patches) * p.dim, for_cache = (int64_t{384} << 10) / bytes;
  const int64_t for_threads = p.batches * p.heads / (2 * static_cast<int64_t>(torch::stable::get_num_threads()));
  const int64_t limit = std::clamp<int64_t>(std::min(for_cache, for_threads), 1, p.heads);
  const int64_t groups = (p.heads + limit - 1) / limit;
  return (p.heads + groups - 1) / groups;
}

void run(Problem& p, Kernel kernel) {
  p.heads_at_once = heads_at_once(p);
  const int64_t groups = (p.heads + p.heads_at_once - 1) / p.heads_at_once;
  torch::stable::parallel_for(0, p.batches * groups, 1, [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
}

// Touching 24 MB of new memory for the first time took 3.5 ms in huge pages and 10.7 ms without (Xeon, Linux 6.18).
Tensor empty(std::vector<int64_t> shape, ScalarType dtype) {
  Tensor x = torch::stable::empty(shape, dtype);
  ask_for_huge_pages(x.const_data_ptr(), static_cast<size_t>(x.numel()) * x.element_size());
  return x;
}

// New tensors in one piece of memory, which is freed with the last of them. glibc hands memory back to the system where
// more is free than twice its largest piece so far: three gradients of 7 MB were mapped and cleared anew in every call,
// which took 3 of 16 ms (AMD EPYC, Zen 4).
std::vector<Tensor> empty_together(const std::vector<std::vector<int64_t>>& shapes, const Tensor& like) {
  std::vector<size_t> offsets{0};
  for (const std::vector<int64_t>& shape : shapes) {
    size_t bytes = like.element_size();
    for (const int64_t extent : shape) bytes *= static_cast<size_t>(extent);
    offsets.push_back(offsets.back() + (bytes + kLine - 1) / kLine * kLine);
  }
  const std::align_val_t line{kLine};
  const std::shared_ptr<char> memory(static_cast<char*>(::operator new(offsets.back(), line)),
                                     [line](char* bytes) { ::operator delete(bytes, line); });
  ask_for_huge_pages(memory.get(), offsets.back());
  std::vector<Tensor> found;
  for (size_t i = 0; i < shapes.size(); ++i) {
    std::vector<int64_t> strides(shapes[i].size(), 1);
    for (size_t axis = strides.size() - 1; axis > 0; --axis) strides[axis - 1] = strides[axis] * shapes[i][axis];
    found.push_back(torch::stable::from_blob(memory.get() + offsets[i], shapes[i], strides, like.device(),
                                             like.scalar_type(), [memory](void*) {}));
  }
  return found;
}

std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& alpha,
                                   std::vector<int64_t> grid, std::vector<int64_t> orders, bool exclusive, double scale,
                                   bool needs_grad, int64_t stream) {
  const Tensor weights = torch::stable::contiguous(alpha);
  Problem p = problem_of(q, k, v, weights, grid, orders, exclusive, scale);
  Tensor out = empty({p.batches, p.rows, p.heads, p.dim}, q.scalar_type());
  Tensor lse = empty(needs_grad ? std::vector<int64_t>{p.batches, p.rows, p.masks, p.heads} : std::vector<int64_t>{0},
                     alpha.scalar_type());
  p.out = out.mutable_data_ptr();
  p.lse = needs_grad ? lse.mutable_data_ptr() : nullptr;
  run(p, kernels_for(q.scalar_type()).forward);
  return {out, lse};
}

Tensor sum_heads(const Problem& p, const std::vector<double>& shares, ScalarType dtype) {
  Tensor dalpha = empty({p.batches, p.masks}, dtype);
  for (int64_t b = 0; b < p.batches; ++b)
    for (int64_t j = 0; j < p.masks; ++j) {
      double total = 0;
      for (int64_t h = 0; h < p.heads; ++h) total += shares[(b * p.masks + j) * p.heads + h];
      if (dtype == ScalarType::Double) {
        static_cast<double*>(dalpha.mutable_data_ptr())[b * p.masks + j] = total;
      } else {
        static_cast<float*>(dalpha.mutable_data_ptr())[b * p.masks + j] = static_cast<float>(total);
      }
    }
  return dalpha;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& q, const Tensor& k,
                                                    const Tensor& v, const Tensor& alpha, const Tensor& lse,
                                                    std::vector<int64_t> grid, std::vector<int64_t> orders,
                                                    bool exclusive, double scale, int64_t stream) {
  const Tensor weights = torch::stable::contiguous(alpha);
  Problem p = problem_of(q, k, v, weights, grid, orders, exclusive, scale);
  STD_TORCH_CHECK(grad.dim() == 4, "grad: expected 4 axes");
  const Tensor saved = torch::stable::contiguous(lse);
  STD_TORCH_CHECK(saved.numel() == p.batches * p.rows * p.masks * p.heads && saved.scalar_type() == alpha.scalar_type(),
                  "lse: expected what forward returned with needs_grad");
  p.lse = const_cast<void*>(saved.const_data_ptr());
  const ScalarType dtype = q.scalar_type();
  const std::vector<int64_t> of_rows{p.batches, p.rows, q.size(2), p.heads, p.dim};
  const std::vector<int64_t> of_patches{p.batches, p.patches, q.size(2), p.heads, p.dim};
  const std::vector<Tensor> gradients = empty_together({of_rows, of_patches, of_patches}, q);
  const Tensor &dq = gradients[0], &dk = gradients[1], &dv = gradients[2];
  std::vector<double> shares(static_cast<size_t>(p.batches * p.heads * p.masks));
  p.grad = {grad.const_data_ptr(), grad.stride(0), grad.stride(1), 0, grad.stride(2), grad.stride(3)};
  p.dq = dq.mutable_data_ptr(), p.dk = dk.mutable_data_ptr(), p.dv = dv.mutable_data_ptr();
  p.dalpha = shares.data();
  p.past_caches = static_cast<size_t>(dq.numel()) * dq.element_size() > kCaches;
  run(p, kernels_for(dtype).backward);
  return {dq, dk, dv, sum_heads(p, shares, alpha.scalar_type())};
}

}  // namespace
}  // namespace diffrgen

STABLE_TORCH_LIBRARY_IMPL(diffrgen_native, CPU, m) {
  m.impl("forward", TORCH_BOX(&diffrgen::forward));
  m.impl("backward", TORCH_BOX(&diffrgen::backward));
}
