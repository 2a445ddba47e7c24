"""A launch compiled ahead of time, with no GPU at hand, and what its machine code needs."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from ..launch import Launch

# bytes that a program may have on GPUs of compute capability 8.0 (A100), 9.0 (H100, H200), ...
SHARED_LIMITS = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}

_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+)")
_INSTRUCTION = re.compile(r"\s(STL|LDL|HGMMA|HMMA)([.\w]*)\s")
_BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}


@dataclass(frozen=True)
class Compiled:
    """What one kernel needs on one architecture.

    registers: of a thread. stack, spill_stores, spill_loads: bytes of a thread. shared: bytes of a program.
    wgmma, mma_sync: instructions for the tensor cores, of Hopper's warp groups and of single warps.
    """

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int
    wgmma: int
    mma_sync: int


def compile_launch(launch: Launch, arch: int) -> Compiled:
    """Compile a launch whose tensors may be on the meta device for sm_{arch} (90 is sm_90a) and read its machine code.

    Triton keeps the result in its cache, so that a launch compiled twice costs little. Not for several threads at once.

    Raises:
        RuntimeError: the kernel is run by Triton's interpreter, or Triton's cuobjdump is missing.
        Exception: what Triton raises where the kernel cannot be compiled for that architecture.
    """
    if not isinstance(launch.kernel, JITFunction):
        raise RuntimeError(f"{launch.kernel.fn.__name__} is interpreted and not compiled: unset TRITON_INTERPRET")
    with _stand_in_driver(arch):
        kernel = launch.kernel.warmup(**launch.arguments, **launch.constants, **launch.options, grid=(launch.programs,))
    return read_needs(_disassemble(kernel.asm["cubin"]), kernel.metadata.shared)


def read_needs(code: str, shared: int) -> Compiled:
    """What a kernel needs, from the output of `cuobjdump -res-usage -sass`."""
    resources = _RESOURCES.search(code)
    assert resources is not None, code
    count: Counter[str] = Counter()
    for name, modifiers in _INSTRUCTION.findall(code):
        local = name in ("STL", "LDL")
        count[name] += next((_BYTES[m] for m in modifiers.split(".") if m in _BYTES), 4) if local else 1
    registers, stack = map(int, resources.groups())
    return Compiled(registers, stack, count["STL"], count["LDL"], shared, count["HGMMA"], count["HMMA"])


class _StandInDriver:
    """What Triton asks of a GPU before it compiles."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> str:
        # Triton keeps kernels by device: no number, so that none is launched on a real GPU
        return f"sm_{self.arch}, ahead of time"

    def get_current_stream(self, device: Any) -> int:
        return 0


@contextmanager
def _stand_in_driver(arch: int) -> Iterator[None]:
    try:
        previous = driver.active
    except RuntimeError:  # no GPU
        previous = None
    driver.set_active(_StandInDriver(arch))
    try:
        yield
    finally:
        driver.set_active(previous)


def _disassemble(binary: bytes) -> str:
    """The resources and instructions of the binary that Triton's own ptxas made."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", "-sass", file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
