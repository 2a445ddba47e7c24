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

template <class T>
inline Vector<T> splat(T value) {
  return value - Vector<T>{};
}

// Halves are combined until one lane is left.
template <class T>
inline T sum(Vector<T> value) {
  T lanes[kLanes<T>];
  store(lanes, value);
  for (int64_t half = kLanes<T> / 2; half > 0; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

template <class T>
inline T largest_lane(Vector<T> value) {
  T lanes[kLanes<T>];
  store(lanes, value);
  for (int64_t half = kLanes<T> / 2; half > 0; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane)
      lanes[lane] = lanes[lane + half] > lanes[lane] ? lanes[lane + half] : lanes[lane];
  return lanes[0];
}

// exp for x <= 0 within 2 ulp; 0 below the normal numbers; NaN stays NaN.
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

inline Vector<double> exp_of(Vector<double> x) {
  for (int64_t lane = 0; lane < kLanes<double>; ++lane) x[lane] = std::exp(x[lane]);
  return x;
}
