// Rows of strided storage (float, double, bfloat16, half) to and from padded rows of the dtype of the sums.

constexpr int64_t kAhead = 4;  // rows that are fetched before they are read

template <class S>
inline void fetch(const S* from, int64_t dim) {
  for (int64_t d = 0; d < dim; d += 64 / sizeof(S)) __builtin_prefetch(from + d);
}

// to[d] = factor * from[d]; zeros from `dim` to `width`.
template <class S, class T>
inline void pack_row(const S* from, int64_t step, int64_t dim, T factor, T* to, int64_t width) {
  int64_t d = 0;
  if constexpr (kVectorStorage<S>) {
    if (step == 1)
      for (; d + kLanes<T> <= dim; d += kLanes<T>) store(to + d, read_vector(from + d) * splat(factor));
  }
  for (; d < dim; ++d) to[d] = factor * static_cast<T>(from[d * step]);
  for (; d < width; ++d) to[d] = T(0);
}

// Which rows of storage there are: the i-th is at `order`[i], or i where that is null. `exist`: those that do not exist
// are zeros, whatever storage holds; null where all do.
struct RowList {
  int64_t count;
  const int64_t* order;
  const bool* exist;

  int64_t place(int64_t i) const { return order == nullptr ? i : order[i]; }
  bool has(int64_t i) const { return exist == nullptr || exist[i]; }
};

// to[h, r, d] = factor * from[r, h, d]; zeros from `dim` to `width`. The heads of `to` follow each other.
template <class S, class T>
void pack(const S* from, Strides strides, RowList rows, int64_t heads, int64_t dim, T factor, T* to, int64_t width) {
  for (int64_t r = 0; r < rows.count; ++r) {
    const S* row = from + rows.place(r) * strides.row;
    if (r + kAhead < rows.count && strides.dim == 1)
      for (int64_t h = 0; h < heads; ++h) fetch(from + rows.place(r + kAhead) * strides.row + h * strides.head, dim);
    for (int64_t h = 0; h < heads; ++h) {
      T* target = to + (h * rows.count + r) * width;
      if (rows.has(r)) {
        pack_row(row + h * strides.head, strides.dim, dim, factor, target, width);
      } else {
        for (int64_t d = 0; d < width; ++d) target[d] = T(0);
      }
    }
  }
}

// to[d] = factor * from[d] + all[d]; `past_caches`: see stream().
template <class S, class T>
inline void unpack_row(const T* from, int64_t dim, T factor, const T* all, S* to, bool past_caches) {
  int64_t d = 0;
  if constexpr (kVectorStorage<S>) {
    for (; d + kLanes<T> <= dim; d += kLanes<T>) {
      const Vector<T> value = load(from + d) * splat(factor) + load(all + d);
      if constexpr (std::is_same_v<S, float>) {
        past_caches ? stream(to + d, value) : store(to + d, value);
      } else {
        write_vector(to + d, value);
      }
    }
  }
  for (; d < dim; ++d) to[d] = static_cast<S>(factor * from[d] + all[d]);
}

// to[r, h, d] = factor * from[h, r, d] + all[h, d], into storage whose heads follow each other.
template <class S, class T>
void unpack(const T* from, int64_t width, RowList rows, int64_t heads, int64_t dim, T factor, const T* all, S* to,
            int64_t row, bool past_caches) {
  const bool aligned = (reinterpret_cast<std::uintptr_t>(to) | row * sizeof(S) | dim * sizeof(S)) % 64 == 0;
  for (int64_t r = 0; r < rows.count; ++r)
    for (int64_t h = 0; h < heads; ++h) {
      S* target = to + rows.place(r) * row + h * dim;
      if (rows.has(r)) {
        unpack_row(from + (h * rows.count + r) * width, dim, factor, all + h * width, target, past_caches && aligned);
      } else {
        for (int64_t d = 0; d < dim; ++d) target[d] = static_cast<S>(T(0));
      }
    }
  if (past_caches) end_stream();
}

// to[d, r] = from[r, d] for padded rows; zeros from `rows` to `to_row`, a whole number of vectors.
template <class T>
void transpose(const T* from, int64_t from_row, int64_t rows, int64_t dim, T* to, int64_t to_row) {
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t first = 0; first < rows; first += lanes)
    for (int64_t d = 0; d < dim; d += lanes) {
      Vector<T> square[lanes];
#pragma GCC unroll 16
      for (int64_t i = 0; i < lanes; ++i)
        square[i] = first + i < rows ? load(from + (first + i) * from_row + d) : Vector<T>{};
      transpose_square<T>(square);
      const int64_t count = dim - d < lanes ? dim - d : lanes;
      for (int64_t i = 0; i < count; ++i) store(to + (d + i) * to_row + first, square[i]);
    }
  for (int64_t first = padded<T>(rows); first < to_row; first += lanes)
    for (int64_t d = 0; d < dim; ++d) store(to + d * to_row + first, Vector<T>{});
}

template <class T>
void sum_rows(const T* from, int64_t from_row, int64_t rows, T* to) {
  for (int64_t d = 0; d < from_row; d += kLanes<T>) {
    Vector<T> total{};
    for (int64_t r = 0; r < rows; ++r) total += load(from + r * from_row + d);
    store(to + d, total);
  }
}

template <class T>
T dot(const T* a, const T* b, int64_t padded_dim) {
  Vector<T> total{};
  for (int64_t d = 0; d < padded_dim; d += kLanes<T>) total += load(a + d) * load(b + d);
  return sum<T>(total)[0];
}
