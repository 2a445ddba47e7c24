// A tile: consecutive query rows of one grid row, and the keys that at least one of their windows holds.
//
// All rows of a window tile lie in the same grid row, so their windows span the same grid rows of keys and differ in x only.
// The keys are `pieces` runs of `length` consecutive patches; run t starts at patch `first_key + t * grid_width` and at
// column t * stride of the tile. A run that spans the grid's width is merged with the next ones to a single one.

struct Tile {
  int64_t first_row, rows;
  bool full;               // the mask is all ones
  int64_t x, order, left;  // x of the first row's patch; window order; x of the first column
  int64_t first_key, pieces, length, stride;
  int64_t window_height;

  int64_t key(int64_t piece, int64_t grid_width) const { return first_key + piece * grid_width; }
};

template <class T>
int64_t full_tile_rows(const Problem& p) {
  // 16,384 weights are 64 KB of float32: they stay in the second-level cache with their products
  const int64_t rows = 16384 / padded<T>(p.patches);
  return rows < DIFFRGEN_BLOCK_ROWS ? DIFFRGEN_BLOCK_ROWS : (rows > 64 ? 64 : rows);
}

constexpr int64_t kMergedWidth = 16;  // grids up to this width take whole grid rows as tiles

// Columns that a tile can have, padding included.
template <class T>
int64_t tile_columns(const Problem& p) {
  return p.grid_height * (padded<T>(p.grid_width) + kLanes<T>) + padded<T>(p.patches);
}

template <class T>
Tile tile_at(const Problem& p, int64_t order, int64_t row) {
  const int64_t height = p.grid_height, width = p.grid_width, rows_left = p.rows - row;
  Tile tile{};
  tile.first_row = row;
  tile.order = order;
  tile.full = order == 0 || (order >= height - 1 && order >= width - 1);
  if (tile.full) {
    const int64_t limit = full_tile_rows<T>(p), blocks = (p.rows + limit - 1) / limit;
    const int64_t even = (p.rows + blocks - 1) / blocks;
    tile.rows = rows_left < even ? rows_left : even;
    tile.pieces = 1;
    tile.length = p.patches;
    tile.window_height = height;
  } else {
    const int64_t patch = row % p.patches, y = patch / width, x = patch % width;
    const int64_t limit = width <= kMergedWidth ? width : 8;
    tile.x = x;
    tile.rows = width - x < limit ? width - x : limit;
    if (rows_left < tile.rows) tile.rows = rows_left;
    const int64_t top = y - order > 0 ? y - order : 0, below = y + order + 1 < height ? y + order + 1 : height;
    const int64_t last = x + tile.rows - 1 + order + 1;
    const int64_t right = last < width ? last : width;
    tile.left = x - order > 0 ? x - order : 0;
    tile.window_height = below - top;
    tile.first_key = top * width + tile.left;
    if (right - tile.left == width) {
      tile.pieces = 1;
      tile.length = tile.window_height * width;
    } else {
      tile.pieces = tile.window_height;
      tile.length = right - tile.left;
    }
  }
  tile.stride = padded<T>(tile.length);
  return tile;
}

// x[c] = x of the patch in column c, or a number that no window holds where the column is padding.
template <class T>
void columns_x(const Problem& p, const Tile& tile, T* x) {
  for (int64_t piece = 0; piece < tile.pieces; ++piece)
    for (int64_t c = 0; c < tile.stride; ++c)
      x[piece * tile.stride + c] = c < tile.length ? T((tile.left + c) % p.grid_width) : T(-1e9);
}

// The keys of one row's window in a tile: an interval of x, since its grid rows are the tile's own.
template <class T>
struct Window {
  int64_t from, to, outside;  // first and last x; number of patches outside
  typename VectorOf<T>::bits holds(const T* x) const {
    const Vector<T> at = load(x);
    return (at >= splat(T(from))) & (at <= splat(T(to)));
  }
};

template <class T>
Window<T> window_of(const Problem& p, const Tile& tile, int64_t r) {
  const int64_t own = tile.x + r, reach = tile.order, last = p.grid_width - 1;
  const int64_t from = tile.full || own - reach < 0 ? 0 : own - reach;
  const int64_t to = tile.full || own + reach > last ? last : own + reach;
  return {from, to, p.patches - tile.window_height * (to - from + 1)};
}

// One row of products q.k -> factor (P - u) inside the window, 0 in other columns; P are the softmax weights and u the
// weight of a key outside. Returns factor u.  With s = scale q.k:
//   M0 = max(0, max_W s), c = e^-M0 (w = M or exclusive: M0 = max_W s, c = 0), L = sum_W e^(s - M0) + (M - w) c
//   P = e^(s - M0) / L on W;   u = c / L
template <class T>
T softmax_row(const Problem& p, const Tile& tile, int64_t r, T factor, const T* x, T* logits) {
  const int64_t columns = tile.pieces * tile.stride;
  const Window<T> window = window_of<T>(p, tile, r);
  const bool floored = window.outside > 0 && !p.exclusive;
  Vector<T> largest = splat(floored ? T(0) : -std::numeric_limits<T>::infinity());
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    const Vector<T> value = window.holds(x + c) ? load(logits + c) * splat(T(p.scale)) : largest;
    largest = value > largest ? value : largest;
  }
  const T top = largest_lane<T>(largest);
  const T floor = floored ? std::exp(-top) : T(0);
  Vector<T> total{};
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    const Vector<T> weight = window.holds(x + c) ? exp_of(load(logits + c) * splat(T(p.scale)) - splat(top)) : Vector<T>{};
    total += weight;
    store(logits + c, weight);
  }
  const T inverse = factor / (sum<T>(total) + T(window.outside) * floor);
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    const Vector<T> above = (load(logits + c) - splat(floor)) * splat(inverse);
    store(logits + c, window.holds(x + c) ? above : Vector<T>{});
  }
  return floor * inverse;
}
