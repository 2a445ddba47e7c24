// The operator's two functions, on PyTorch's stable ABI. `lse` is (B, N, P, H) with `needs_grad`, else empty; without
// `needs_grad` a mask with alpha = 0 is not run. `stream` is the handle of the CUDA stream; the CPU does not use it.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(diffrgen_native, m) {
  m.def(
      "forward(Tensor q, Tensor k, Tensor v, Tensor alpha, int[] grid, int[] orders, bool exclusive, float scale, "
      "bool needs_grad, int stream) -> (Tensor out, Tensor lse)");
  m.def(
      "backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor alpha, Tensor lse, int[] grid, int[] orders, "
      "bool exclusive, float scale, int stream) -> (Tensor, Tensor, Tensor, Tensor)");
}
