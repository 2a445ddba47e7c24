// Every other processor: vectors of 4 floats, which the compiler maps to what there is (SSE2, NEON, scalars).
#include "instruction_sets.h"

#define DIFFRGEN_NAMESPACE portable
#define DIFFRGEN_VECTOR_BYTES 16
#define DIFFRGEN_REGISTERS 16
#include "kernels.inl"
