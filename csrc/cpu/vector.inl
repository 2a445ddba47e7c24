// Vectors of the compiler (GCC, Clang) at the width of the instruction set that includes this file.

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(DIFFRGEN_VECTOR_BYTES)));
  typedef float loose __attribute__((vector_size(DIFFRGEN_VECTOR_BYTES), aligned(4), may_alias));
  typedef int32_t bits __attribute__((vector_size(DIFFRGEN_VECTOR_BYTES)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(DIFFRGEN_VECTOR_BYTES)));
  typedef double loose __attribute__((vector_size(DIFFRGEN_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t bits __attribute__((vector_size(DIFFRGEN_VECTOR_BYTES)));
};
template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
constexpr int64_t kLanes = DIFFRGEN_VECTOR_BYTES / sizeof(T);

template <class T>
inline int64_t padded(int64_t count) {
  return (count + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

template <class T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T>::loose*>(from);
}

template <class T>
inline void store(T* to, Vector<T> value) {
  *reinterpret_cast<typename VectorOf<T>::loose*>(to) = value;
}

// A store past the caches, for results larger than they are; `to` is aligned to the vector. end_stream() orders these.
inline void stream(float* to, Vector<float> value) {
#if defined(__x86_64__) && !defined(__clang__) && DIFFRGEN_VECTOR_BYTES == 64
  __builtin_ia32_movntps512(to, value);
#elif defined(__x86_64__) && !defined(__clang__) && DIFFRGEN_VECTOR_BYTES == 32
  __builtin_ia32_movntps256(to, value);
#else
  store(to, value);
#endif
}

inline void end_stream() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

template <class T>
inline Vector<T> splat(T value) {
  return value - Vector<T>{};
}

// Lane i of the result is lane Index[i] of a followed by b.
template <class T, int64_t... Index>
inline Vector<T> shuffle(Vector<T> a, Vector<T> b, std::integer_sequence<int64_t, Index...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Index...);
#else
  return __builtin_shuffle(a, b, typename VectorOf<T>::bits{Index...});
#endif
}

template <class T>
using Lanes = std::make_integer_sequence<int64_t, kLanes<T>>;

template <int64_t Distance, int64_t... Lane>
constexpr auto exchanged(std::integer_sequence<int64_t, Lane...>) {
  return std::integer_sequence<int64_t, (Lane ^ Distance)...>{};
}

// The sum of all lanes, in every lane.
template <class T, int64_t Distance = kLanes<T> / 2>
inline Vector<T> sum(Vector<T> value) {
  value += shuffle<T>(value, value, exchanged<Distance>(Lanes<T>{}));
  if constexpr (Distance > 1) value = sum<T, Distance / 2>(value);
  return value;
}

// The largest lane, in every lane.
template <class T, int64_t Distance = kLanes<T> / 2>
inline Vector<T> largest(Vector<T> value) {
  const Vector<T> other = shuffle<T>(value, value, exchanged<Distance>(Lanes<T>{}));
  value = other > value ? other : value;
  if constexpr (Distance > 1) value = largest<T, Distance / 2>(value);
  return value;
}

// a0 b0 a1 b1 ... of the lower (Half = 0) or upper (Half = 1) halves of a and b.
template <int64_t Half, int64_t... Lane>
constexpr auto interleaved(std::integer_sequence<int64_t, Lane...>) {
  constexpr int64_t lanes = sizeof...(Lane);
  return std::integer_sequence<int64_t, (Half * lanes / 2 + Lane / 2 + Lane % 2 * lanes)...>{};
}

// Transposes a square of vectors: interleaving i with i + n/2 moves one bit of the row number into the lane number.
template <class T>
inline void transpose_square(Vector<T>* rows) {
  constexpr int64_t lanes = kLanes<T>;
#pragma GCC unroll 4
  for (int64_t bit = 1; bit < lanes; bit *= 2) {
    Vector<T> next[lanes];
#pragma GCC unroll 8
    for (int64_t i = 0; i < lanes / 2; ++i) {
      next[2 * i] = shuffle<T>(rows[i], rows[i + lanes / 2], interleaved<0>(Lanes<T>{}));
      next[2 * i + 1] = shuffle<T>(rows[i], rows[i + lanes / 2], interleaved<1>(Lanes<T>{}));
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes; ++i) rows[i] = next[i];
  }
}

// exp for x <= 0 (and just above) within 2 ulp; 0 below the normal numbers; NaN stays NaN.
inline Vector<float> exp_of(Vector<float> x) {
  using Bits = VectorOf<float>::bits;
  const Vector<float> lowest = splat(-87.3f), magic = splat(12582912.0f);  // 1.5 * 2^23 rounds to a whole number
  const Bits underflow = x < lowest;
  x = underflow ? lowest : x;
  const Vector<float> shifted = x * splat(1.44269504f) + magic;
  const Vector<float> n = shifted - magic;
  const Vector<float> r = (x - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
  Vector<float> p = splat(1.9875691500e-4f) * r + splat(1.3981999507e-3f);  // Cephes expf
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  const Vector<float> y = (p * r) * r + r + splat(1.0f);
  const Bits exponent = ((Bits)shifted - (Bits)magic + 127) << 23;
  return underflow ? splat(0.0f) : y * (Vector<float>)exponent;
}

// The same; the series of the exponential up to the 13th power leaves less than a rounding.
inline Vector<double> exp_of(Vector<double> x) {
  using Bits = VectorOf<double>::bits;
  const Vector<double> lowest = splat(-708.0), magic = splat(6755399441055744.0);  // 1.5 * 2^52
  const Bits underflow = x < lowest;
  x = underflow ? lowest : x;
  const Vector<double> shifted = x * splat(1.4426950408889634) + magic;
  const Vector<double> n = shifted - magic;
  // ln 2 in two parts, of which the first has 32 bits: its products with n are exact
  const Vector<double> r = (x - n * splat(6.93147180369123816490e-1)) - n * splat(1.90821492927058770002e-10);
  Vector<double> p = splat(1.0 / 6227020800);  // 1 / 13!
  double factorial = 6227020800;
#pragma GCC unroll 13
  for (int power = 13; power > 0; --power) {
    factorial /= power;
    p = p * r + splat(1 / factorial);
  }
  const Bits exponent = ((Bits)shifted - (Bits)magic + 1023) << 52;
  return underflow ? splat(0.0) : p * (Vector<double>)exponent;
}

// The logarithm of a sum of weights: 1 or more, or 0 where there is no key. exp and log of doubles are symbols of glibc
// 2.29, log1p is an old one: a wheel built here loads with glibc 2.28.
inline float log_of(float sum) { return std::log(sum); }
inline double log_of(double sum) { return std::log1p(sum - 1); }
