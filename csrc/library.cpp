// The operator's two functions, on PyTorch's stable ABI. `lse` is (B, N, P, H) with `needs_lse`, else empty; without
// `needs_lse` a mask with alpha = 0 is not run. `windows`: for each mask the patches above (and below) and left (and
// right) of a window's centre. `stream` is the handle of the CUDA stream; the CPU does not use it.
#include "namespace.h"

#if defined(__GLIBC__)
// libstdc++ asks this variable, which glibc has from 2.32 on, whether references may be counted without atomic
// operations. This one, of the library's own, says no, so that the library also loads with glibc 2.28.
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
#endif

DIFFRGEN_LIBRARY(m) {
  m.def(
      "forward(Tensor q, Tensor k, Tensor v, Tensor alpha, Tensor? centres, Tensor? key_mask, int[] grid, int[] windows, "
      "bool exclusive, float scale, bool needs_lse, int stream) -> (Tensor out, Tensor lse)");
  m.def(
      "backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor alpha, Tensor? centres, Tensor? key_mask, Tensor lse, "
      "int[] grid, int[] windows, bool exclusive, float scale, int stream) -> (Tensor, Tensor, Tensor, Tensor)");
}
