// Backward of a group of heads of one study; the weights are computed again. With P the softmax weights, u the weight of a
// masked key (0 where the window is the whole grid), g the gradient of the output and G = alpha g:
//   delta = sum_W (P - u)(g.v) + u (g . sum_all v);   dalpha = sum over rows of delta
//   dS = alpha P (g.v - delta) on W;   dQ = scale dS K;   dK = scale dS^T Q
//   dV_l = sum_{rows with l in W} (P - u) G + sum_rows u G

template <class S, class T>
struct Backward : GroupBase<S, T> {
  using Base = GroupBase<S, T>;
  using Base::count, Base::head, Base::key_row, Base::kTileRows, Base::p, Base::width;
  T *q, *grad, *dq, *k, *dk, *dv, *k_t, *v_t, *v_sum, *dv_all;  // one part for each head
  T *x, *weights, *slopes, *rest;                               // one tile

  static int64_t size(const Problem& p) {
    const int64_t width = padded<T>(p.dim), key_row = padded<T>(p.patches) + kLanes<T>;
    return p.heads_at_once * ((3 * p.rows + 3 * p.patches + 2) * width + 2 * p.dim * key_row) +
           tile_columns<T>(p) * (2 * kTileRows + 1) + kTileRows + 16 * kLanes<T>;
  }

  Backward(const Problem& problem, T* memory) : Base(problem, memory) {
    for (T** buffer : {&q, &grad, &dq}) *buffer = this->take(p.heads_at_once * p.rows * width);
    for (T** buffer : {&k, &dk, &dv}) *buffer = this->take(p.heads_at_once * p.patches * width);
    for (T** buffer : {&k_t, &v_t}) *buffer = this->take(p.heads_at_once * p.dim * key_row);
    for (T** buffer : {&v_sum, &dv_all}) *buffer = this->take(p.heads_at_once * width);
    for (T** buffer : {&weights, &slopes}) *buffer = this->take(tile_columns<T>(p) * kTileRows);
    x = this->take(tile_columns<T>(p));
    rest = this->take(kTileRows);
  }

  void read(int64_t mask) {
    this->pack_view(p.v, mask, p.patches, k);  // k's buffer holds v until it is transposed
    this->transpose_keys(k, v_t);
    this->sum_keys(k, v_sum);
    this->pack_view(p.k, mask, p.patches, k);
    this->transpose_keys(k, k_t);
    this->pack_view(p.q, mask, p.rows, q);
    for (int64_t i = 0; i < count * p.rows * width; ++i) dq[i] = T(0);
    for (int64_t i = 0; i < count * p.patches * width; ++i) dk[i] = dv[i] = T(0);
  }

  // Weight and slope hold one row of logits and of g.v; afterwards alpha (P - u) and dS. Returns delta.
  T differentiate_row(const Tile& tile, int64_t r, T alpha, T through_rest, T* weight, T* slope) {
    const int64_t columns = tile.pieces * tile.stride;
    const T outside = softmax_row(p, tile, r, T(1), x, weight);
    const T delta = dot(weight, slope, columns) + outside * through_rest;
    const Window<T> window = window_of<T>(p, tile, r);
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      const Vector<T> above = load(weight + c) * splat(alpha);
      const Vector<T> change = (above + splat(alpha * outside)) * (load(slope + c) - splat(delta));
      store(slope + c, window.holds(x + c) ? change : Vector<T>{});
      store(weight + c, above);
    }
    rest[r] = alpha * outside;
    return delta;
  }

  T add_tile(int64_t h, const Tile& tile, T alpha) {
    const int64_t columns = tile.pieces * tile.stride, vectors = tile.stride / kLanes<T>;
    const int64_t first = (h * p.rows + tile.first_row) * width, keys = h * p.patches * width;
    const T *q_rows = q + first, *grad_rows = grad + first;
    for (int64_t piece = 0; piece < tile.pieces; ++piece) {
      const int64_t key = h * p.dim * key_row + tile.key(piece, p.grid_width), column = piece * tile.stride;
      product<T>(tile.rows, {q_rows, width, 1}, k_t + key, key_row, weights + column, columns, p.dim, vectors, false);
      product<T>(tile.rows, {grad_rows, width, 1}, v_t + key, key_row, slopes + column, columns, p.dim, vectors, false);
    }
    columns_x(p, tile, x);
    T delta = 0;
    for (int64_t r = 0; r < tile.rows; ++r) {
      const T through_rest = tile.full ? T(0) : dot(grad_rows + r * width, v_sum + h * width, width);
      delta += differentiate_row(tile, r, alpha, through_rest, weights + r * columns, slopes + r * columns);
    }
    const int64_t dim_vectors = width / kLanes<T>;
    for (int64_t piece = 0; piece < tile.pieces; ++piece) {
      const int64_t key = keys + tile.key(piece, p.grid_width) * width;
      const T *weight = weights + piece * tile.stride, *slope = slopes + piece * tile.stride;
      product<T>(tile.rows, {slope, columns, 1}, k + key, width, dq + first, width, tile.length, dim_vectors, true);
      product<T>(tile.length, {slope, 1, columns}, q_rows, width, dk + key, width, tile.rows, dim_vectors, true);
      product<T>(tile.length, {weight, 1, columns}, grad_rows, width, dv + key, width, tile.rows, dim_vectors, true);
    }
    if (!tile.full)
      product<T>(1, {rest, 1, 1}, grad_rows, width, dv_all + h * width, width, tile.rows, dim_vectors, true);
    return delta;
  }

  void add_mask(int64_t j, T alpha) {
    for (int64_t d = 0; d < count * width; ++d) dv_all[d] = T(0);
    double* delta = p.dalpha + (this->batch * p.masks + j) * p.heads + head;
    for (int64_t h = 0; h < count; ++h) delta[h] = 0;
    for (int64_t row = 0; row < p.rows;) {
      const Tile tile = tile_at<T>(p, p.orders[j], row);
      for (int64_t h = 0; h < count; ++h) delta[h] += add_tile(h, tile, alpha);
      row += tile.rows;
    }
    for (int64_t h = 0; h < count; ++h)
      for (int64_t i = h * p.patches; i < (h + 1) * p.patches; ++i)
        for (int64_t d = 0; d < width; ++d) dv[i * width + d] += dv_all[h * width + d];
  }

  void write(int64_t mask) {
    const int64_t row = (p.shared ? 1 : p.masks) * p.heads * p.dim, own = (mask * p.heads + head) * p.dim;
    const int64_t row_start = this->batch * p.rows * row + own, patch_start = this->batch * p.patches * row + own;
    unpack(dq, width, p.rows, count, p.dim, T(p.scale), static_cast<S*>(p.dq) + row_start, row);
    unpack(dk, width, p.patches, count, p.dim, T(p.scale), static_cast<S*>(p.dk) + patch_start, row);
    unpack(dv, width, p.patches, count, p.dim, T(1), static_cast<S*>(p.dv) + patch_start, row);
  }

  void run() {
    this->pack_view(p.grad, 0, p.rows, grad);
    for (int64_t j = 0; j < p.masks; ++j) {
      if (!p.shared || j == 0) read(p.shared ? 0 : j);
      add_mask(j, this->alpha(j));
      if (!p.shared || j == p.masks - 1) write(p.shared ? 0 : j);
    }
  }
};

template <class S, class T>
void backward(const Problem& p, int64_t begin, int64_t end) {
  Backward<S, T> group(p, Scratch::get<T>(Backward<S, T>::size(p)));
  group.for_each(begin, end, [&] { group.run(); });
}
