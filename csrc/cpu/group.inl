// The unit of work: some heads of one study. Forward and backward share its sizes and the thread's scratch memory.

template <class S>
const S* start_of(const View& view, int64_t batch, int64_t mask, int64_t head) {
  return static_cast<const S*>(view.data) + batch * view.batch + mask * view.mask + head * view.head;
}

template <class S, class T>
struct Group {
  const Problem& p;
  int64_t width;                           // D padded to whole vectors: the row length of every (rows x D) buffer
  int64_t batch = 0, head = 0, count = 0;  // study, first head, number of heads
  T* memory;                               // scratch memory that is left

  Group(const Problem& problem, T* scratch) : p(problem), width(padded<T>(p.dim)), memory(scratch) {}

  // Memory aligned to 64 bytes.
  T* take(int64_t elements) {
    T* here = memory;
    memory += (elements + 15) / 16 * 16;
    return here;
  }

  T* take_rows(int64_t rows) { return take(p.heads_at_once * rows * width); }

  void pack_view(const View& view, int64_t mask, int64_t rows, T factor, T* to) const {
    const Strides strides{view.row, view.head, view.dim};
    pack(start_of<S>(view, batch, mask, head), strides, rows, count, p.dim, factor, to, width);
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
    const int64_t groups = (p.heads + p.heads_at_once - 1) / p.heads_at_once;
    for (int64_t unit = begin; unit < end; ++unit) {
      batch = unit / groups;
      head = unit % groups * p.heads_at_once;
      count = p.heads - head < p.heads_at_once ? p.heads - head : p.heads_at_once;
      run();
    }
  }
};
