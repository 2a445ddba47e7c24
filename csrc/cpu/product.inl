// Products of small matrices: C (rows x width) += A (rows x depth) B (depth x width), with B and C in vectors along a row.

template <class T>
struct Matrix {
  const T* data;
  int64_t row, column;  // strides; a transposed matrix swaps them
};

constexpr int64_t kBlockVectors = 3;

template <class T, int Rows, int Vectors>
inline void product_block(Matrix<T> a, const T* b, int64_t b_row, T* c, int64_t c_row, int64_t depth, bool add) {
  Vector<T> sums[Rows][Vectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < Vectors; ++v) sums[r][v] = add ? load(c + r * c_row + v * kLanes<T>) : Vector<T>{};
  for (int64_t d = 0; d < depth; ++d) {
    Vector<T> right[Vectors];
    for (int v = 0; v < Vectors; ++v) right[v] = load(b + d * b_row + v * kLanes<T>);
    for (int r = 0; r < Rows; ++r) {
      const Vector<T> left = splat(a.data[r * a.row + d * a.column]);
      for (int v = 0; v < Vectors; ++v) sums[r][v] += left * right[v];
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < Vectors; ++v) store(c + r * c_row + v * kLanes<T>, sums[r][v]);
}

template <class T, int Rows>
inline void product_rows(
    Matrix<T> a, const T* b, int64_t b_row, T* c, int64_t c_row, int64_t depth, int64_t vectors, bool add) {
  const int64_t blocks = (vectors + kBlockVectors - 1) / kBlockVectors;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = vectors * block / blocks, count = vectors * (block + 1) / blocks - first;
    const int64_t at = first * kLanes<T>;
    if (count == 1) product_block<T, Rows, 1>(a, b + at, b_row, c + at, c_row, depth, add);
    if (count == 2) product_block<T, Rows, 2>(a, b + at, b_row, c + at, c_row, depth, add);
    if (count == 3) product_block<T, Rows, 3>(a, b + at, b_row, c + at, c_row, depth, add);
  }
}

// C = A B, or C += A B with `add`. B and C are read and written in whole vectors: rows are padded to `vectors`.
template <class T>
void product(
    int64_t rows, Matrix<T> a, const T* b, int64_t b_row, T* c, int64_t c_row, int64_t depth, int64_t vectors, bool add) {
  using Function = void (*)(Matrix<T>, const T*, int64_t, T*, int64_t, int64_t, int64_t, bool);
  static constexpr Function kFunctions[] = {
      product_rows<T, 1>, product_rows<T, 2>, product_rows<T, 3>, product_rows<T, 4>,
#if DIFFRGEN_BLOCK_ROWS == 8
      product_rows<T, 5>, product_rows<T, 6>, product_rows<T, 7>, product_rows<T, 8>,
#endif
  };
  const int64_t blocks = (rows + DIFFRGEN_BLOCK_ROWS - 1) / DIFFRGEN_BLOCK_ROWS;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = rows * block / blocks, count = rows * (block + 1) / blocks - first;
    const Matrix<T> part{a.data + first * a.row, a.row, a.column};
    kFunctions[count - 1](part, b, b_row, c + first * c_row, c_row, depth, vectors, add);
  }
}
