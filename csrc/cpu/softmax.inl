// The rows of a tile: weights from logits, and their derivatives.

// The keys of one row's window in a tile: an interval of x, since its grid rows are the tile's own.
template <class T>
struct Window {
  T from, to;   // first and last x
  T outside;    // n, the number of keys outside
  bool masked;  // a key outside keeps a weight: its logit is 0

  typename VectorOf<T>::bits holds(const T* x) const {
    const Vector<T> at = load(x);
    return (at >= splat(from)) & (at <= splat(to));
  }
};

// `counts`: the study's table of keys that exist, or null where all do.
template <class T>
Window<T> window_of(const Problem& p, const Tile& tile, int64_t r, const int64_t* counts) {
  const bool full = tile.reach == Reach::kAll;
  const int64_t own = tile.centres == nullptr ? tile.x + r : tile.centres[r] % p.grid_width;
  const int64_t reach = tile.window.width, last = p.grid_width - 1;
  const int64_t from = full || own - reach < 0 ? 0 : own - reach;
  const int64_t to = full || own + reach > last ? last : own + reach;
  int64_t outside = p.keys - p.views * tile.height * (to - from + 1);
  if (counts != nullptr) {
    const int64_t row = p.grid_width + 1;
    const int64_t *above = counts + tile.top * row, *below = above + tile.height * row;
    outside = counts[p.counts_size() - 1] - (below[to + 1] - below[from] - above[to + 1] + above[from]);
  }
  return {T(from), T(to), T(outside), outside > 0 && !p.exclusive};
}

// x of the key in each column of a tile; a number that no window holds where the column is padding or the key does not
// exist.
template <class T>
class ColumnsX {
 public:
  explicit ColumnsX(T* memory) : x_(memory) {}

  // `exist`: the study's key_mask, or null.
  const T* of(const Problem& p, const Tile& tile, const bool* exist) {
    const bool same = tile.left == left_ && tile.length == length_ && tile.pieces == pieces_ && tile.views == views_;
    if (same && exist == nullptr) return x_;
    left_ = tile.left, length_ = tile.length, pieces_ = tile.pieces, views_ = tile.views;
    T* to = x_;
    for (int64_t view = 0; view < tile.views; ++view)
      for (int64_t piece = 0; piece < tile.pieces; ++piece, to += tile.stride) {
        const int64_t key = view * p.patches() + tile.first_key + piece * p.grid_width;
        for (int64_t c = 0, x = tile.left; c < tile.length; ++c, x = x + 1 == p.grid_width ? 0 : x + 1)
          to[c] = exist == nullptr || exist[key + c] ? T(x) : T(-1);
        for (int64_t c = tile.length; c < tile.stride; ++c) to[c] = T(-1);
      }
    return x_;
  }

 private:
  T* x_;
  int64_t left_ = -1, length_ = -1, pieces_ = -1, views_ = -1;
};

// What is known of each row of a tile. It is found for all rows in turn, so that the processor works on several at
// once: rows one by one waited for their sums across lanes and for the exponential of a single number.
template <class T>
struct RowState {
  T* alpha;
  T *top, *sum;       // M0 and L
  T *floor, *factor;  // e^-M0 where a masked key keeps a weight, else 0; what weights are multiplied by
  T *rest, *delta;    // weight of a masked key times alpha; g . sum_all v, and then delta
};

// to[r] = e^-from[r] where row r has masked keys that keep a weight, else 0.
template <class T>
void find_floors(const Problem& p, const Tile& tile, const int64_t* counts, const T* from, T* to) {
  for (int64_t r = 0; r < tile.rows; r += kLanes<T>) store(to + r, exp_of(-load(from + r)));
  for (int64_t r = 0; r < tile.rows; ++r) to[r] = window_of<T>(p, tile, r, counts).masked ? to[r] : T(0);
}

// a / b, and 0 where b is 0: the sum of a row without keys.
template <class T>
Vector<T> quotient(Vector<T> a, Vector<T> b) {
  return b == Vector<T>{} ? Vector<T>{} : a / b;
}

// Rows of logits -> alpha (P - u) inside the window, 0 in other columns; P are the softmax weights and u the weight of
// a key outside. Sets top (M0), sum (L) and rest (alpha u) of the rows.
//   M0 = max(0, max_W s), c = e^-M0 (no weight outside: M0 = max_W s, c = 0), L = sum_W e^(s - M0) + outside c
//   P = e^(s - M0) / L on W;   u = c / L;   lse = M0 + log L
template <class T>
void softmax_rows(const Problem& p, const Tile& tile, const int64_t* counts, const T* x, T* logits,
                  const RowState<T>& rows) {
  const int64_t columns = tile.columns();
  for (int64_t r = 0; r < tile.rows; ++r) {
    const Window<T> window = window_of<T>(p, tile, r, counts);
    Vector<T> top = splat(window.masked ? T(0) : -std::numeric_limits<T>::infinity());
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      const Vector<T> value = window.holds(x + c) ? load(logits + r * columns + c) : top;
      top = value > top ? value : top;
    }
    rows.top[r] = largest<T>(top)[0];
  }
  find_floors(p, tile, counts, rows.top, rows.floor);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const Window<T> window = window_of<T>(p, tile, r, counts);
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
    const Vector<T> factor = quotient<T>(load(rows.alpha + r), load(rows.sum + r));
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
void differentiate_rows(const Problem& p, const Tile& tile, const int64_t* counts, const T* x, T* logits, T* slopes,
                        int64_t row, const RowState<T>& rows) {
  const int64_t columns = tile.columns();
  find_floors(p, tile, counts, rows.top, rows.floor);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const Window<T> window = window_of<T>(p, tile, r, counts);
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
    const Vector<T> inverse = quotient<T>(splat(T(1)), load(rows.sum + r)), factor = inverse * load(rows.alpha + r);
    store(rows.factor + r, factor);
    store(rows.delta + r, inverse * load(rows.delta + r));
    store(rows.rest + r, factor * load(rows.floor + r));
  }
  for (int64_t r = 0; r < tile.rows; ++r) {
    const Window<T> window = window_of<T>(p, tile, r, counts);
    const Vector<T> factor = splat(rows.factor[r]), delta = splat(rows.delta[r]), rest = splat(rows.rest[r]);
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      T *weights = logits + r * row + c, *slope = slopes + r * row + c;
      const Vector<T> weight = load(weights) * factor;
      store(slope, weight * (load(slope) - delta));
      store(weights, window.holds(x + c) ? weight - rest : Vector<T>{});
    }
  }
}
