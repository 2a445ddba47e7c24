// Forward of some heads of one study, with the exact shortcut:
//   O = sum_j alpha_j ( sum_{l in W} (P - u)_l v_l + u sum_all v )
// with P the softmax weights and u the weight of a masked key.

template <class S, class T>
struct Forward : Group<S, T> {
  using Base = Group<S, T>;
  using Base::count, Base::head, Base::p, Base::value_unit, Base::width;
  T *q, *k, *v, *out, *zeros;  // one part for each head; q is scaled, v and out are in units of value_unit
  T *k_t, *v_sum, *weights;    // one head
  RowState<T> states;          // one tile
  ColumnsX<T> x;

  static int64_t size(const Problem& p) {
    const int64_t width = padded<T>(p.dim);
    return p.heads_at_once * (2 * p.rows + 2 * p.keys + 1) * width + panels_size<T>(p) + width +
           Base::states_size(p) + weights_size<T>(p) + panels_size<T>(p) / p.dim + 12 * 16;
  }

  Forward(const Problem& problem, T* memory)
      : Base(problem, memory),
        q(this->take_rows(p.rows)),
        k(this->take_rows(p.keys)),
        v(this->take_rows(p.keys)),
        out(this->take_rows(p.rows)),
        zeros(this->take_rows(1)),
        k_t(this->take(panels_size<T>(p))),
        v_sum(this->take(width)),
        weights(this->take(weights_size<T>(p))),
        states(this->take_states()),
        x(this->take(panels_size<T>(p) / p.dim)) {}

  void read(int64_t mask) {
    this->pack_rows(p.q, mask, T(p.scale), q);
    this->pack_keys(p.k, mask, T(1), k);
    this->pack_keys(p.v, mask, value_unit, v);
  }

  void add_tile(int64_t h, int64_t mask, const Tile& tile, bool first) {
    const int64_t columns = tile.columns(), row = (h * p.rows + tile.first_row) * width;
    multiply_keys(p, tile, q + row, width, k_t, weights, columns, &this->upcoming);
    this->read_alpha(mask, tile, states.alpha);
    softmax_rows(p, tile, this->counts(), x.of(p, tile, this->exist()), weights, states);
    for (int64_t r = 0; r < tile.rows; ++r) {
      T* target = out + row + r * width;
      for (int64_t d = 0; d < width; d += kLanes<T>)
        store(target + d, (first ? Vector<T>{} : load(target + d)) + splat(states.rest[r]) * load(v_sum + d));
    }
    if (p.lse != nullptr) save_lse(h, mask, tile);
    multiply_values(p, tile, weights, columns, v + h * p.keys * width, width, {out + row, width, kLanes<T>, true},
                    &this->upcoming);
  }

  void save_lse(int64_t h, int64_t mask, const Tile& tile) {
    for (int64_t r = 0; r < tile.rows; ++r)
      this->lse(mask, h, tile.first_row + r) = states.top[r] + log_of(states.sum[r]);
  }

  void add_mask(int64_t mask, bool first) {
    for (int64_t h = 0; h < count; ++h) {
      transpose_keys(p, panels_of<T>(p, p.windows[mask]), k + h * p.keys * width, width, k_t);
      sum_rows(v + h * p.keys * width, width, p.keys, v_sum);
      for (int64_t row = 0; row < p.rows;) {
        const Tile tile = tile_at<T>(p, p.windows[mask], row, this->centres());
        add_tile(h, mask, tile, first);
        row += tile.rows;
      }
    }
  }

  void run() {
    bool first = true;
    for (int64_t j = 0; j < p.masks; ++j) {
      if (p.lse == nullptr && this->all_zero(j)) continue;
      if (!p.shared || first) read(p.shared ? 0 : j), this->fetch_after(j);
      add_mask(j, first);
      first = false;
    }
    if (first)
      for (int64_t i = 0; i < count * p.rows * width; ++i) out[i] = T(0);
    S* target = static_cast<S*>(p.out) + (this->batch * p.rows * p.heads + head) * p.dim;
    for (int64_t i = 0; i < count * width; ++i) zeros[i] = T(0);
    unpack(out, width, {p.rows, this->row_order(), nullptr}, count, p.dim, T(1) / value_unit, zeros, target,
           p.heads * p.dim, false);
  }
};

template <class S, class T>
void forward(const Problem& p, int64_t begin, int64_t end) {
  Forward<S, T> group(p, Scratch::get<T>(Forward<S, T>::size(p)));
  group.for_each(begin, end, [&] { group.run(); });
}
