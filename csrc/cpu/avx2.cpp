// x86-64 with AVX2 and FMA: 16 registers of 8 floats.
#include "instruction_sets.h"

#ifdef DIFFRGEN_X86
#define DIFFRGEN_NAMESPACE avx2
#define DIFFRGEN_VECTOR_BYTES 32
#define DIFFRGEN_REGISTERS 16
DIFFRGEN_TARGET_BEGIN("avx2,fma,f16c")
#include "kernels.inl"
DIFFRGEN_TARGET_END
#endif
