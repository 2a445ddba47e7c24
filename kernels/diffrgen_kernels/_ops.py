"""Where the ops are registered: torch.ops.diffrgen, and torch.ops.diffrgen_native for those of the extension.

The Hugging Face hub's kernel-builder writes a file of this name with the same two members, whose namespace holds both
and is that of one build alone, so that several builds load side by side.
"""

from __future__ import annotations

from typing import Any

import torch

ops: Any = torch.ops.diffrgen


def add_op_namespace_prefix(op_name: str) -> str:
    """The full name of an op."""
    return f"diffrgen::{op_name}"
