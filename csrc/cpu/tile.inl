// A tile: consecutive query rows, and the keys that at least one of their windows holds.
//
// The rows of a window tile have centres in the same grid row, so their windows span the same grid rows of keys and
// differ in x only. In each view the keys are `pieces` runs of `length` consecutive patches, one for each grid row, or a
// single run where the tile takes whole grid rows (narrow grids). Run t of view v starts at key v * patches + first_key +
// t * grid_width and at column (v * pieces + t) * stride of the tile. For the whole grid all keys are one run.

enum class Reach { kAll, kGridRows, kPieces };

struct Tile {
  Reach reach;
  int64_t first_row, rows;
  const int64_t* centres;  // the patches that the windows of the rows lie round, ascending; null: they follow each other
  int64_t x, left;         // x of the first row's centre, and of the first column
  WindowSize window;
  int64_t top, height;     // first grid row of the windows, and their number
  int64_t views, first_key, pieces, length, stride;

  int64_t columns() const { return views * pieces * stride; }
};

constexpr int64_t kNarrow = 16;        // widest grid whose windows take whole grid rows
constexpr int64_t kWeights = 1 << 16;  // held at a time: 256 KB of float32, which stay in the second-level cache
constexpr int64_t kLeastRows = 28;     // of a tile of the whole grid: two blocks of the products

inline Reach reach_of(const Problem& p, WindowSize window) {
  if (window.height >= p.grid_height - 1 && window.width >= p.grid_width - 1) return Reach::kAll;
  return p.grid_width <= kNarrow ? Reach::kGridRows : Reach::kPieces;
}

// The near-equal part of `total`, in parts of at most `limit`.
inline int64_t even_part(int64_t total, int64_t limit) {
  const int64_t parts = (total + limit - 1) / limit;
  return (total + parts - 1) / parts;
}

// Row length of weights that hold a column for each key; products may write whole vectors from any column on.
template <class T>
int64_t key_row(const Problem& p) {
  return padded<T>(p.keys) + kLanes<T>;
}

// Query rows whose weights for every key are held at a time.
template <class T>
int64_t band_rows(const Problem& p) {
  const int64_t rows = kWeights / key_row<T>(p);
  return rows < kLeastRows ? kLeastRows : rows;
}

// Weights of a tile or a band at most: a tile of pieces has no more than 8 + 2 vectors of rows.
template <class T>
int64_t weights_size(const Problem& p) {
  const int64_t pieces = (8 + 2 * kLanes<T>) * p.views * p.grid_height * (padded<T>(p.grid_width) + kLanes<T>);
  const int64_t narrow = (kNarrow + kLeastRows) * key_row<T>(p);
  return kWeights + (pieces > narrow ? pieces : narrow);
}

template <class T>
Tile full_tile(const Problem& p, int64_t row) {
  const int64_t even = even_part(p.rows, band_rows<T>(p)), left = p.rows - row;
  Tile tile{};
  tile.first_row = row, tile.rows = left < even ? left : even;
  tile.views = tile.pieces = 1, tile.length = p.keys, tile.stride = padded<T>(p.keys);
  tile.window = {p.grid_height, p.grid_width}, tile.height = p.grid_height;
  return tile;
}

// Rows from the first one on whose centres lie in its grid row, at most `limit` of them, over at most `limit` patches.
inline int64_t rows_together(const Problem& p, const int64_t* centres, int64_t rows, int64_t limit) {
  int64_t count = 1;
  while (count < rows && count < limit && centres[count] / p.grid_width == centres[0] / p.grid_width &&
         centres[count] - centres[0] < limit)
    ++count;
  return count;
}

// `centres`: those of the study's rows, ascending, or null.
template <class T>
Tile tile_at(const Problem& p, WindowSize window, int64_t row, const int64_t* centres) {
  const Reach reach = reach_of(p, window);
  if (reach == Reach::kAll) return full_tile<T>(p, row);
  const int64_t height = p.grid_height, width = p.grid_width;
  const int64_t patch = centres == nullptr ? row % p.patches() : centres[row], y = patch / width, x = patch % width;
  const int64_t top = y - window.height > 0 ? y - window.height : 0;
  const int64_t below = y + window.height + 1 < height ? y + window.height + 1 : height;
  Tile tile{};
  tile.reach = reach, tile.window = window;
  tile.first_row = row, tile.x = x;
  tile.centres = centres == nullptr ? nullptr : centres + row;
  tile.top = top, tile.height = below - top;
  tile.views = p.views;
  // of pieces as many rows as fill their vectors
  const int64_t even = even_part(width, padded<T>(8 + 2 * window.width) - 2 * window.width);
  const int64_t limit = reach == Reach::kGridRows ? width : even;
  tile.rows = limit < width - x ? limit : width - x;
  if (tile.rows > p.rows - row) tile.rows = p.rows - row;
  if (centres != nullptr) tile.rows = rows_together(p, tile.centres, p.rows - row, limit);
  if (reach == Reach::kGridRows) {
    tile.pieces = 1, tile.length = tile.height * width;
    tile.first_key = top * width;
  } else {
    tile.left = x - window.width > 0 ? x - window.width : 0;
    const int64_t last = centres == nullptr ? x + tile.rows - 1 : centres[row + tile.rows - 1] % width;
    const int64_t end = last + 1 + window.width;
    tile.pieces = tile.height, tile.length = (end < width ? end : width) - tile.left;
    tile.first_key = top * width + tile.left;
  }
  tile.stride = padded<T>(tile.length);
  return tile;
}

