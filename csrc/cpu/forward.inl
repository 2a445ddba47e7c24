// Forward of a group of heads of one study, with the exact shortcut:
//   O = sum_j alpha_j ( sum_{l in W} (P - u)_l v_l + u sum_all v ),  P the softmax weights, u the weight of a masked key.

template <class S>
const S* start_of(const View& view, int64_t batch, int64_t mask, int64_t head) {
  return static_cast<const S*>(view.data) + batch * view.batch + mask * view.mask + head * view.head;
}

// The sizes and buffers that forward and backward share; `take` hands out aligned pieces of the thread's scratch memory.
template <class S, class T>
struct GroupBase {
  const Problem& p;
  int64_t width, key_row;              // padded row lengths of (rows x D) and (D x patches) buffers
  int64_t batch = 0, head = 0, count = 0;  // the group: study, first head, number of heads
  T* next;

  static constexpr int64_t kTileRows = 64;

  GroupBase(const Problem& problem, T* memory)
      : p(problem), width(padded<T>(p.dim)), key_row(padded<T>(p.patches) + kLanes<T>), next(memory) {}

  T* take(int64_t elements) {
    T* here = next;
    next += padded<T>(elements);
    return here;
  }

  void pack_view(const View& view, int64_t mask, int64_t rows, T* to) const {
    pack(start_of<S>(view, batch, mask, head), {view.row, view.head, view.dim}, rows, count, p.dim, T(1), to, width);
  }

  void transpose_keys(const T* from, T* to) const {
    for (int64_t h = 0; h < count; ++h)
      transpose(from + h * p.patches * width, width, p.patches, p.dim, to + h * p.dim * key_row, key_row);
  }

  void sum_keys(const T* from, T* to) const {
    for (int64_t h = 0; h < count; ++h) sum_rows(from + h * p.patches * width, width, p.patches, to + h * width);
  }

  T alpha(int64_t mask) const { return static_cast<const T*>(p.alpha)[batch * p.masks + mask]; }

  // The units [begin, end): `run` is called with the group set.
  template <class Run>
  void for_each(int64_t begin, int64_t end, Run run) {
    const int64_t groups = (p.heads + p.heads_at_once - 1) / p.heads_at_once;
    for (int64_t unit = begin; unit < end; ++unit) {
      batch = unit / groups;
      head = unit % groups * p.heads_at_once;
      count = p.heads - head < p.heads_at_once ? p.heads - head : p.heads_at_once;
      run();
    }
  }
};

template <class S, class T>
struct Forward : GroupBase<S, T> {
  using Base = GroupBase<S, T>;
  using Base::count, Base::head, Base::key_row, Base::p, Base::width;
  T *q, *k_t, *v, *v_sum, *out, *x, *weights;  // the first five: one part for each head

  static int64_t size(const Problem& p) {
    const int64_t width = padded<T>(p.dim), key_row = padded<T>(p.patches) + kLanes<T>;
    return p.heads_at_once * ((2 * p.rows + p.patches + 1) * width + p.dim * key_row) +
           tile_columns<T>(p) * (Base::kTileRows + 1) + 8 * kLanes<T>;
  }

  Forward(const Problem& problem, T* memory) : Base(problem, memory) {
    q = this->take(p.heads_at_once * p.rows * width);
    k_t = this->take(p.heads_at_once * p.dim * key_row);
    v = this->take(p.heads_at_once * p.patches * width);
    v_sum = this->take(p.heads_at_once * width);
    out = this->take(p.heads_at_once * p.rows * width);
    x = this->take(tile_columns<T>(p));
    weights = this->take(tile_columns<T>(p) * Base::kTileRows);
  }

  void read(int64_t mask) {
    this->pack_view(p.k, mask, p.patches, v);  // v's buffer holds k until it is transposed
    this->transpose_keys(v, k_t);
    this->pack_view(p.q, mask, p.rows, q);
    this->pack_view(p.v, mask, p.patches, v);
    this->sum_keys(v, v_sum);
  }

  void add_tile(int64_t h, const Tile& tile, T alpha) {
    const int64_t columns = tile.pieces * tile.stride, first = (h * p.rows + tile.first_row) * width;
    const T *keys = k_t + h * p.dim * key_row, *values = v + h * p.patches * width, *all = v_sum + h * width;
    for (int64_t piece = 0; piece < tile.pieces; ++piece)
      product<T>(tile.rows, {q + first, width, 1}, keys + tile.key(piece, p.grid_width), key_row,
                 weights + piece * tile.stride, columns, p.dim, tile.stride / kLanes<T>, false);
    columns_x(p, tile, x);
    for (int64_t r = 0; r < tile.rows; ++r) {
      T* target = out + first + r * width;
      const T rest = softmax_row(p, tile, r, alpha, x, weights + r * columns);
      for (int64_t d = 0; d < width; ++d) target[d] += rest * all[d];
    }
    for (int64_t piece = 0; piece < tile.pieces; ++piece)
      product<T>(tile.rows, {weights + piece * tile.stride, columns, 1}, values + tile.key(piece, p.grid_width) * width,
                 width, out + first, width, tile.length, width / kLanes<T>, true);
  }

  void run() {
    for (int64_t i = 0; i < count * p.rows * width; ++i) out[i] = T(0);
    bool was_read = false;
    for (int64_t j = 0; j < p.masks; ++j) {
      const T alpha = this->alpha(j);
      if (p.skip_zero && alpha == T(0)) continue;
      if (!p.shared || !was_read) read(p.shared ? 0 : j);
      was_read = true;
      for (int64_t row = 0; row < p.rows;) {
        const Tile tile = tile_at<T>(p, p.orders[j], row);
        for (int64_t h = 0; h < count; ++h) add_tile(h, tile, alpha);
        row += tile.rows;
      }
    }
    S* target = static_cast<S*>(p.out) + (this->batch * p.rows * p.heads + head) * p.dim;
    unpack(out, width, p.rows, count, p.dim, T(1), target, p.heads * p.dim);
  }
};

template <class S, class T>
void forward(const Problem& p, int64_t begin, int64_t end) {
  Forward<S, T> group(p, Scratch::get<T>(Forward<S, T>::size(p)));
  group.for_each(begin, end, [&] { group.run(); });
}
