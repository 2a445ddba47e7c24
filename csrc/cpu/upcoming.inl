// Rows that are read next, fetched into the caches while products are computed: memory is idle then.
// On two cores of an AMD EPYC (Zen 4) forward and backward of 16 x 12 heads of 49 x 49 with it took 17.0 ms, without
// 20.5 ms.

// Rows of several heads. In storage the heads of one row are neighbours, so rows are the outer loop of what reads them:
// whole cache lines and pages are used up before they are left.
struct Strides {
  int64_t row, head, dim;
};

constexpr int64_t kLine = 64;             // bytes of a cache line
constexpr int64_t kFetched = 256 << 10;  // bytes that are fetched at most: more would displace what is in use
constexpr int64_t kUpcomingViews = 4;    // q, k, v and the gradient of the output

// Cache lines that are `step` bytes apart.
struct Lines {
  const char* first;
  int64_t step, count;
};

class Upcoming {
 public:
  void clear() { views_ = view_ = head_ = line_ = row_ = bytes_ = 0; }

  // Rows of storage whose elements are neighbours; others are not fetched.
  template <class S>
  void add(const S* from, Strides strides, int64_t rows, int64_t heads, int64_t dim) {
    constexpr int64_t size = sizeof(S);
    bytes_ += rows * heads * dim * size;
    if (strides.dim == 1)
      all_[views_++] = {reinterpret_cast<const char*>(from), strides.row * size, strides.head * size, rows, heads,
                        (dim * size + kLine - 1) / kLine};
  }

  // The next lines, at most `limit`.
  Lines take(int64_t limit) {
    if (view_ == views_ || bytes_ > kFetched) return {nullptr, 0, 0};
    const View& view = all_[view_];
    const int64_t left = view.rows - row_, count = left < limit ? left : limit;
    const Lines found{view.data + head_ * view.head + row_ * view.row + line_ * kLine, view.row, count};
    row_ += count;
    if (row_ == view.rows) row_ = 0, ++line_;
    if (line_ == view.lines) line_ = 0, ++head_;
    if (head_ == view.heads) head_ = 0, ++view_;
    return found;
  }

 private:
  struct View {
    const char* data;
    int64_t row, head, rows, heads, lines;  // distances in bytes; lines of one head's row
  };
  View all_[kUpcomingViews];
  int64_t views_ = 0, view_ = 0, head_ = 0, line_ = 0, row_ = 0, bytes_ = 0;
};
