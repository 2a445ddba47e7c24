// The CUDA that csrc/cuda uses, on a CPU: one block after the other, its threads as fibers that change places where
// they wait for one another. Shared memory is made anew for each block and filled with NaN.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(...)

using std::max;
using std::min;

struct Index {
  unsigned x;
};
inline Index threadIdx, blockIdx;

namespace emulation {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 1 << 18;

struct Copy {
  void* to;
  const void* from;
  bool there;
};

struct Barrier {
  int waiting = 0, passed = 0;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  std::vector<Copy> copies;
  const Barrier* barrier = nullptr;  // that it waits at, since so many have passed
  int passed = 0;
  bool ended = false;

  bool ready() const { return !ended && (barrier == nullptr || barrier->passed != passed); }
};

// What a lane hands to its warp; the two places are used in turn, so that one wait an exchange is enough.
struct Deposit {
  float value;
  const void* address;
  uint32_t words[6];
};

struct Running {
  std::vector<Fiber> fibers;
  ucontext_t scheduler;
  unsigned char* shared = nullptr;
  Barrier block;
  std::vector<Barrier> warps;
  std::vector<Deposit> deposits[2];
  std::vector<int> turn;  // of each thread
  void (*body)(const void*) = nullptr;
  const void* argument = nullptr;
};
inline Running running;

inline void wait(Barrier& barrier, int threads) {
  Fiber& own = running.fibers[threadIdx.x];
  own.barrier = &barrier;
  own.passed = barrier.passed;
  if (++barrier.waiting == threads) {
    barrier.waiting = 0;
    ++barrier.passed;
  }
  swapcontext(&own.context, &running.scheduler);
}

inline void wait_for_warp() { wait(running.warps[threadIdx.x / kWarp], kWarp); }

// All deposits of the warp, lane by lane.
inline const Deposit* exchange(const Deposit& own) {
  std::vector<Deposit>& place = running.deposits[running.turn[threadIdx.x]++ % 2];
  place[threadIdx.x] = own;
  wait_for_warp();
  return place.data() + threadIdx.x / kWarp * kWarp;
}

inline void enter() {
  running.body(running.argument);
  running.fibers[threadIdx.x].ended = true;
}

inline void start(int threads) {
  running.fibers.resize(threads);
  for (Fiber& fiber : running.fibers) {
    fiber.ended = false;
    fiber.barrier = nullptr;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = &running.scheduler;
    makecontext(&fiber.context, enter, 0);
  }
}

// Each warp in turn goes as far as it can without the others; false if none of its threads could go.
inline bool run_warp(int warp) {
  bool any = false;
  for (bool again = true; again; any |= again) {
    again = false;
    for (int thread = warp * kWarp; thread < (warp + 1) * kWarp; ++thread) {
      if (!running.fibers[thread].ready()) continue;
      again = true;
      threadIdx.x = thread;
      swapcontext(&running.scheduler, &running.fibers[thread].context);
    }
  }
  return any;
}

// The warps go upwards and downwards in turn: a barrier that is missing shows in one of the two.
inline void run_block(int threads) {
  start(threads);
  const int warps = threads / kWarp;
  bool any = true;
  for (bool upwards = true; any; upwards = !upwards) {
    any = false;
    for (int i = 0; i < warps; ++i) any |= run_warp(upwards ? i : warps - 1 - i);
  }
  for (const Fiber& fiber : running.fibers) {
    if (fiber.ended) continue;
    std::fputs("a thread waits at a barrier that others never reach\n", stderr);
    std::abort();
  }
}

template <class T>
float element(uint32_t pair, int i) {
  return static_cast<float>(T(static_cast<unsigned short>(pair >> 16 * i), T::from_bits()));
}

// PTX, mma.m16n8k16: with g = lane / 4 and t = lane % 4, pair p of a holds a[g + 8 (p % 2)][2 t + 8 (p / 2) + {0, 1}],
// pair p of b holds b[2 t + 8 p + {0, 1}][g], element i of c is c[g + 8 (i / 2)][2 t + i % 2].
template <class T>
void multiply_add(float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const Deposit* lanes = exchange({0.0f, nullptr, {a[0], a[1], a[2], a[3], b0, b1}});
  const int lane = threadIdx.x % kWarp;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const uint32_t left = lanes[row % 8 * 4 + k % 8 / 2].words[row / 8 + k / 8 * 2];
      const uint32_t right = lanes[column * 4 + k % 8 / 2].words[4 + k / 8];
      c[i] += element<T>(left, k % 2) * element<T>(right, k % 2);
    }
  }
}

}  // namespace emulation

