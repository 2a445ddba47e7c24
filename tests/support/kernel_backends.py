"""Which backends the operator's tests run on: each one that this machine has."""

from __future__ import annotations

import pytest
import torch
from diffrgen_kernels.dispatch import BACKENDS
from kernel_cases import CASES, Case
from kernel_errors import absent

DEVICES = ("cpu", "cuda")
BY_NAME = {case.name: case for case in CASES}
PAIRS = [(backend, device) for backend in BACKENDS for device in DEVICES]
RUNNABLE = [pair for pair in PAIRS if absent(*pair) is None]
on_every_backend = pytest.mark.parametrize(("backend", "device"), RUNNABLE)


def has_small_kernels(case: Case, dtype: torch.dtype) -> bool:
    """Whether the triton backend computes a plain case by its kernels for small shapes."""
    from diffrgen_kernels.triton_backend import small

    q, k, *_ = case.inputs(dtype, "meta")
    return small.fits(q, k)
