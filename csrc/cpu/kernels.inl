// The kernels of one instruction set. The including file sets DIFFRGEN_NAMESPACE, DIFFRGEN_VECTOR_BYTES,
// DIFFRGEN_REGISTERS and the compiler's target; the standard headers are included before that, so that no shared inline
// function is compiled for a processor that may be absent.

namespace diffrgen {
namespace DIFFRGEN_NAMESPACE {
namespace {
#include "vector.inl"
#include "storage.inl"
#include "upcoming.inl"
#include "product.inl"
#include "pack.inl"
#include "tile.inl"
#include "softmax.inl"
#include "group.inl"
#include "forward.inl"
#include "backward.inl"
}  // namespace

template <class S>
Kernels kernels() {
  using T = std::conditional_t<std::is_same_v<S, double>, double, float>;
  return {forward<S, T>, backward<S, T>};
}

template Kernels kernels<float>();
template Kernels kernels<double>();
template Kernels kernels<Half>();
template Kernels kernels<BFloat16>();

}  // namespace DIFFRGEN_NAMESPACE
}  // namespace diffrgen
