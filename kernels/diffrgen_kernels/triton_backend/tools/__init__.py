"""What the kernels need on a GPU, and which of their configurations is fastest there; the operator itself uses none of it."""
