// The rows of a tile: weights from logits, and their derivatives.

// The keys of one row's window in a tile: an interval of x, since its grid rows are the tile's own.
template <class T>
struct Window {
  T from, to;   // first and last x
  T outside;    // number of patches outside
  bool masked;  // a patch outside keeps a weight: its logit is 0

  typename VectorOf<T>::bits holds(const T* x) const {
    const Vector<T> at = load(x);
    return (at >= splat(from)) & (at <= splat(to));
  }
};

template <class T>
Window<T> window_of(const Problem& p, const Tile& tile, int64_t r) {
  const bool full = tile.reach == Reach::kAll;
  const int64_t own = tile.x + r, reach = tile.order, last = p.grid_width - 1;
  const int64_t from = full || own - reach < 0 ? 0 : own - reach;
  const int64_t to = full || own + reach > last ? last : own + reach;
  const int64_t outside = p.patches - tile.window_height * (to - from + 1);
  return {T(from), T(to), T(outside), outside > 0 && !p.exclusive};
}

// x of the patch in each column of a tile; a number that no window holds where the column is padding.
template <class T>
class ColumnsX {
 public:
  explicit ColumnsX(T* memory) : x_(memory) {}

  const T* of(const Problem& p, const Tile& tile) {
    if (tile.left == left_ && tile.length == length_ && tile.pieces == pieces_) return x_;
    left_ = tile.left, length_ = tile.length, pieces_ = tile.pieces;
    for (int64_t piece = 0; piece < tile.pieces; ++piece) {
      T* to = x_ + piece * tile.stride;
      for (int64_t c = 0, x = tile.left; c < tile.length; ++c, x = x + 1 == p.grid_width ? 0 : x + 1) to[c] = T(x);
      for (int64_t c = tile.length; c < tile.stride; ++c) to[c] = T(-1);
    }
    return x_;
  }

 private:
  T* x_;
  int64_t left_ = -1, length_ = -1, pieces_ = -1;
};

// What is known of each row of a tile. It is found for all rows in turn, so that the processor works on several at
// once: rows one by one waited for their sums across lanes and for the exponential of a single number.
template <class T>
struct RowState {
  T *top, *sum;       // M0 and L
  T *floor, *factor;  // e^-M0 where a masked key keeps a weight, else 0; what weights are multiplied by
  T *rest, *delta;    // weight of a masked key times alpha; g . sum_all v, and then delta
};

// to[r] = e^-from[r] where row r has masked keys that keep a weight, else 0.
template <class T>
void find_floors(const Problem& p, const Tile& tile, const T* from, T* to) {
  for (int64_t r = 0; r < tile.rows; r += kLanes<T>) store(to + r, exp_of(-load(from + r)));
  for (int64_t r = 0; r < tile.rows; ++r) to[r] = window_of<T>(p, tile, r).masked ? to[r] : T(0);
}

// Rows of logits -> alpha (P - u) inside the window, 0 in other columns; P are the softmax weights and u the weight of
// a key outside. Sets top (M0), sum (L) and rest (alpha u) of the rows.
//   M0 = max(0, max_W s), c = e^-M0 (no weight outside: M0 = max_W s, c = 0), L = sum_W e^(s - M0) + outside c
//   P = e^(s - M0) / L on W;   u = c / L;   lse = M0 + log L
template <class T>
void softmax_rows(const Problem& p, const Tile& tile, T alpha, const T* x, T* logits, const RowState<T>& rows) {
  const int64_t columns = tile.columns();
  for (int64_t r = 0; r < tile.rows; ++r) {
    const Window<T> window = window_of<T>(p, tile, r);
    Vector<T> top = splat(window.masked ? T(0) : -std::numeric_limits<T>::infinity());
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      const Vector<T> value = window.holds(x + c) ? load(logits + r * columns + c) : top;
      top = value > top ? value : top;
    }
    rows.top[r] = largest<T>(top)[0];
  }
  find_floors(p, tile, rows.top, rows.floor);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const Window<T> window = window_of<T>(p, tile, r);
    const Vector<T> top = splat(rows.top[r]), floor = splat(rows.floor[r]);
    Vector<T> total{};
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      T* at = logits + r * columns + c;
      const auto held = window.holds(x + c);
      const Vector<T> weight = held ? exp_of(load(at) - top) : Vector<T>{};
      total += weight;
      store(at, held ? weight - floor : Vector<T>{});
    }
    rows.sum[r] = sum<T>(total)[0] + window.outside * rows.floor[r];
  }
  for (int64_t r = 0; r < tile.rows; r += kLanes<T>) {
    const Vector<T> factor = splat(alpha) / load(rows.sum + r);
    store(rows.factor + r, factor);
    store(rows.rest + r, factor * load(rows.floor + r));
  }
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      T* at = logits + r * columns + c;
      store(at, load(at) * splat(rows.factor[r]));
    }
}

// Rows of logits s and of slopes g.v, `row` apart -> logits: alpha (P - u) inside the window, 0 outside; slopes:
// alpha P (g.v - delta). top holds the saved log-sum-exp and delta g . sum_all v; sets rest (alpha u), and delta =
// sum_W (P - u) g.v + u (g . sum_all v).
// The saved log-sum-exp is rounded, by 5e-4 where logits are 1e4: weights are divided by their sum again.
template <class T>
void differentiate_rows(const Problem& p, const Tile& tile, T alpha, const T* x, T* logits, T* slopes, int64_t row,
                        const RowState<T>& rows) {
  const int64_t columns = tile.columns();
  find_floors(p, tile, rows.top, rows.floor);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const Window<T> window = window_of<T>(p, tile, r);
    const Vector<T> lse = splat(rows.top[r]), floor = splat(rows.floor[r]);
    Vector<T> total{}, change{};
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      T* at = logits + r * row + c;
      const auto held = window.holds(x + c);
      const Vector<T> weight = held ? exp_of(load(at) - lse) : Vector<T>{};
      change += (held ? weight - floor : Vector<T>{}) * load(slopes + r * row + c);
      total += weight;
      store(at, weight);
    }
    rows.sum[r] = sum<T>(total)[0] + window.outside * rows.floor[r];
    rows.delta[r] = sum<T>(change)[0] + rows.floor[r] * rows.delta[r];
  }
  for (int64_t r = 0; r < tile.rows; r += kLanes<T>) {
    const Vector<T> inverse = splat(T(1)) / load(rows.sum + r), factor = inverse * splat(alpha);
    store(rows.factor + r, factor);
    store(rows.delta + r, inverse * load(rows.delta + r));
    store(rows.rest + r, factor * load(rows.floor + r));
  }
  for (int64_t r = 0; r < tile.rows; ++r) {
    const Window<T> window = window_of<T>(p, tile, r);
    const Vector<T> factor = splat(rows.factor[r]), delta = splat(rows.delta[r]), rest = splat(rows.rest[r]);
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      T *weights = logits + r * row + c, *slope = slopes + r * row + c;
      const Vector<T> weight = load(weights) * factor;
      store(slope, weight * (load(slope) - delta));
      store(weights, window.holds(x + c) ? weight - rest : Vector<T>{});
    }
  }
}
