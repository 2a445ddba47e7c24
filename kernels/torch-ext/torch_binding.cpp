// For kernel-builder, which brings registration.h: the library as a Python module. The ops are registered in csrc/,
// in the namespace that csrc/namespace.h takes from the build.
#include "registration.h"

REGISTER_EXTENSION(TORCH_EXTENSION_NAME)
