// The kernels are compiled once for each instruction set; the processor chooses at run time.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "problem.h"
#include "scratch.h"

// DIFFRGEN_PORTABLE leaves the kernels for x86-64 out, as on other processors
#if defined(__x86_64__) && !defined(DIFFRGEN_PORTABLE)
#define DIFFRGEN_X86 1
#include <immintrin.h>
#endif

#define DIFFRGEN_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define DIFFRGEN_TARGET_BEGIN(set) \
  DIFFRGEN_PRAGMA(clang attribute push(__attribute__((target(set))), apply_to = function))
#define DIFFRGEN_TARGET_END DIFFRGEN_PRAGMA(clang attribute pop)
#else
#define DIFFRGEN_TARGET_BEGIN(set) DIFFRGEN_PRAGMA(GCC push_options) DIFFRGEN_PRAGMA(GCC target(set))
#define DIFFRGEN_TARGET_END DIFFRGEN_PRAGMA(GCC pop_options)
#endif

namespace diffrgen {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// S: the dtype of q, k and v in memory; sums are float, or double for double.
namespace avx512 {
template <class S>
Kernels kernels();
}
namespace avx2 {
template <class S>
Kernels kernels();
}
namespace portable {
template <class S>
Kernels kernels();
}

}  // namespace diffrgen
