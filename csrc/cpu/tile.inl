// A tile: consecutive query rows, and the keys that at least one of their windows holds.
//
// The rows of a window tile lie in the same grid row, so their windows span the same grid rows of keys and differ in x
// only. The keys are `pieces` runs of `length` consecutive patches, one for each grid row, or a single run where the
// tile takes whole grid rows (narrow grids) or every key (a full mask). Run t starts at patch first_key +
// t * grid_width and at column t * stride of the tile.

enum class Reach { kAll, kGridRows, kPieces };

struct Tile {
  Reach reach;
  int64_t first_row, rows;
  int64_t x, order, left;  // x of the first row's patch; window order; x of the first column
  int64_t first_key, pieces, length, stride;
  int64_t window_height;

  int64_t columns() const { return pieces * stride; }
};

constexpr int64_t kNarrow = 16;        // widest grid whose windows take whole grid rows
constexpr int64_t kWeights = 1 << 16;  // held at a time: 256 KB of float32, which stay in the second-level cache
constexpr int64_t kLeastRows = 28;     // of a tile of a full mask: two blocks of the products

inline Reach reach_of(const Problem& p, int64_t order) {
  if (order == 0 || (order >= p.grid_height - 1 && order >= p.grid_width - 1)) return Reach::kAll;
  return p.grid_width <= kNarrow ? Reach::kGridRows : Reach::kPieces;
}

// The near-equal part of `total`, in parts of at most `limit`.
inline int64_t even_part(int64_t total, int64_t limit) {
  const int64_t parts = (total + limit - 1) / limit;
  return (total + parts - 1) / parts;
}

// Row length of weights that hold a column for each patch; products may write whole vectors from any column on.
template <class T>
int64_t patch_row(const Problem& p) {
  return padded<T>(p.patches) + kLanes<T>;
}

// Query rows whose weights for every patch are held at a time.
template <class T>
int64_t band_rows(const Problem& p) {
  const int64_t rows = kWeights / patch_row<T>(p);
  return rows < kLeastRows ? kLeastRows : rows;
}

// Weights of a tile or a band at most: a tile of pieces has no more than 8 + 2 vectors of rows.
template <class T>
int64_t weights_size(const Problem& p) {
  const int64_t pieces = (8 + 2 * kLanes<T>) * p.grid_height * (padded<T>(p.grid_width) + kLanes<T>);
  const int64_t narrow = (kNarrow + kLeastRows) * patch_row<T>(p);
  return kWeights + (pieces > narrow ? pieces : narrow);
}

template <class T>
Tile full_tile(const Problem& p, int64_t row) {
  const int64_t even = even_part(p.rows, band_rows<T>(p)), left = p.rows - row;
  Tile tile{};
  tile.first_row = row, tile.rows = left < even ? left : even;
  tile.pieces = 1, tile.length = p.patches, tile.stride = padded<T>(p.patches);
  tile.window_height = p.grid_height;
  return tile;
}

template <class T>
Tile tile_at(const Problem& p, int64_t order, int64_t row) {
  const Reach reach = reach_of(p, order);
  if (reach == Reach::kAll) return full_tile<T>(p, row);
  const int64_t height = p.grid_height, width = p.grid_width;
  const int64_t patch = row % p.patches, y = patch / width, x = patch % width;
  const int64_t top = y - order > 0 ? y - order : 0, below = y + order + 1 < height ? y + order + 1 : height;
  Tile tile{};
  tile.reach = reach;
  tile.first_row = row, tile.x = x, tile.order = order;
  tile.window_height = below - top;
  if (reach == Reach::kGridRows) {
    tile.rows = width - x;
    tile.pieces = 1, tile.length = tile.window_height * width;
    tile.first_key = top * width;
  } else {
    // as many rows as fill the vectors of a piece
    tile.rows = even_part(width, padded<T>(8 + 2 * order) - 2 * order);
    if (tile.rows > width - x) tile.rows = width - x;
    tile.left = x - order > 0 ? x - order : 0;
    const int64_t end = x + tile.rows + order;
    tile.pieces = tile.window_height, tile.length = (end < width ? end : width) - tile.left;
    tile.first_key = top * width + tile.left;
  }
  if (tile.rows > p.rows - row) tile.rows = p.rows - row;
  tile.stride = padded<T>(tile.length);
  return tile;
}

// Transposed keys (D x patches) are cut into panels of `panel` patches, in which the rows of D are `stride` apart.
struct Panels {
  int64_t panel, stride;
};

template <class T>
Panels panels_of(const Problem& p, int64_t order) {
  switch (reach_of(p, order)) {
    case Reach::kAll: return {2 * kLanes<T>, 2 * kLanes<T>};  // a block of the products
    case Reach::kGridRows: return {p.patches, patch_row<T>(p)};
    default: return {p.grid_width, padded<T>(p.grid_width) + kLanes<T>};
  }
}

template <class T>
int64_t panels_size(const Problem& p) {
  return p.dim * p.grid_height * (padded<T>(p.grid_width) + kLanes<T>);
}

template <class T>
void transpose_keys(const Problem& p, Panels panels, const T* from, int64_t width, T* to) {
  for (int64_t first = 0; first < p.patches; first += panels.panel) {
    const int64_t left = p.patches - first, count = left < panels.panel ? left : panels.panel;
    T* target = to + first / panels.panel * p.dim * panels.stride;
    transpose(from + first * width, width, count, p.dim, target, panels.stride);
  }
}

// to (rows of the tile x its columns) = rows (x D) times the transposed keys.
template <class T>
void multiply_keys(const Problem& p, const Tile& tile, const T* rows, int64_t width, const T* keys_t, T* to,
                   int64_t to_row, Upcoming* upcoming) {
  const Panels panels = panels_of<T>(p, tile.order);
  const Left<T> left{rows, width, 1, 0};
  if (tile.reach == Reach::kPieces) {
    const T* first = keys_t + tile.first_key / p.grid_width * p.dim * panels.stride + tile.left;
    for (int64_t c = 0; c < tile.stride; c += kLanes<T>)
      product<T>({tile.rows, tile.pieces, p.dim, 1, upcoming}, left,
                 {first + c, panels.stride, p.dim * panels.stride, 0}, {to + c, to_row, tile.stride, false});
    return;
  }
  const int64_t step = tile.reach == Reach::kAll ? panels.panel : tile.stride;
  for (int64_t c = 0; c < tile.stride; c += step) {
    const int64_t columns = tile.stride - c < step ? tile.stride - c : step;
    product<T>({tile.rows, columns / kLanes<T>, p.dim, 1, upcoming}, left,
               {keys_t + tile.first_key + c * p.dim, panels.stride, kLanes<T>, 0}, {to + c, to_row, kLanes<T>, false});
  }
}

// to (rows of the tile x D) += weights (x columns) times the tile's rows of values (x D).
template <class T>
void multiply_values(const Problem& p, const Tile& tile, const T* weights, int64_t row, const T* values, int64_t width,
                     Target<T> to, Upcoming* upcoming) {
  const Shape shape{tile.rows, width / kLanes<T>, tile.length, tile.pieces, upcoming};
  const Left<T> left{weights, row, 1, tile.stride};
  const Right<T> right{values + tile.first_key * width, width, kLanes<T>, p.grid_width * width};
  tile.pieces == 1 ? deep_product<T>(shape, left, right, to) : product<T>(shape, left, right, to);
}
