// diffrgen_native::forward and ::backward on the CPU, on PyTorch's stable ABI.
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "../checks.h"
#include "../namespace.h"
#include "huge_pages.h"
#include "instruction_sets.h"

namespace diffrgen {
namespace {

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

// The problem of a call, and what of it lies in memory of its own.
struct Prepared {
  Problem p{};
  std::vector<WindowSize> windows;
  Tensor alpha, key_mask;
  std::vector<int64_t> centres, row_order, key_counts;
};

// Rows in the order of their centres, so that those with centres in the same grid row follow each other.
void sort_rows(const Tensor& given, Prepared& x) {
  const int64_t studies = given.size(0), rows = given.size(1), patches = x.p.patches();
  const Tensor whole = torch::stable::contiguous(given);
  const int64_t* centres = static_cast<const int64_t*>(whole.const_data_ptr());
  for (int64_t i = 0; i < studies * rows; ++i)
    STD_TORCH_CHECK(centres[i] >= 0 && centres[i] < patches, "centres: expected patches from 0 to ", patches - 1, ", got ",
                    centres[i]);
  for (int64_t b = 0; b < studies; ++b, centres += rows) {
    const auto begin = static_cast<std::ptrdiff_t>(x.row_order.size());
    x.row_order.resize(x.row_order.size() + rows);
    std::iota(x.row_order.begin() + begin, x.row_order.end(), int64_t{0});
    std::stable_sort(x.row_order.begin() + begin, x.row_order.end(),
                     [&](int64_t i, int64_t j) { return centres[i] < centres[j]; });
    for (auto at = x.row_order.begin() + begin; at != x.row_order.end(); ++at) x.centres.push_back(centres[*at]);
  }
  x.p.centres = x.centres.data(), x.p.row_order = x.row_order.data();
  x.p.centres_batch = studies > 1 ? rows : 0;
}

void count_keys(Prepared& x) {
  Problem& p = x.p;
  p.key_mask = static_cast<const bool*>(x.key_mask.const_data_ptr());
  x.key_counts.assign(static_cast<size_t>(p.batches * p.counts_size()), 0);
  for (int64_t b = 0; b < p.batches; ++b) {
    const bool* exist = p.key_mask + b * p.keys;
    int64_t *above = x.key_counts.data() + b * p.counts_size(), *below = above + p.grid_width + 1;
    for (int64_t y = 0; y < p.grid_height; ++y, above = below, below += p.grid_width + 1)
      for (int64_t column = 0, in_row = 0; column < p.grid_width; ++column) {
        for (int64_t view = 0; view < p.views; ++view)
          in_row += exist[view * p.patches() + y * p.grid_width + column] ? 1 : 0;
        below[column + 1] = above[column + 1] + in_row;
      }
  }
  p.key_counts = x.key_counts.data();
}

Prepared prepare(const Call& call, bool exclusive, double scale) {
  Prepared x;
  Problem& p = x.p;
  p.batches = call.batches(), p.rows = call.rows(), p.keys = call.keys(), p.heads = call.heads(), p.dim = call.dim();
  p.masks = call.masks(), p.shared = call.q.size(2) == 1;
  p.grid_height = call.grid[0], p.grid_width = call.grid[1], p.views = p.keys / call.patches();
  for (int64_t j = 0; j < p.masks; ++j)  // beyond the grid nothing changes
    x.windows.push_back({std::min(call.windows[2 * j], p.grid_height), std::min(call.windows[2 * j + 1], p.grid_width)});
  p.windows = x.windows.data();
  p.exclusive = exclusive, p.scale = scale;
  x.alpha = torch::stable::contiguous(call.alpha);
  p.alpha = x.alpha.const_data_ptr(), p.row_alpha = call.row_alpha();
  p.q = view_of(call.q), p.k = view_of(call.k), p.v = view_of(call.v);
  if (call.centres.has_value()) sort_rows(*call.centres, x);
  if (call.key_mask.has_value()) x.key_mask = torch::stable::contiguous(*call.key_mask), count_keys(x);
  return x;
}

// Heads whose rows are read together: as many as leave their buffers, and what is fetched for the next ones, in a
// second-level cache of a megabyte, while every thread has two units or more.
int64_t heads_at_once(const Problem& p) {
  const int64_t bytes = 4 * (4 * p.rows + 6 * p.keys) * p.dim, for_cache = (int64_t{384} << 10) / bytes;
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
                                   const std::optional<Tensor>& centres, const std::optional<Tensor>& key_mask,
                                   std::vector<int64_t> grid, std::vector<int64_t> windows, bool exclusive, double scale,
                                   bool needs_lse, int64_t stream) {
  const Call call{q, k, v, alpha, centres, key_mask, grid, windows};
  check_call(call);
  Tensor out = empty({call.batches(), call.rows(), call.heads(), call.dim()}, q.scalar_type());
  const std::vector<int64_t> lse_shape{call.batches(), call.rows(), call.masks(), call.heads()};
  Tensor lse = empty(needs_lse ? lse_shape : std::vector<int64_t>{0}, alpha.scalar_type());
  if (call.batches() == 0) return {out, lse};
  Prepared prepared = prepare(call, exclusive, scale);
  Problem& p = prepared.p;
  p.out = out.mutable_data_ptr();
  p.lse = needs_lse ? lse.mutable_data_ptr() : nullptr;
  run(p, kernels_for(q.scalar_type()).forward);
  return {out, lse};
}

template <class T>
void sum_heads(const Problem& p, const std::vector<double>& shares, T* dalpha) {
  const int64_t rows = p.row_alpha ? p.rows : 1;
  for (int64_t b = 0; b < p.batches; ++b)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < p.masks; ++j) {
        double total = 0;
        for (int64_t h = 0; h < p.heads; ++h) total += shares[((b * p.masks + j) * p.heads + h) * rows + i];
        dalpha[(b * rows + i) * p.masks + j] = static_cast<T>(total);
      }
}

// Contiguous gradient of alpha from the heads' shares.
Tensor sum_heads(const Problem& p, const std::vector<double>& shares, const Tensor& alpha) {
  Tensor dalpha = empty({alpha.sizes().begin(), alpha.sizes().end()}, alpha.scalar_type());
  if (alpha.scalar_type() == ScalarType::Double) {
    sum_heads(p, shares, static_cast<double*>(dalpha.mutable_data_ptr()));
  } else {
    sum_heads(p, shares, static_cast<float*>(dalpha.mutable_data_ptr()));
  }
  return dalpha;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& q, const Tensor& k,
                                                    const Tensor& v, const Tensor& alpha,
                                                    const std::optional<Tensor>& centres,
                                                    const std::optional<Tensor>& key_mask, const Tensor& lse,
                                                    std::vector<int64_t> grid, std::vector<int64_t> windows,
                                                    bool exclusive, double scale, int64_t stream) {
  const Call call{q, k, v, alpha, centres, key_mask, grid, windows};
  check_call(call);
  check_backward(call, grad, lse);
  const std::vector<int64_t> of_rows{call.batches(), call.rows(), q.size(2), call.heads(), call.dim()};
  const std::vector<int64_t> of_keys{call.batches(), call.keys(), q.size(2), call.heads(), call.dim()};
  const std::vector<Tensor> gradients = empty_together({of_rows, of_keys, of_keys}, q);
  const Tensor &dq = gradients[0], &dk = gradients[1], &dv = gradients[2];
  Prepared prepared = prepare(call, exclusive, scale);
  Problem& p = prepared.p;
  std::vector<double> shares(static_cast<size_t>(p.batches * p.heads * p.masks * (p.row_alpha ? p.rows : 1)));
  if (p.batches > 0) {
    const Tensor saved = torch::stable::contiguous(lse);
    p.lse = const_cast<void*>(saved.const_data_ptr());
    p.grad = {grad.const_data_ptr(), grad.stride(0), grad.stride(1), 0, grad.stride(2), grad.stride(3)};
    p.dq = dq.mutable_data_ptr(), p.dk = dk.mutable_data_ptr(), p.dv = dv.mutable_data_ptr();
    p.dalpha = shares.data();
    p.past_caches = static_cast<size_t>(dq.numel()) * dq.element_size() > kCaches;
    run(p, kernels_for(q.scalar_type()).backward);
  }
  return {dq, dk, dv, sum_heads(p, shares, alpha)};
}

}  // namespace
}  // namespace diffrgen

DIFFRGEN_LIBRARY_IMPL(CPU, m) {
  m.impl("forward", TORCH_BOX(&diffrgen::forward));
  m.impl("backward", TORCH_BOX(&diffrgen::backward));
}
