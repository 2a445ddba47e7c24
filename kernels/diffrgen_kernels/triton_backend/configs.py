"""Block sizes, warps and pipeline depth of each kernel, by dtype and head dimension: tuned, else from the tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from .tuned import tuned_row


@dataclass(frozen=True)
class Config:
    """rows: query rows a block. keys: keys a tile. warps: warps a program. stages: depth of the load pipeline."""

    rows: int
    keys: int
    warps: int
    stages: int


# kernel -> largest head dimension -> configuration, for 16-bit types and for float32
NARROW = {
    "forward": {64: Config(64, 64, 4, 2), 128: Config(64, 64, 8, 2), 256: Config(32, 64, 8, 2)},
    "shared_forward": {64: Config(64, 64, 4, 2), 128: Config(64, 64, 8, 2), 256: Config(64, 16, 8, 2)},
    "backward_queries": {64: Config(64, 64, 4, 2), 128: Config(64, 64, 8, 2), 256: Config(32, 32, 8, 2)},
    "backward_keys": {64: Config(64, 64, 4, 2), 128: Config(64, 64, 8, 2), 256: Config(32, 32, 8, 2)},
    "shared_backward_queries": {
        64: Config(128, 32, 8, 2),
        96: Config(64, 16, 8, 2),
        128: Config(64, 32, 8, 2),
        256: Config(32, 16, 8, 1),
    },
    "shared_backward_keys": {32: Config(32, 128, 8, 2), 128: Config(16, 128, 8, 2), 256: Config(32, 32, 8, 2)},
    # small shapes: the least rows and keys, and the warps of up to 64 rows
    "small_forward": {
        32: Config(64, 16, 4, 3),
        63: Config(64, 16, 8, 2),
        64: Config(64, 16, 4, 3),
        128: Config(64, 16, 4, 2),
    },
    "small_backward": {64: Config(64, 16, 4, 3), 128: Config(64, 16, 8, 2)},
}
WIDE = {
    "forward": {64: Config(32, 32, 4, 2), 96: Config(32, 32, 8, 2), 256: Config(32, 16, 8, 2)},
    "shared_forward": {256: Config(32, 16, 8, 2)},
    "backward_queries": {128: Config(32, 16, 8, 2), 256: Config(16, 16, 8, 2)},
    "backward_keys": {64: Config(32, 32, 4, 2), 256: Config(16, 32, 8, 2)},
    "shared_backward_queries": {128: Config(32, 16, 8, 2), 256: Config(16, 16, 8, 2)},
    "shared_backward_keys": {64: Config(32, 32, 4, 2), 256: Config(16, 32, 8, 2)},
    "small_forward": {32: Config(16, 16, 8, 1)},
    "small_backward": {32: Config(16, 16, 8, 1)},
}


# what GPUs before Hopper need instead: their tensor cores take both factors from registers
BEFORE_HOPPER: dict[str, dict[int, Config]] = {
    "forward": {64: Config(64, 32, 4, 2), 128: Config(64, 32, 8, 2), 256: Config(32, 64, 8, 2)},
    "shared_forward": {64: Config(64, 32, 4, 2), 128: Config(64, 32, 8, 2), 256: Config(32, 32, 8, 2)},
    "backward_queries": {64: Config(64, 32, 4, 2), 128: Config(64, 16, 8, 2), 256: Config(32, 32, 8, 2)},
    "backward_keys": {64: Config(64, 64, 4, 2), 128: Config(32, 64, 8, 2), 256: Config(32, 32, 8, 2)},
    "shared_backward_keys": {128: Config(32, 64, 8, 2), 256: Config(32, 32, 8, 2)},
    "small_forward": {
        32: Config(64, 16, 4, 3),
        63: Config(64, 16, 8, 2),
        64: Config(64, 16, 4, 3),
        128: Config(64, 16, 8, 2),
    },
    "small_backward": {64: Config(64, 16, 4, 1), 96: Config(64, 16, 8, 1), 128: Config(64, 16, 8, 2)},
    "shared_backward_queries": {
        64: Config(64, 32, 4, 2),
        96: Config(64, 32, 8, 2),
        128: Config(64, 16, 8, 2),
        256: Config(16, 32, 8, 2),
    },
}

_arch: ContextVar[int | None] = ContextVar("_arch", default=None)
_forced: ContextVar[tuple[str, Config] | None] = ContextVar("_forced", default=None)


@contextmanager
def compiling_for(arch: int) -> Iterator[None]:
    """Inside, configurations are those for sm_{arch} and not those for the GPU at hand."""
    token = _arch.set(arch)
    try:
        yield
    finally:
        _arch.reset(token)


@contextmanager
def forced(kernel: str, config: Config) -> Iterator[None]:
    """Inside, this kernel has this configuration, so that it can be timed."""
    token = _forced.set((kernel, config))
    try:
        yield
    finally:
        _forced.reset(token)


def config_for(kernel: str, dtype: torch.dtype, dim: int) -> Config:
    """The configuration of a kernel (a key of the tables) for a dtype and head dimension."""
    choice = _forced.get()
    if choice is not None and choice[0] == kernel:
        return choice[1]
    arch = _arch.get()
    if arch is None and (row := tuned_row(kernel, dtype, dim)) is not None:
        return Config(**row)
    by_dim = (WIDE if dtype == torch.float32 else NARROW)[kernel]
    if dtype != torch.float32 and (arch or _arch_at_hand()) < 90:
        by_dim = BEFORE_HOPPER.get(kernel, by_dim)
    return next(config for limit, config in by_dim.items() if dim <= limit)


def _arch_at_hand() -> int:
    """80 for an A100, 90 for an H100; 90 while no GPU is in use."""
    if not torch.cuda.is_initialized():
        return 90
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor
