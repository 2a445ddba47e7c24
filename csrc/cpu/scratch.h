// Working memory of one thread, kept between calls so that a call touches no fresh pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace diffrgen {

class Scratch {
 public:
  // Memory for `count` elements of T, aligned to 64 bytes; not initialised.
  template <class T>
  static T* get(int64_t count) {
    thread_local std::vector<unsigned char> memory;
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T) + 64;
    if (memory.size() < bytes) memory.resize(bytes);
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    return reinterpret_cast<T*>((address + 63) & ~static_cast<std::uintptr_t>(63));
  }
};

}  // namespace diffrgen
