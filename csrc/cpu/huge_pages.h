// Memory in huge pages, where the system has them: fewer page faults, fewer misses of the processor's page table cache.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace diffrgen {

constexpr std::uintptr_t kHugePage = std::uintptr_t{1} << 21;

// Asks for huge pages for what of the memory can be in one. Only a wish: nothing is different where it is not granted.
inline void ask_for_huge_pages(const void* memory, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const auto begin = reinterpret_cast<std::uintptr_t>(memory), end = begin + bytes;
  const std::uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage, last = end / kHugePage * kHugePage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace diffrgen
