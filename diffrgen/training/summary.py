"""The summary of a training: steps, time, memory, best score, and the machine."""

from __future__ import annotations

import os
import platform
import resource
import sys
from dataclasses import dataclass, field

import accelerate
import torch
import transformers

import diffrgen


def _machine() -> str:
    """Return the GPU's name, or the processor's architecture, vector instructions and cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores"


def _peak_memory() -> float:
    """Return the largest resident memory of this process so far, GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _versions() -> dict[str, str]:
    return {module.__name__: module.__version__ for module in (diffrgen, torch, transformers, accelerate)}


@dataclass(frozen=True)
class TrainingSummary:
    """Steps done, seconds of training with its validations (the retriever's fit is apart, in retriever/fit.json), the
    best validation micro-F1, the share (0..1) of the steps' time since the last start that the first process waited for
    data; machine, peak memory (GiB) of the process and versions.
    """

    steps: int
    seconds: float
    best_micro_f1: float
    waiting_for_data: float
    machine: str = field(default_factory=_machine)
    peak_memory_gib: float = field(default_factory=_peak_memory)
    versions: dict[str, str] = field(default_factory=_versions)
    skipped: int = 0
    """Steps left out because their loss or gradient was not finite."""
