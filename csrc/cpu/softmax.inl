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

template <class T>
struct RowWeights {
  T rest, top, sum;
};

// One row of logits -> factor (P - u) inside the window, 0 in other columns; P are the softmax weights and u the weight
// of a key outside. Returns factor u, M0 and L.
//   M0 = max(0, max_W s), c = e^-M0 (no weight outside: M0 = max_W s, c = 0), L = sum_W e^(s - M0) + outside c
//   P = e^(s - M0) / L on W;   u = c / L;   lse = M0 + log L
template <class T>
RowWeights<T> softmax_row(const Window<T>& window, int64_t columns, T factor, const T* x, T* logits) {
  Vector<T> top = splat(window.masked ? T(0) : -std::numeric_limits<T>::infinity());
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    const Vector<T> value = window.holds(x + c) ? load(logits + c) : top;
    top = value > top ? value : top;
  }
  top = largest<T>(top);
  const Vector<T> floor = window.masked ? exp_of(-top) : Vector<T>{};
  Vector<T> total{};
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    const Vector<T> weight = window.holds(x + c) ? exp_of(load(logits + c) - top) : Vector<T>{};
    total += weight;
    store(logits + c, weight);
  }
  const T sum_all = sum<T>(total)[0] + window.outside * floor[0], inverse = factor / sum_all;
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    const Vector<T> above = (load(logits + c) - floor) * splat(inverse);
    store(logits + c, window.holds(x + c) ? above : Vector<T>{});
  }
  return {floor[0] * inverse, top[0], sum_all};
}

template <class T>
struct RowSlope {
  T rest, delta;
};

// One row of logits s and of slopes g.v -> logits: factor (P - u) inside the window, 0 outside; slopes:
// factor P (g.v - delta). through_rest is g . sum_all v.
// Returns factor u and delta = sum_W (P - u) g.v + u through_rest.
// The saved log-sum-exp is rounded, by 5e-4 where logits are 1e4: weights are divided by their sum again.
template <class T>
RowSlope<T> differentiate_row(const Window<T>& window, int64_t columns, T factor, T lse, T through_rest, const T* x,
                              T* logits, T* slopes) {
  const Vector<T> floor = window.masked ? exp_of(splat(-lse)) : Vector<T>{};
  Vector<T> total{}, change{};
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    const Vector<T> weight = window.holds(x + c) ? exp_of(load(logits + c) - splat(lse)) : Vector<T>{};
    const Vector<T> above = window.holds(x + c) ? weight - floor : Vector<T>{};
    total += weight;
    change += above * load(slopes + c);
    store(logits + c, weight);
  }
  const T inverse = T(1) / (sum<T>(total)[0] + window.outside * floor[0]), share = factor * inverse;
  const T delta = inverse * (sum<T>(change)[0] + floor[0] * through_rest);
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    const Vector<T> weight = load(logits + c) * splat(share);
    store(slopes + c, weight * (load(slopes + c) - splat(delta)));
    store(logits + c, window.holds(x + c) ? weight - floor * splat(share) : Vector<T>{});
  }
  return {share * floor[0], delta};
}
