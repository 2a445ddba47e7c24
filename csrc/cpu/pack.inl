// Rows of strided storage (float, double, bfloat16, half) to and from padded rows of the dtype of the sums.

// Rows of several heads. In storage the heads of one row are neighbours, so rows are the outer loop: whole cache lines and
// pages are used up before they are left.
struct Strides {
  int64_t row, head, dim;
};

// to[h, r, d] = factor * from[r, h, d]; zeros from `dim` to `width`. The heads of `to` follow each other.
template <class S, class T>
void pack(const S* from, Strides strides, int64_t rows, int64_t heads, int64_t dim, T factor, T* to, int64_t width) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t h = 0; h < heads; ++h) {
      const S* source = from + r * strides.row + h * strides.head;
      T* target = to + (h * rows + r) * width;
      if (strides.dim == 1) {
        for (int64_t d = 0; d < dim; ++d) target[d] = factor * static_cast<T>(source[d]);
      } else {
        for (int64_t d = 0; d < dim; ++d) target[d] = factor * static_cast<T>(source[d * strides.dim]);
      }
      for (int64_t d = dim; d < width; ++d) target[d] = T(0);
    }
}

// to[r, h, d] = factor * from[h, r, d], the inverse, into storage whose heads follow each other.
template <class S, class T>
void unpack(const T* from, int64_t width, int64_t rows, int64_t heads, int64_t dim, T factor, S* to, int64_t row) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t h = 0; h < heads; ++h) {
      const T* source = from + (h * rows + r) * width;
      S* target = to + r * row + h * dim;
      for (int64_t d = 0; d < dim; ++d) target[d] = static_cast<S>(factor * source[d]);
    }
}

// to[d, r] = from[r, d]; zeros from `rows` to `to_row`.
template <class T>
void transpose(const T* from, int64_t from_row, int64_t rows, int64_t dim, T* to, int64_t to_row) {
  for (int64_t first = 0; first < rows; first += kLanes<T>) {
    const int64_t count = rows - first < kLanes<T> ? rows - first : kLanes<T>;
    for (int64_t d = 0; d < dim; ++d)
      for (int64_t r = first; r < first + count; ++r) to[d * to_row + r] = from[r * from_row + d];
  }
  for (int64_t d = 0; d < dim; ++d)
    for (int64_t r = rows; r < to_row; ++r) to[d * to_row + r] = T(0);
}

template <class T>
void sum_rows(const T* from, int64_t from_row, int64_t rows, T* to) {
  for (int64_t d = 0; d < from_row; ++d) to[d] = T(0);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t d = 0; d < from_row; ++d) to[d] += from[r * from_row + d];
}

template <class T>
T dot(const T* a, const T* b, int64_t padded_dim) {
  Vector<T> total{};
  for (int64_t d = 0; d < padded_dim; d += kLanes<T>) total += load(a + d) * load(b + d);
  return sum<T>(total);
}
