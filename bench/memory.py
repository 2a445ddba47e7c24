"""The memory of a call: bytes saved for backward, and the peak."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from inputs import Step
from torch import Tensor

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def saved_bytes(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> int:
    """Bytes that autograd keeps between forward and backward beside inputs and output; a storage counts once."""
    own = {x.untyped_storage().data_ptr() for x in inputs}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = function(*inputs)
    kept.pop(out.untyped_storage().data_ptr(), None)
    return sum(kept.values())


def peak_bytes(step: Step, device: str) -> int | None:
    """The most memory that a call needs at once beside its inputs.

    CUDA: what PyTorch allocated. CPU: how far the resident memory of the process rose, free heap given back before, so
    working memory that a library keeps from call to call is not seen; None where the kernel does not tell (not Linux).
    """
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if not CLEAR_REFS.exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR_REFS.write_text("5")  # the peak so far is forgotten
    before = resident_bytes("VmRSS")
    step()
    return max(0, resident_bytes("VmHWM") - before)


def resident_bytes(field: Literal["VmRSS", "VmHWM"]) -> int | None:
    """The resident memory of this process, now or at most; None where the kernel does not tell (not Linux)."""
    if not STATUS.exists():
        return None
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
