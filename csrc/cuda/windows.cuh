// Windows of the masks (Eq. 6) from index arithmetic: which patches they hold, and which tiles can matter to them.
#pragma once

#include "device.cuh"

namespace diffrgen::cuda {

// A patch of the grid. Padding is farther from every patch than any order, and from padding of the other kind.
struct Position {
  int y, x;
};

constexpr int kFar = 1 << 29;
constexpr int kWholeGrid = 1 << 28;

// A patch lies in the window of order s round another where their distance is at most s.
__device__ inline int distance(Position a, Position b) { return max(abs(a.y - b.y), abs(a.x - b.x)); }

struct Range {
  int first, end;

  __device__ int size() const { return end - first; }
};

__device__ inline Position position_of(const Problem& p, int row) {
  const int patch = row % p.patches;
  return {patch / p.grid_width, patch % p.grid_width};
}

// Number of patches outside the window round a patch; none where that is padding.
__device__ inline int outside_of(const Problem& p, int order, Position centre) {
  if (order == 0 || centre.y < 0) return 0;
  const int height = min(centre.y + order, p.grid_height - 1) - max(centre.y - order, 0) + 1;
  const int width = min(centre.x + order, p.grid_width - 1) - max(centre.x - order, 0) + 1;
  return p.patches - height * width;
}

// Patches in the grid rows that the windows round the patches first..last reach.
__device__ inline Range reach_of(const Problem& p, int order, int first, int last) {
  if (order == 0) return {0, p.patches};
  const int top = max(first / p.grid_width - order, 0);
  const int bottom = min(last / p.grid_width + order, p.grid_height - 1);
  return {top * p.grid_width, (bottom + 1) * p.grid_width};
}

// Keys in reach of the query rows first..last.
__device__ inline Range keys_of_rows(const Problem& p, int order, int first, int last) {
  if (first / p.patches != last / p.patches) return {0, p.patches};
  return reach_of(p, order, first % p.patches, last % p.patches);
}

}  // namespace diffrgen::cuda
