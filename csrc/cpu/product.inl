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

// What the blocks of a product share: a block is called with its own pointers, in registers.
template <class T>
struct Operands {
  Shape shape;
  Left<T> left;
  Right<T> right;
  Target<T> target;
};

template <class T, int Rows, int Vectors>
void product_block(const Operands<T>& all, const T* left, const T* right, T* target, const Lines& lines) {
  const int64_t a_row = all.left.row, a_column = all.left.column, b_row = all.right.row, b_vector = all.right.vector;
  const int64_t row = all.target.row, vector = all.target.vector, depth = all.shape.depth;
  Vector<T> sums[Rows][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) sums[r][v] = all.target.add ? load(target + r * row + v * vector) : Vector<T>{};
  int64_t fetched = lines.count;
  const char* line = lines.first;
  for (int64_t piece = 0; piece < all.shape.pieces; ++piece) {
    // every third row has a pointer of its own: the others are within reach of the processor's addressing modes
    constexpr int pointers = (Rows + 2) / 3;
    const T *a[pointers], *b = right + piece * all.right.jump;
#pragma GCC unroll 16
    for (int i = 0; i < pointers; ++i) a[i] = left + piece * all.left.jump + 3 * i * a_row;
    const auto step = [&]() __attribute__((always_inline)) {
      Vector<T> of_b[Vectors];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) of_b[v] = load(b + v * b_vector);
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        const Vector<T> value = splat(a[r / 3][r % 3 * a_row]);
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) sums[r][v] += value * of_b[v];
      }
#pragma GCC unroll 16
      for (int i = 0; i < pointers; ++i) a[i] += a_column;
      b += b_row;
    };
    int64_t d = 0;
    for (; d < fetched; ++d, line += lines.step) {
      __builtin_prefetch(line);
      step();
    }
    for (; d < depth; ++d) step();
    fetched = 0;
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(target + r * row + v * vector, sums[r][v]);
}

template <class T>
using Block = void (*)(const Operands<T>&, const T* left, const T* right, T* target, const Lines&);

template <class T, int Vectors, int... Row>
const Block<T>* blocks_of(std::integer_sequence<int, Row...>) {
  static constexpr Block<T> blocks[] = {product_block<T, Row + 1, Vectors>...};
  return blocks;
}

// `Vectors` columns of vectors from the given ones on.
template <class T, int Vectors>
void product_columns(const Operands<T>& all, const T* right, T* target) {
  constexpr int32_t limit = max_rows(Vectors);
  const Block<T>* functions = blocks_of<T, Vectors>(std::make_integer_sequence<int, limit>{});
  const int32_t rows = static_cast<int32_t>(all.shape.rows), blocks = (rows + limit - 1) / limit;
  const int32_t even = rows / blocks, larger = rows % blocks;
  const T* left = all.left.data;
  for (int32_t block = 0; block < blocks; ++block) {
    const int32_t count = even + (block < larger ? 1 : 0);
    const Lines lines = all.shape.upcoming == nullptr ? Lines{} : all.shape.upcoming->take(all.shape.depth);
    functions[count - 1](all, left, right, target, lines);
    left += count * all.left.row;
    target += count * all.target.row;
  }
}

template <class T>
void product(const Shape& shape, const Left<T>& left, const Right<T>& right, const Target<T>& target) {
  const Operands<T> all{shape, left, right, target};
  const T* b = right.data;
  T* c = target.data;
  for (int64_t vectors = shape.vectors; vectors > 0;) {
    const int64_t count = vectors % 2 == 0 ? 2 : (vectors < kMaxVectors ? vectors : kMaxVectors);
    if (count == 1) product_columns<T, 1>(all, b, c);
    if (count == 2) product_columns<T, 2>(all, b, c);
    if (count == 3) product_columns<T, 3>(all, b, c);
    vectors -= count;
    b += count * right.vector;
    c += count * target.vector;
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
