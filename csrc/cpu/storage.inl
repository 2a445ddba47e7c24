// Vectors of storage in the dtype of the sums, and back (rounded to nearest even). PyTorch's own conversions of single
// numbers compute half in software here, since its headers are compiled for every processor.

// Whether storage S has conversions of whole vectors.
template <class S>
constexpr bool kVectorStorage = std::is_same_v<S, float> || std::is_same_v<S, double> || std::is_same_v<S, BFloat16> ||
#if defined(DIFFRGEN_X86) && DIFFRGEN_VECTOR_BYTES >= 32
                                std::is_same_v<S, Half>;
#else
                                false;
#endif

typedef uint16_t Bits16 __attribute__((vector_size(DIFFRGEN_VECTOR_BYTES / 2)));
typedef uint16_t LooseBits16 __attribute__((vector_size(DIFFRGEN_VECTOR_BYTES / 2), aligned(2), may_alias));
typedef uint32_t Bits32 __attribute__((vector_size(DIFFRGEN_VECTOR_BYTES)));

inline Vector<float> read_vector(const float* from) { return load(from); }
inline Vector<double> read_vector(const double* from) { return load(from); }
inline void write_vector(float* to, Vector<float> value) { store(to, value); }
inline void write_vector(double* to, Vector<double> value) { store(to, value); }

inline Vector<float> read_vector(const BFloat16* from) {
  const Bits16 bits = *reinterpret_cast<const LooseBits16*>(from);
  return (Vector<float>)(__builtin_convertvector(bits, Bits32) << 16);
}

inline void write_vector(BFloat16* to, Vector<float> value) {
  const Bits32 bits = (Bits32)value, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits32 nan = Bits32{} + 0x7fc0;
  *reinterpret_cast<LooseBits16*>(to) = __builtin_convertvector(value == value ? rounded : nan, Bits16);
}

#if defined(DIFFRGEN_X86) && DIFFRGEN_VECTOR_BYTES == 64
inline Vector<float> read_vector(const Half* from) {
  return (Vector<float>)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

inline void write_vector(Half* to, Vector<float> value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_maskz_cvtps_ph(0xffff, (__m512)value, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(DIFFRGEN_X86) && DIFFRGEN_VECTOR_BYTES == 32
inline Vector<float> read_vector(const Half* from) {
  return (Vector<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

inline void write_vector(Half* to, Vector<float> value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT));
}
#endif
