"""The CUDA kernels without a GPU: compiled as C++ and run on the CPU, thread by thread, against Eq. 5 in float64.

tests/cuda_emulation gives a C++ compiler the CUDA that the kernels use; memory errors are found by the compiler's
sanitizers, and shared memory, results and workspaces start as NaN.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from diffrgen_kernels.windows import half_sizes
from kernel_cases import CASES, Case, dense, made_small
from kernel_errors import NAMES, error, truth_and_eager
from torch import Tensor
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).resolve().parents[2]
CUDA, EMULATION = ROOT / "csrc" / "cuda", ROOT / "tests" / "cuda_emulation"
SOURCES = ("forward.cu", "backward_queries.cu", "backward_keys.cu", "sums.cu")
# windows that reach part of a cycle of rows; heads wider than a tile, over several tiles of keys and masks; odd strides
MORE_CASES = [
    Case("cycles_over_tiles", batch=1, rows=230, grid=(20, 5), orders=(1, 0), heads=1, dim=8),
    Case("wide_heads_over_tiles", batch=1, rows=100, grid=(10, 9), orders=(1, 0, 2), heads=1, dim=72, shared=True),
    Case("wide_heads_exclusive", batch=1, rows=70, grid=(9, 9), orders=(1, 2), heads=1, dim=72, masking="exclusive"),
    Case("transposed_over_tiles", batch=1, rows=66, grid=(7, 10), orders=(2,), heads=2, dim=65, layout="transposed"),
]
CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
# bfloat16 runs the code of float16 with another type in it
BFLOAT16 = {
    *("rows_cycle_twice", "one_patch", "three_masks", "dim_40", "dim_64", "dim_256", "dim_odd", "transposed_views"),
    *("zero_weights", "shared_projections", "exclusive", "exclusive_shared", "huge_logits", "low_logits", "many_rows"),
    *("cycles_over_tiles", "wide_heads_over_tiles"),
}
CALLS = [
    pytest.param(case, dtype, id=f"{case.name}-{str(dtype).removeprefix('torch.')}")
    for case in [*map(made_small, CASES), *MORE_CASES]
    for dtype in CODES
    if dtype != torch.bfloat16 or case.name in BFLOAT16
]
COMPILER = shutil.which("g++")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="the emulated CUDA kernels need g++")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels and tests/cuda_emulation/main.cpp as one program."""
    target = tmp_path_factory.mktemp("cuda") / "emulated"
    folders = [f"-I{CUDA}", f"-I{EMULATION}", *(f"-isystem{path}" for path in include_paths())]
    checks = ["-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags = ["-std=c++17", "-O1", "-g1", "-fno-strict-aliasing", "-Wno-unknown-pragmas", "-x", "c++"]
    files = [EMULATION / "main.cpp", *(CUDA / name for name in SOURCES)]
    run = subprocess.run([COMPILER, *flags, *checks, *folders, *files, "-o", target], capture_output=True, text=True)
    if "cannot find" in run.stderr and "san" in run.stderr:
        pytest.skip(f"g++ has no sanitizers here: {run.stderr.splitlines()[0]}")
    assert run.returncode == 0, run.stderr
    return target


def packed(x: Tensor) -> bytes:
    """Strides, length and bytes of the part of memory that a view spans."""
    strides = list(x.stride())
    if x.dim() == 4:  # grad (B, N, H, D): no axis of masks
        strides.insert(2, 0)
    if x.dim() == 2:  # alpha (B, P): no axes of rows, heads and columns
        strides = [strides[0], 0, strides[1], 0, 0]
    length = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    data = x.as_strided((length,), (1,)).contiguous().view(torch.uint8).numpy().tobytes()
    return struct.pack("<6q", *strides, len(data)) + data


def emulated(program: Path, case: Case, inputs: list[Tensor], grad: Tensor, *, gradients: bool = True) -> list[Tensor]:
    """The output, and the gradients of the inputs if they are asked for."""
    q, k, v, alpha = (x.detach() for x in inputs)
    batch, rows, own_masks, heads, dim = q.shape
    sizes = (batch, rows, k.shape[1], heads, dim, alpha.shape[1], own_masks)
    scale = dim**-0.5 if case.scale is None else case.scale
    call = struct.pack("<12if", CODES[q.dtype], gradients, *sizes, *case.grid, case.masking == "exclusive", scale)
    windows = [size for order in case.orders for size in half_sizes(order, case.grid)]
    call += struct.pack(f"<{len(windows)}q", *windows) + b"".join(map(packed, (q, k, v, alpha, grad)))
    run = subprocess.run([program], input=call, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()[-4000:]
    shapes = [(torch.Size((batch, rows, heads, dim)), q.dtype)] + [(x.shape, x.dtype) for x in inputs if gradients]
    results, begin = [], 0
    for shape, dtype in shapes:
        end = begin + shape.numel() * dtype.itemsize
        results.append(torch.frombuffer(bytearray(run.stdout[begin:end]), dtype=dtype).view(shape))
        begin = end
    assert begin == len(run.stdout)
    return results


def gradient(case: Case, dtype: torch.dtype) -> Tensor:
    """The gradient of the output that truth_and_eager takes."""
    shape = (case.batch, case.rows, case.heads, case.dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize(("case", "dtype"), CALLS)
def test_parity(case: Case, dtype: torch.dtype, program: Path) -> None:
    inputs = case.inputs(dtype)
    exact, eager = truth_and_eager(case, inputs)
    found = emulated(program, case, inputs, gradient(case, dtype))
    for name, value, true, plain in zip(NAMES, found, exact, eager, strict=True):
        bound = 2e-6 if dtype == torch.float32 else 2 * error(plain, true) + torch.finfo(dtype).eps / 2
        assert error(value, true) <= bound, f"{name}: {error(value, true):.2e}, at most {bound:.2e}"


def test_without_gradients(program: Path) -> None:
    """A mask with alpha = 0 is left out, and only the output comes back."""
    for case in (Case("zero", weights="some_zero", orders=(0, 1, 2), rows=14), Case("one_hot", weights="one_hot")):
        inputs = [x.detach() for x in case.inputs(torch.float32)]
        (found,) = emulated(program, case, inputs, gradient(case, torch.float32), gradients=False)
        assert error(found, dense(*(x.double() for x in inputs), case)) <= 2e-6


def test_strided_gradient(program: Path) -> None:
    """The gradient of a sum is one number seen from everywhere; another one lies transposed."""
    case = Case("strided", rows=14, dim=24)
    inputs = case.inputs(torch.float32)
    shape = (case.batch, case.rows, case.heads, case.dim)
    transposed = torch.randn(shape[::-1], generator=torch.Generator().manual_seed(2)).permute(3, 2, 1, 0)
    for grad in (torch.ones(()).expand(shape), transposed):
        wide = [x.detach().double().requires_grad_() for x in inputs]
        exact = torch.autograd.grad(dense(*wide, case), wide, grad.double())
        for value, true in zip(emulated(program, case, inputs, grad)[1:], exact, strict=True):
            assert error(value, true) <= 2e-6
