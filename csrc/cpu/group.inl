// The unit of work: some heads of one study. Forward and backward share its sizes and the thread's scratch memory.

template <class S>
const S* start_of(const View& view, int64_t batch, int64_t mask, int64_t head) {
  return static_cast<const S*>(view.data) + batch * view.batch + mask * view.mask + head * view.head;
}

struct Part {
  int64_t batch, head, count;  // study, first head, number of heads
};

inline Part part_of(const Problem& p, int64_t unit) {
  const int64_t groups = (p.heads + p.heads_at_once - 1) / p.heads_at_once;
  const int64_t head = unit % groups * p.heads_at_once, left = p.heads - head;
  return {unit / groups, head, left < p.heads_at_once ? left : p.heads_at_once};
}

// The largest power of two that is at most 1 / (2 keys).
template <class T>
T unit_of_values(int64_t keys) {
  T unit = T(0.5);
  for (int64_t power = 1; power < keys; power *= 2) unit /= 2;
  return unit;
}

template <class S, class T>
struct Group : Part {
  const Problem& p;
  int64_t width;               // D padded to whole vectors: the row length of every (rows x D) buffer
  T value_unit;                // values are read times this, a power of two, so that sums of them over keys do not overflow
  int64_t unit = 0, last = 0;  // this unit, and the thread's last one
  Upcoming upcoming;
  T* memory;                   // scratch memory that is left

  Group(const Problem& problem, T* scratch)
      : Part{}, p(problem), width(padded<T>(p.dim)), value_unit(unit_of_values<T>(p.keys)), memory(scratch) {}

  // Memory aligned to 64 bytes.
  T* take(int64_t elements) {
    T* here = memory;
    memory += (elements + 15) / 16 * 16;
    return here;
  }

  // Seven arrays of the rows of a tile, in whole vectors.
  static int64_t states_size(const Problem& p) { return 7 * (p.rows + 2 * 16); }

  RowState<T> take_states() {
    T* all[7];
    for (T*& each : all) each = take(padded<T>(p.rows));
    return {all[0], all[1], all[2], all[3], all[4], all[5], all[6]};
  }

  T* take_rows(int64_t rows) { return take(p.heads_at_once * rows * width); }

  // What each study has of its own, or null: its rows' centres and their order, its keys that exist and their counts.
  const int64_t* centres() const { return of_study(p.centres, p.centres_batch); }
  const int64_t* row_order() const { return of_study(p.row_order, p.centres_batch); }
  const bool* exist() const { return of_study(p.key_mask, p.keys); }
  const int64_t* counts() const { return of_study(p.key_counts, p.counts_size()); }

  // Place in storage of the i-th row that is worked on.
  int64_t place(int64_t i) const { return row_order() == nullptr ? i : row_order()[i]; }

  void pack_rows(const View& view, int64_t mask, T factor, T* to) const {
    const Strides strides{view.row, view.head, view.dim};
    pack(start_of<S>(view, batch, mask, head), strides, {p.rows, row_order(), nullptr}, count, p.dim, factor, to, width);
  }

  void pack_keys(const View& view, int64_t mask, T factor, T* to) const {
    const Strides strides{view.row, view.head, view.dim};
    pack(start_of<S>(view, batch, mask, head), strides, {p.keys, nullptr, exist()}, count, p.dim, factor, to, width);
  }

  // Has fetched while the products of a projection are computed what is read after it: the next one, or the next unit's
  // first one and its gradient of the output, where there is one.
  void fetch_after(int64_t projection) {
    upcoming.clear();
    const bool ends = p.shared || projection + 1 == p.masks;
    if (ends && unit == last) return;
    const Part next = ends ? part_of(p, unit + 1) : Part(*this);
    const int64_t mask = ends ? 0 : projection + 1;
    const auto add = [&](const View& view, int64_t rows) {
      const Strides strides{view.row, view.head, view.dim};
      upcoming.add(start_of<S>(view, next.batch, mask, next.head), strides, rows, next.count, p.dim);
    };
    add(p.q, p.rows), add(p.k, p.keys), add(p.v, p.keys);
    if (ends && p.grad.data != nullptr) add(p.grad, p.rows);
  }

  // alpha of a mask and the i-th row that is worked on.
  T alpha(int64_t mask, int64_t i) const {
    const int64_t row = p.row_alpha ? batch * p.rows + place(i) : batch;
    return static_cast<const T*>(p.alpha)[row * p.masks + mask];
  }

  bool all_zero(int64_t mask) const {
    for (int64_t i = 0; i < (p.row_alpha ? p.rows : 1); ++i)
      if (!(alpha(mask, i) == T(0))) return false;
    return true;
  }

  void read_alpha(int64_t mask, const Tile& tile, T* to) const {
    for (int64_t r = 0; r < tile.rows; ++r) to[r] = alpha(mask, tile.first_row + r);
  }

  // The saved log-sum-exp (B, N, P, H) of one head and the i-th row that is worked on.
  T& lse(int64_t mask, int64_t h, int64_t i) const {
    return static_cast<T*>(p.lse)[((batch * p.rows + place(i)) * p.masks + mask) * p.heads + head + h];
  }

  // The units [begin, end): `run` is called with the group set.
  template <class Run>
  void for_each(int64_t begin, int64_t end, Run run) {
    last = end - 1;
    for (unit = begin; unit < end; ++unit) {
      static_cast<Part&>(*this) = part_of(p, unit);
      run();
    }
  }

 private:
  template <class Element>
  const Element* of_study(const Element* all, int64_t distance) const {
    return all == nullptr ? nullptr : all + batch * distance;
  }
};