// Transposed keys (D x M) are cut into panels of `panel` keys, in which the rows of D are `stride` apart.
struct Panels {
  int64_t panel, stride;
};

template <class T>
Panels panels_of(const Problem& p, WindowSize window) {
  switch (reach_of(p, window)) {
    case Reach::kAll: return {2 * kLanes<T>, 2 * kLanes<T>};  // a block of the products
    case Reach::kGridRows: return {p.keys, key_row<T>(p)};
    default: return {p.grid_width, padded<T>(p.grid_width) + kLanes<T>};
  }
}

template <class T>
int64_t panels_size(const Problem& p) {
  return p.dim * p.views * p.grid_height * (padded<T>(p.grid_width) + kLanes<T>);
}

template <class T>
void transpose_keys(const Problem& p, Panels panels, const T* from, int64_t width, T* to) {
  for (int64_t first = 0; first < p.keys; first += panels.panel) {
    const int64_t left = p.keys - first, count = left < panels.panel ? left : panels.panel;
    T* target = to + first / panels.panel * p.dim * panels.stride;
    transpose(from + first * width, width, count, p.dim, target, panels.stride);
  }
}

// to (rows of the tile x its columns) = rows (x D) times the transposed keys.
template <class T>
void multiply_keys(const Problem& p, const Tile& tile, const T* rows, int64_t width, const T* keys_t, T* to,
                   int64_t to_row, Upcoming* upcoming) {
  const Panels panels = panels_of<T>(p, tile.window);
  const Left<T> left{rows, width, 1, 0};
  if (tile.reach == Reach::kAll) {
    for (int64_t c = 0; c < tile.stride; c += panels.panel) {
      const int64_t columns = tile.stride - c < panels.panel ? tile.stride - c : panels.panel;
      product<T>({tile.rows, columns / kLanes<T>, p.dim, 1, upcoming}, left,
                 {keys_t + c * p.dim, panels.stride, kLanes<T>, 0}, {to + c, to_row, kLanes<T>, false});
    }
    return;
  }
  for (int64_t view = 0; view < tile.views; ++view, to += tile.pieces * tile.stride) {
    if (tile.reach == Reach::kGridRows) {
      product<T>({tile.rows, tile.stride / kLanes<T>, p.dim, 1, upcoming}, left,
                 {keys_t + view * p.patches() + tile.first_key, panels.stride, kLanes<T>, 0},
                 {to, to_row, kLanes<T>, false});
      continue;
    }
    const T* first = keys_t + (view * p.grid_height + tile.top) * p.dim * panels.stride + tile.left;
    for (int64_t c = 0; c < tile.stride; c += kLanes<T>)
      product<T>({tile.rows, tile.pieces, p.dim, 1, upcoming}, left,
                 {first + c, panels.stride, p.dim * panels.stride, 0}, {to + c, to_row, tile.stride, false});
  }
}

// to (rows of the tile x D) += weights (x columns) times the tile's rows of values (x D).
template <class T>
void multiply_values(const Problem& p, const Tile& tile, const T* weights, int64_t row, const T* values, int64_t width,
                     Target<T> to, Upcoming* upcoming) {
  const Shape shape{tile.rows, width / kLanes<T>, tile.length, tile.pieces, upcoming};
  for (int64_t view = 0; view < tile.views; ++view, to.add = true) {
    const Left<T> left{weights + view * tile.pieces * tile.stride, row, 1, tile.stride};
    const Right<T> right{values + (view * p.patches() + tile.first_key) * width, width, kLanes<T>, p.grid_width * width};
    tile.pieces == 1 ? deep_product<T>(shape, left, right, to) : product<T>(shape, left, right, to);
  }
}
