// Working memory of one thread, kept between calls so that a call touches no fresh pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "huge_pages.h"

namespace diffrgen {

class Scratch {
 public:
  // Memory for `count` elements of T, aligned to 64 bytes and more; not initialised.
  template <class T>
  static T* get(int64_t count) {
    thread_local Scratch own;
    const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(T) + kHugePage - 1) / kHugePage * kHugePage;
    if (own.bytes_ < bytes) {
      own.bytes_ = 0;
      own.memory_.reset();
      own.memory_.reset(::operator new(bytes, std::align_val_t{kHugePage}));
      own.bytes_ = bytes;
      ask_for_huge_pages(own.memory_.get(), bytes);
    }
    return static_cast<T*>(own.memory_.get());
  }

 private:
  struct Release {
    void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{kHugePage}); }
  };

  std::unique_ptr<void, Release> memory_;
  std::size_t bytes_ = 0;
};

}  // namespace diffrgen
