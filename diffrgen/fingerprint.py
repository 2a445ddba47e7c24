"""Hashes that identify whether a stored result belongs to the current weights and arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import nn


def fingerprint(parts: Iterable[str | bytes | memoryview]) -> str:
    """Return a 128-bit hexadecimal hash of the parts, in order; ("ab", "c") and ("a", "bc") differ."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else memoryview(part).cast("B")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def weights_fingerprint(model: nn.Module) -> str:
    """Return the hash of every parameter and buffer that `model` saves."""
    state = model.state_dict()
    parts: list[str | bytes | memoryview] = []
    for name in sorted(state):
        flat = state[name].detach().cpu().contiguous().reshape(-1)
        parts += [name, memoryview(flat.view(torch.uint8).numpy())]
    return fingerprint(parts)
