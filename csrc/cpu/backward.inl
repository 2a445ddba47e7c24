// Backward of some heads of one study; the weights are computed again. With P the softmax weights, u the weight of a
// masked key (0 where the window is the whole grid), g the gradient of the output and G = alpha g:
//   delta = sum_W (P - u)(g.v) + u (g . sum_all v);   dalpha = sum over rows of delta
//   dS = alpha P (g.v - delta) on W;   dQ = scale dS K;   dK = scale dS^T Q
//   dV_l = sum_{rows with l in W} (P - u) G + sum_rows u G

template <class S, class T>
struct Backward : Group<S, T> {
  using Base = Group<S, T>;
  using Base::count, Base::head, Base::p, Base::value_unit, Base::width;
  T *q, *grad, *dq, *k, *v, *dk, *dv;              // one part for each head; q is scaled
  T *dv_all, *zeros;                               // a row for each head: what is added to every row of dV
  T *k_t, *v_t, *v_sum, *rest, *weights, *slopes;  // one head
  RowState<T> states;                              // one tile
  ColumnsX<T> x;
  int64_t mask = 0;

  static int64_t size(const Problem& p) {
    const int64_t width = padded<T>(p.dim);
    return p.heads_at_once * (3 * p.rows + 4 * p.keys + 2) * width + 2 * panels_size<T>(p) + width + p.rows +
           Base::states_size(p) + 2 * weights_size<T>(p) + panels_size<T>(p) / p.dim + 17 * 16;
  }

  Backward(const Problem& problem, T* memory)
      : Base(problem, memory),
        q(this->take_rows(p.rows)),
        grad(this->take_rows(p.rows)),
        dq(this->take_rows(p.rows)),
        k(this->take_rows(p.keys)),
        v(this->take_rows(p.keys)),
        dk(this->take_rows(p.keys)),
        dv(this->take_rows(p.keys)),
        dv_all(this->take_rows(1)),
        zeros(this->take_rows(1)),
        k_t(this->take(panels_size<T>(p))),
        v_t(this->take(panels_size<T>(p))),
        v_sum(this->take(width)),
        rest(this->take(p.rows)),
        weights(this->take(weights_size<T>(p))),
        slopes(this->take(weights_size<T>(p))),
        states(this->take_states()),
        x(this->take(panels_size<T>(p) / p.dim)) {}

  void read(int64_t projection) {
    this->pack_rows(p.q, projection, T(p.scale), q);
    this->pack_keys(p.k, projection, T(1), k);
    this->pack_keys(p.v, projection, value_unit, v);
  }

  // Weights alpha (P - u) and slopes dS of a tile, and from them dQ; returns the sum of delta.
  double add_tile(int64_t h, const Tile& tile, T* weight, T* slope, int64_t row) {
    const int64_t first = (h * p.rows + tile.first_row) * width;
    multiply_keys(p, tile, q + first, width, k_t, weight, row, &this->upcoming);
    multiply_keys(p, tile, grad + first, width, v_t, slope, row, &this->upcoming);
    for (int64_t r = 0; r < tile.rows; ++r) {
      states.top[r] = this->lse(mask, h, tile.first_row + r);
      const bool masked = window_of<T>(p, tile, r, this->counts()).masked;
      states.delta[r] = masked ? dot(grad + first + r * width, v_sum, width) : T(0);
    }
    this->read_alpha(mask, tile, states.alpha);
    differentiate_rows(p, tile, this->counts(), x.of(p, tile, this->exist()), weight, slope, row, states);
    double delta = 0;
    for (int64_t r = 0; r < tile.rows; ++r) {
      rest[tile.first_row + r] = states.rest[r];
      delta += states.delta[r];
      if (p.row_alpha) share(h)[this->place(tile.first_row + r)] = states.delta[r] / value_unit;
    }
    multiply_values(p, tile, slope, row, k + h * p.keys * width, width, {dq + first, width, kLanes<T>, adds()},
                    &this->upcoming);
    return delta;
  }

  // Where a head's share of dalpha goes: one number, or one for each row.
  double* share(int64_t h) const {
    return p.dalpha + ((this->batch * p.masks + mask) * p.heads + head + h) * (p.row_alpha ? p.rows : 1);
  }

  // dK and dV of `keys` keys = or += what `rows` query rows give them; weight and slope are those of the first row and
  // key.
  void add_keys(int64_t h, int64_t first_key, int64_t keys, int64_t first_row, int64_t rows, const T* weight,
                const T* slope, int64_t row, bool add) {
    const int64_t queries = (h * p.rows + first_row) * width, target = (h * p.keys + first_key) * width;
    const Shape shape{keys, width / kLanes<T>, rows, 1, &this->upcoming};
    product<T>(shape, {slope, 1, row, 0}, {q + queries, width, kLanes<T>, 0}, {dk + target, width, kLanes<T>, add});
    product<T>(shape, {weight, 1, row, 0}, {grad + queries, width, kLanes<T>, 0}, {dv + target, width, kLanes<T>, add});
  }

