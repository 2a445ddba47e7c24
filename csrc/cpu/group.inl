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

template <class S, class T>
struct Group : Part {
  const Problem& p;
  int64_t width;               // D padded to whole vectors: the row length of every (rows x D) buffer
  int64_t unit = 0, last = 0;  // this unit, and the thread's last one
  Upcoming upcoming;
  T* memory;                   // scratch memory that is left

  Group(const Problem& problem, T* scratch) : Part{}, p(problem), width(padded<T>(p.dim)), memory(scratch) {}

  // Memory aligned to 64 bytes.
  T* take(int64_t elements) {
    T* here = memory;
    memory += (elements + 15) / 16 * 16;
    return here;
  }

  // Six arrays of the rows of a tile, in whole vectors.
  static int64_t states_size(const Problem& p) { return 6 * (p.rows + 2 * 16); }

  RowState<T> take_states() {
    T* all[6];
    for (T*& each : all) each = take(padded<T>(p.rows));
    return {all[0], all[1], all[2], all[3], all[4], all[5]};
  }

  T* take_rows(int64_t rows) { return take(p.heads_at_once * rows * width); }

  void pack_view(const View& view, int64_t mask, int64_t rows, T factor, T* to) const {
    const Strides strides{view.row, view.head, view.dim};
    pack(start_of<S>(view, batch, mask, head), strides, rows, count, p.dim, factor, to, width);
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
    add(p.q, p.rows), add(p.k, p.patches), add(p.v, p.patches);
    if (ends && p.grad.data != nullptr) add(p.grad, p.rows);
  }

  T alpha(int64_t mask) const { return static_cast<const T*>(p.alpha)[batch * p.masks + mask]; }

  // The saved log-sum-exp of one head's first row, and the distance of rows: (B, N, P, H).
  T* lse(int64_t mask, int64_t h) const {
    return static_cast<T*>(p.lse) + (batch * p.rows * p.masks + mask) * p.heads + head + h;
  }
  int64_t lse_row() const { return p.masks * p.heads; }

  // The units [begin, end): `run` is called with the group set.
  template <class Run>
  void for_each(int64_t begin, int64_t end, Run run) {
    last = end - 1;
    for (unit = begin; unit < end; ++unit) {
      static_cast<Part&>(*this) = part_of(p, unit);
      run();
    }
  }
};
