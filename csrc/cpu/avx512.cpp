// x86-64 with AVX-512: 32 registers of 16 floats.
#include "instruction_sets.h"

#ifdef DIFFRGEN_X86
#define DIFFRGEN_NAMESPACE avx512
#define DIFFRGEN_VECTOR_BYTES 64
#define DIFFRGEN_REGISTERS 32
DIFFRGEN_TARGET_BEGIN("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#include "kernels.inl"
DIFFRGEN_TARGET_END
#endif