  // One tile. Returns its delta and goes on to the next row.
  double add_single(int64_t h, int64_t& next_row) {
    const Tile tile = tile_at<T>(p, p.windows[mask], next_row, this->centres());
    const bool all = tile.reach == Reach::kAll, add = !all || next_row > 0 || adds();
    const int64_t row = all ? key_row<T>(p) : tile.columns();
    if (!all && next_row == 0 && !adds()) clear_keys(h, 0, p.keys);
    const double delta = add_tile(h, tile, weights, slopes, row);
    for (int64_t view = 0, column = 0; view < tile.views; ++view)
      for (int64_t piece = 0; piece < tile.pieces; ++piece, column += tile.stride)
        add_keys(h, view * p.patches() + tile.first_key + piece * p.grid_width, tile.length, tile.first_row, tile.rows,
                 weights + column, slopes + column, row, add);
    next_row += tile.rows;
    return delta;
  }

  // Whether tiles are worked on in bands.
  bool has_bands() const {
    return reach_of(p, p.windows[mask]) == Reach::kGridRows && p.views == 1 && p.centres == nullptr;
  }

  // Tiles of whole grid rows, as many as their weights are held for: then each grid row of keys takes all its rows at
  // once.
  double add_band(int64_t h, int64_t& next_row) {
    const WindowSize window = p.windows[mask];
    const int64_t begin = next_row, row = key_row<T>(p), grid = p.grid_width;
    const bool add = begin > 0 || adds();
    double delta = 0;
    do {
      const Tile tile = tile_at<T>(p, window, next_row, nullptr);
      const int64_t at = (next_row - begin) * row + tile.first_key;
      delta += add_tile(h, tile, weights + at, slopes + at, row);
      next_row += tile.rows;
    } while (next_row < p.rows && next_row % p.keys != 0 && next_row - begin + grid <= band_rows<T>(p));
    for (int64_t y = 0; y < p.grid_height; ++y) {
      const int64_t above = (y - window.height) * grid - begin % p.keys, below = above + (2 * window.height + 1) * grid;
      const int64_t first = above > 0 ? above : 0, end = below < next_row - begin ? below : next_row - begin;
      const int64_t at = first * row + y * grid;
      if (first < end) {
        add_keys(h, y * grid, grid, begin + first, end - first, weights + at, slopes + at, row, add);
      } else if (!add) {
        clear_keys(h, y * grid, grid);
      }
    }
    return delta;
  }

  // Whether this mask adds to gradients that an earlier one has begun.
  bool adds() const { return p.shared && mask > 0; }

  void clear_keys(int64_t h, int64_t first, int64_t keys) {
    const int64_t begin = (h * p.keys + first) * width;
    for (int64_t i = begin; i < begin + keys * width; ++i) dk[i] = dv[i] = T(0);
  }

  // Returns the sum of delta.
  double add_head(int64_t h) {
    const int64_t keys = h * p.keys * width;
    const Panels panels = panels_of<T>(p, p.windows[mask]);
    transpose_keys(p, panels, k + keys, width, k_t);
    transpose_keys(p, panels, v + keys, width, v_t);
    sum_rows(v + keys, width, p.keys, v_sum);
    double delta = 0;
    for (int64_t row = 0; row < p.rows;) delta += has_bands() ? add_band(h, row) : add_single(h, row);
    product<T>({1, width / kLanes<T>, p.rows, 1}, {rest, 0, 1, 0}, {grad + h * p.rows * width, width, kLanes<T>, 0},
               {dv_all + h * width, width, kLanes<T>, adds()});
    return delta;
  }

  void write(int64_t projection) {
    const int64_t row = (p.shared ? 1 : p.masks) * p.heads * p.dim, own = (projection * p.heads + head) * p.dim;
    const int64_t row_start = this->batch * p.rows * row + own, key_start = this->batch * p.keys * row + own;
    const RowList rows{p.rows, this->row_order(), nullptr}, keys{p.keys, nullptr, this->exist()};
    const bool past = p.past_caches;
    const T restored = T(1) / value_unit;
    unpack(dq, width, rows, count, p.dim, restored * T(p.scale), zeros, static_cast<S*>(p.dq) + row_start, row, past);
    unpack(dk, width, keys, count, p.dim, restored, zeros, static_cast<S*>(p.dk) + key_start, row, past);
    unpack(dv, width, keys, count, p.dim, T(1), dv_all, static_cast<S*>(p.dv) + key_start, row, past);
  }

  void run() {
    for (int64_t i = 0; i < count * width; ++i) zeros[i] = T(0);
    this->pack_rows(p.grad, 0, T(1), grad);
    for (mask = 0; mask < p.masks; ++mask) {
      if (!p.shared || mask == 0) read(p.shared ? 0 : mask), this->fetch_after(mask);
      for (int64_t h = 0; h < count; ++h) {
        const double delta = add_head(h);
        if (!p.row_alpha) *share(h) = delta / value_unit;
      }
      if (!p.shared || mask == p.masks - 1) write(p.shared ? 0 : mask);
    }
  }
};

template <class S, class T>
void backward(const Problem& p, int64_t begin, int64_t end) {
  Backward<S, T> group(p, Scratch::get<T>(Backward<S, T>::size(p)));
  group.for_each(begin, end, [&] { group.run(); });
}
