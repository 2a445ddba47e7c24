// What the kernels use of the GPU beyond C++: shared memory, warp exchange, tensor cores (sm_80 and later), launching.
// A plain C++ compiler takes the same names from tests/cuda_emulation/emulated.h, which runs the kernels on a CPU.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "problem.h"

#if !defined(__CUDACC__)
#include "emulated.h"
#else
#include <cuda_runtime.h>
#include <torch/headeronly/util/Exception.h>

namespace diffrgen::cuda {

using Stream = cudaStream_t;

__device__ inline unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

// Hides from the compiler where the bits come from: it would carry each of them in a register of its own.
__device__ inline uint32_t in_one_register(uint32_t bits) {
  asm volatile("" : "+r"(bits));
  return bits;
}

// Starts to copy 16 bytes to shared memory, or zeros if they are not `there`; `from` is an address that may be read.
__device__ inline void start_copy(void* to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(to))),
               "l"(__cvta_generic_to_global(from)), "r"(there ? 16 : 0)
               : "memory");
}

// The thread's copies have arrived; other threads see them behind the next barrier.
__device__ inline void finish_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// The value of the lane whose number differs in the bits of `mask`.
__device__ inline float exchange(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

// Four 8 x 8 matrices of 16-bit elements; lane l names row l % 8 of matrix l / 8 and gets of each matrix the elements
// (l / 4, 2 (l % 4) + {0, 1}), or the transposed matrix's.
template <bool transposed>
__device__ inline void load_matrices(uint32_t (&to)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
  }
}

// c (16 x 8) += a (16 x 16) b (16 x 8), in the layouts of PTX's mma.m16n8k16.
__device__ inline void multiply_add(float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1, c10::Half) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline void multiply_add(float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1, c10::BFloat16) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

inline void check(cudaError_t error, const char* what) {
  STD_TORCH_CHECK(error == cudaSuccess, "CUDA: ", what, ": ", cudaGetErrorString(error));
}

// One-dimensional grid; the kernel takes one argument by value.
template <class Argument>
void launch(void (*kernel)(Argument), int64_t blocks, int threads, int shared_bytes, Stream stream,
            const Argument& argument) {
  STD_TORCH_CHECK(blocks < (int64_t{1} << 31), "the call is too large for one launch: expected fewer than 2^31 blocks",
                  ", got ", blocks);
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             shared_bytes),
        "shared memory");
  kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes, stream>>>(argument);
  check(cudaGetLastError(), "launch");
}

}  // namespace diffrgen::cuda
#endif
