// The namespace of the library's ops: DIFFRGEN_OPS or TORCH_EXTENSION_NAME (the Hugging Face hub's kernel-builder names
// each build otherwise) where the build defines one of them, so that copies of the library load side by side.
#pragma once

#include <torch/csrc/stable/library.h>

#ifndef DIFFRGEN_OPS
#ifdef TORCH_EXTENSION_NAME
#define DIFFRGEN_OPS TORCH_EXTENSION_NAME
#else
#define DIFFRGEN_OPS diffrgen_native
#endif
#endif

// one macro more, so that DIFFRGEN_OPS is replaced before it becomes part of a name
#define DIFFRGEN_EXPANDED_LIBRARY(space, m) STABLE_TORCH_LIBRARY(space, m)
#define DIFFRGEN_EXPANDED_LIBRARY_IMPL(space, key, m) STABLE_TORCH_LIBRARY_IMPL(space, key, m)
#define DIFFRGEN_LIBRARY(m) DIFFRGEN_EXPANDED_LIBRARY(DIFFRGEN_OPS, m)
#define DIFFRGEN_LIBRARY_IMPL(key, m) DIFFRGEN_EXPANDED_LIBRARY_IMPL(DIFFRGEN_OPS, key, m)
