// One call of the operator through the emulated kernels: the call comes on stdin, its results go to stdout.
// Every tensor lies in a piece of memory of just its size; results and workspaces start as NaN.
#include <cstdio>
#include <utility>

#include "launch.h"

namespace {

using namespace diffrgen::cuda;

struct Header {
  int32_t dtype, gradients, batches, rows, patches, heads, dim, masks, own_masks, grid_height, grid_width, exclusive;
  float scale;
};

std::vector<std::unique_ptr<char[]>> memory;
std::vector<std::pair<char*, int64_t>> results;

char* reserve(int64_t bytes) {
  memory.emplace_back(new char[bytes]);
  std::memset(memory.back().get(), 0xff, bytes);
  return memory.back().get();
}

void read(void* to, int64_t bytes) {
  if (std::fread(to, 1, bytes, stdin) != static_cast<size_t>(bytes)) std::abort();
}

// Five strides in elements, the length in bytes, the bytes.
View read_view(int dim, int element_bytes) {
  int64_t words[6];
  read(words, sizeof words);
  char* const data = reserve(words[5]);
  read(data, words[5]);
  View view{data, words[0], words[1], words[2], words[3], words[4], false};
  view.vectors = reads_vectors(view, dim, element_bytes);
  return view;
}

// A tensor that is written to stdout at the end.
void* result(int64_t bytes) {
  results.push_back({reserve(bytes), bytes});
  return results.back().first;
}

float* workspace(int64_t floats) { return reinterpret_cast<float*>(reserve(4 * floats)); }

Problem read_problem(const Header& h, int element_bytes) {
  Problem p{};
  p.batches = h.batches, p.rows = h.rows, p.patches = h.patches, p.heads = h.heads, p.dim = h.dim, p.masks = h.masks;
  p.own_masks = h.own_masks, p.grid_height = h.grid_height, p.grid_width = h.grid_width;
  p.exclusive = h.exclusive != 0, p.skip_zero = h.gradients == 0, p.scale = h.scale;
  std::vector<int64_t> windows(2 * p.masks);
  read(windows.data(), windows.size() * sizeof(int64_t));
  for (int j = 0; j < p.masks; ++j) p.orders[j] = order_on_grid(windows[2 * j], windows[2 * j + 1], p);
  p.q = read_view(p.dim, element_bytes), p.k = read_view(p.dim, element_bytes), p.v = read_view(p.dim, element_bytes);
  const View alpha = read_view(1, 4);
  p.alpha = static_cast<const float*>(alpha.data), p.alpha_batch = alpha.batch, p.alpha_mask = alpha.mask;
  p.grad = read_view(p.dim, element_bytes);
  return p;
}

void run(Problem& p, Dtype dtype, int element_bytes, bool gradients) {
  const int64_t queries = int64_t{p.batches} * p.rows * p.heads, keys = int64_t{p.batches} * p.patches * p.heads;
  const int64_t vectors = int64_t{p.batches} * p.heads * p.dim, width = int64_t{element_bytes} * p.dim;
  if (any_key_outside(p)) p.value_sums = workspace(vectors * p.own_masks), p.grad_sums = workspace(vectors * p.masks);
  p.out = result(queries * width);
  if (gradients) p.lse = workspace(queries * p.masks);
  forward(p, dtype, nullptr);
  if (!gradients) return;
  p.dq = result(queries * p.own_masks * width);
  p.dk = result(keys * p.own_masks * width);
  p.dv = result(keys * p.own_masks * width);
  p.dalpha = static_cast<float*>(result(int64_t{p.batches} * p.masks * 4));
  p.statistics = reinterpret_cast<RowStatistics*>(workspace(queries * p.masks * 4));
  backward(p, dtype, nullptr);
}

}  // namespace

int main() {
  Header h;
  read(&h, sizeof h);
  const auto dtype = static_cast<Dtype>(h.dtype);
  const int element_bytes = dtype == Dtype::float32 ? 4 : 2;
  Problem p = read_problem(h, element_bytes);
  run(p, dtype, element_bytes, h.gradients != 0);
  for (const auto& [data, bytes] : results) std::fwrite(data, 1, bytes, stdout);
  return 0;
}