inline void __syncthreads() {
  emulation::wait(emulation::running.block, static_cast<int>(emulation::running.fibers.size()));
}
inline void __syncwarp() { emulation::wait_for_warp(); }

namespace diffrgen::cuda {

using Stream = void*;

inline unsigned char* shared_memory() { return emulation::running.shared; }

inline uint32_t in_one_register(uint32_t bits) { return bits; }

// The bytes arrive no sooner than they are waited for.
inline void start_copy(void* to, const void* from, bool there) {
  emulation::running.fibers[threadIdx.x].copies.push_back({to, from, there});
}

inline void finish_copies() {
  for (const emulation::Copy& copy : emulation::running.fibers[threadIdx.x].copies)
    copy.there ? std::memcpy(copy.to, copy.from, 16) : std::memset(copy.to, 0, 16);
  emulation::running.fibers[threadIdx.x].copies.clear();
}

inline float exchange(float value, int mask) {
  return emulation::exchange({value, nullptr, {}})[threadIdx.x % emulation::kWarp ^ mask].value;
}

inline uint16_t element_of(const emulation::Deposit* lanes, int matrix, int row, int column) {
  uint16_t bits;
  std::memcpy(&bits, static_cast<const char*>(lanes[8 * matrix + row].address) + 2 * column, 2);
  return bits;
}

template <bool transposed>
void load_matrices(uint32_t (&to)[4], const void* row) {
  const emulation::Deposit* lanes = emulation::exchange({0.0f, row, {}});
  const int g = threadIdx.x % emulation::kWarp / 4, t = threadIdx.x % 4;
  for (int i = 0; i < 4; ++i) {
    const uint32_t first = transposed ? element_of(lanes, i, 2 * t, g) : element_of(lanes, i, g, 2 * t);
    const uint32_t second = transposed ? element_of(lanes, i, 2 * t + 1, g) : element_of(lanes, i, g, 2 * t + 1);
    to[i] = first | second << 16;
  }
}

inline void multiply_add(float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1, c10::Half) {
  emulation::multiply_add<c10::Half>(c, a, b0, b1);
}

inline void multiply_add(float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1, c10::BFloat16) {
  emulation::multiply_add<c10::BFloat16>(c, a, b0, b1);
}

template <class Argument>
void launch(void (*kernel)(Argument), int64_t blocks, int threads, int shared_bytes, Stream, const Argument& argument) {
  using emulation::running;
  static void (*body)(Argument);
  body = kernel;
  running.body = [](const void* value) { body(*static_cast<const Argument*>(value)); };
  running.argument = &argument;
  for (int64_t block = 0; block < blocks; ++block) {
    blockIdx.x = static_cast<unsigned>(block);
    void* const shared = std::aligned_alloc(16, (shared_bytes + 15) / 16 * 16);
    std::memset(shared, 0xff, shared_bytes);
    running.shared = static_cast<unsigned char*>(shared);
    running.block = {};
    running.warps.assign(threads / emulation::kWarp, {});
    running.turn.assign(threads, 0);
    for (auto& place : running.deposits) place.assign(threads, {});
    emulation::run_block(threads);
    std::free(shared);
  }
}

}  // namespace diffrgen::cuda
