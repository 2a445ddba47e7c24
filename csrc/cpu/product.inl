// Products of small matrices, C = A B or C += A B: C is cut into blocks that fit the registers.

// Strides in elements. B and C are read and written in whole vectors: vector i of row d of B is at d * row + i *
// vector. The depth may come in pieces: piece t of A starts at t * jump, and so for B.
template <class T>
struct Left {
  const T* data;
  int64_t row, column, jump;
};
template <class T>
struct Right {
  const T* data;
  int64_t row, vector, jump;
};
template <class T>
struct Target {
  T* data;
  int64_t row, vector;
  bool add;
};
struct Shape {
  int64_t rows, vectors, depth, pieces;
  Upcoming* upcoming = nullptr;  // what is fetched on the way
};

// Rows of a block: accumulators, a row of B and one value of A share the registers.
constexpr int kMaxVectors = 3;
constexpr int max_rows(int vectors) {
  const int rows = (DIFFRGEN_REGISTERS - 1 - vectors) / vectors;
  return rows < 14 ? rows : 14;
}

template <class T, int Rows, int Vectors>
void product_block(const Shape& shape, Lines fetched, const Left<T>& left, const Right<T>& right,
                   const Target<T>& target) {
  const int64_t a_row = left.row, b_vector = right.vector;
  Vector<T> sums[Rows][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v)
      sums[r][v] = target.add ? load(target.data + r * target.row + v * target.vector) : Vector<T>{};
  for (int64_t piece = 0; piece < shape.pieces; ++piece) {
    // every third row has a pointer of its own: the others are within reach of the processor's addressing modes
    constexpr int pointers = (Rows + 2) / 3;
    const T *a[pointers], *b = right.data + piece * right.jump;
#pragma GCC unroll 16
    for (int i = 0; i < pointers; ++i) a[i] = left.data + piece * left.jump + 3 * i * a_row;
    const auto step = [&]() __attribute__((always_inline)) {
      Vector<T> b_row[Vectors];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) b_row[v] = load(b + v * b_vector);
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        const Vector<T> value = splat(a[r / 3][r % 3 * a_row]);
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) sums[r][v] += value * b_row[v];
      }
#pragma GCC unroll 16
      for (int i = 0; i < pointers; ++i) a[i] += left.column;
      b += right.row;
    };
    int64_t d = 0;
    for (; d < fetched.count; ++d, fetched.first += fetched.step) {
      __builtin_prefetch(fetched.first);
      step();
    }
    for (; d < shape.depth; ++d) step();
    fetched.count = 0;
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(target.data + r * target.row + v * target.vector, sums[r][v]);
}

template <class T>
using Block = void (*)(const Shape&, Lines, const Left<T>&, const Right<T>&, const Target<T>&);

template <class T, int Vectors, int... Row>
const Block<T>* blocks_of(std::integer_sequence<int, Row...>) {
  static constexpr Block<T> blocks[] = {product_block<T, Row + 1, Vectors>...};
  return blocks;
}

template <class T, int Vectors>
void product_columns(const Shape& shape, const Left<T>& left, const Right<T>& right, const Target<T>& target) {
  constexpr int limit = max_rows(Vectors);
  const Block<T>* functions = blocks_of<T, Vectors>(std::make_integer_sequence<int, limit>{});
  const int64_t blocks = (shape.rows + limit - 1) / limit;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = shape.rows * block / blocks, count = shape.rows * (block + 1) / blocks - first;
    const Lines fetched = shape.upcoming == nullptr ? Lines{} : shape.upcoming->take(shape.depth);
    functions[count - 1](shape, fetched, {left.data + first * left.row, left.row, left.column, left.jump}, right,
                         {target.data + first * target.row, target.row, target.vector, target.add});
  }
}

template <class T>
void product(Shape shape, Left<T> left, Right<T> right, Target<T> target) {
  for (int64_t vectors = shape.vectors; vectors > 0;) {
    const int64_t count = vectors % 2 == 0 ? 2 : (vectors < kMaxVectors ? vectors : kMaxVectors);
    if (count == 1) product_columns<T, 1>(shape, left, right, target);
    if (count == 2) product_columns<T, 2>(shape, left, right, target);
    if (count == 3) product_columns<T, 3>(shape, left, right, target);
    vectors -= count;
    right.data += count * right.vector;
    target.data += count * target.vector;
  }
}

// The same over a long depth in one piece: B's rows are used up part by part, while they are in the caches.
template <class T>
void deep_product(Shape shape, Left<T> left, Right<T> right, Target<T> target) {
  constexpr int64_t part = 256;
  const int64_t depth = shape.depth;
  for (int64_t first = 0; first < depth; first += part) {
    shape.depth = depth - first < part ? depth - first : part;
    product<T>(shape, left, right, target);
    left.data += part * left.column;
    right.data += part * right.row;
    target.add = true;
  }
}
