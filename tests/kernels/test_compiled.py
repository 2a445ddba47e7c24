"""The Triton kernels compiled ahead of time, without a GPU: what Triton's interpreter cannot show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

pytest.importorskip("triton", reason="Triton cannot be imported")

from diffrgen_kernels import inspect
from diffrgen_kernels.triton_backend.tools.compile import SHARED_LIMITS, Compiled, compile_launch, read_needs
from diffrgen_kernels.triton_backend.tools.variants import GRIDS, Problem, compile_variants, processes, variants_of

SMALL, LARGE = GRIDS["small"], GRIDS["large"]
PROBLEMS = {
    "own-large-bf16-64": Problem(),
    "own-small-bf16-64": Problem(grid=SMALL),
    "shared-large-bf16-64": Problem(projections="shared"),
    "shared-small-bf16-64": Problem(projections="shared", grid=SMALL),
    "own-large-exclusive-fp16-64": Problem(torch.float16, masking="exclusive"),
    "own-large-fp32-64": Problem(torch.float32),
    "own-small-fp32-32": Problem(torch.float32, 32, grid=SMALL),
    "own-large-bf16-96": Problem(dim=96),
    "own-large-bf16-256": Problem(dim=256),
    "shared-large-bf16-256": Problem(dim=256, projections="shared"),
    "general-large-bf16-64": Problem(general=True),
    "general-large-fp32-64": Problem(torch.float32, general=True, batch=2),
}


def _missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    from triton import knobs
    from triton.backends.nvidia.compiler import get_ptxas

    if knobs.runtime.interpret:
        return "Triton interprets its kernels (TRITON_INTERPRET)"
    try:
        assert all((get_ptxas(80), get_ptxas(90), knobs.nvidia.cuobjdump))
    except RuntimeError as error:
        return f"Triton's own tools are missing: {error}"
    return None


can_compile = pytest.mark.skipif(_missing() is not None, reason=_missing() or "")


@pytest.fixture(scope="session")
def pool() -> Iterator[ProcessPoolExecutor]:
    with processes(2) as pool:
        yield pool


def spill_limit(problem: Problem) -> int:
    """Bytes a thread that may be stored and loaded again: a handful for addresses, more where D = 256 fills the registers."""
    return 128 if problem.dim < 256 else 1024


def faults(needs: Compiled | Exception, problem: Problem, arch: int) -> list[str]:
    """What is wrong with a kernel; with D = 256 the sums of Hopper's smallest product, 64 rows, leave no registers."""
    if isinstance(needs, Exception):
        return [str(needs)]
    hopper = arch == 90 and problem.grid == LARGE and problem.dim < 256
    checks = {
        "spills": needs.spill_stores + needs.spill_loads > spill_limit(problem),
        "more shared memory than there is": needs.shared > SHARED_LIMITS[arch],
        "tf32 instead of float32": problem.dtype == torch.float32 and needs.wgmma + needs.mma_sync > 0,
        "no tensor cores": problem.dtype != torch.float32 and needs.wgmma + needs.mma_sync == 0,
        "no wgmma": problem.dtype != torch.float32 and hopper and needs.wgmma == 0,
    }
    return [f"{what}: {needs}" for what, wrong in checks.items() if wrong]


@can_compile
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_kernel_compiles(name: str, arch: int, pool: ProcessPoolExecutor) -> None:
    problem = PROBLEMS[name]
    variants = variants_of(problem, arch)
    assert {variant.direction for variant in variants} == {"inference", "forward", "backward"}
    # without gradients runs what runs with them, less a store
    variants = [variant for variant in variants if variant.direction != "inference" or name == "own-large-bf16-64"]
    results = compile_variants(pool, variants, arch)
    wrong = [
        f"{variant.kernel}: {fault}"
        for variant, needs in zip(variants, results, strict=True)
        for fault in faults(needs, problem, arch)
    ]
    assert not wrong, "\n".join(wrong)


def test_needs_are_read_from_machine_code() -> None:
    code = """
 Function forward_kernel:
  REG:168 STACK:48 SHARED:1024 LOCAL:0 CONSTANT[0]:696 TEXTURE:0 SURFACE:0 SAMPLER:0
        /*0010*/                   STL [R1+0x8], R3 ;                    /* 0x00000a00ff017b82 */
        /*0020*/                   STL.64 [R1], R126 ;                   /* 0x0000a200ff7e7b82 */
        /*0030*/              @!P0 LDL.LU.128 R4, [R1] ;                 /* 0x0000000000097919 */
        /*0040*/                   LDL.U8 R4, [R1+0x20] ;                /* 0x0000000000097919 */
        /*0050*/                   LDSM.16.M88.4 R4, [R2] ;              /* 0x0000000000097919 */
        /*0060*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc ;  /* 0x0000000000097919 */
        /*0070*/                   HMMA.16816.F32.BF16 R4, R8, R2, R4 ;  /* 0x0000000000097919 */
        /*0080*/                   HMMA.16816.F32.BF16 R4, R8, R2, R4 ;  /* 0x0000000000097919 */
"""
    assert read_needs(code, 4096) == Compiled(168, 48, 12, 17, 4096, 1, 2)


@can_compile
def test_compiling_leaves_the_driver_alone() -> None:
    from triton.runtime import driver

    def active() -> object:
        try:
            return driver.active
        except RuntimeError as error:
            return str(error)

    before = active()
    launch = variants_of(Problem(dim=16, orders=(0,), projections="shared"), 80)[0].launch
    assert compile_launch(launch, 80).registers > 0
    assert active() == before


@can_compile
def test_inspect_lists_what_the_kernels_need(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda_row = {"source": "cuda", "arch": 90, "kernel": "small_shared_forward_cuda", "registers": 99}
    monkeypatch.setattr(inspect, "cuda_rows", lambda arch: [cuda_row, {"kernel": "another"}])
    words = ["--arch", "90", "--dtype", "bf16", "--dim", "16", "--kernel", "small_shared_forward", "--jobs", "1"]
    assert inspect.main([*words, "--json"]) == 0
    *rows, last = json.loads(capsys.readouterr().out)
    assert last == cuda_row
    assert {(row["pass"], row["masking"]) for row in rows} == {
        (direction, masking) for direction in ("inference", "forward") for masking in ("multiplicative", "exclusive")
    }
    for row in rows:
        assert (row["source"], row["kernel"]) == ("triton", "small_shared_forward_kernel")
        assert (row["arch"], row["dtype"], row["dim"], row["projections"]) == (90, "bf16", 16, "shared")
        assert row["registers"] > 0
        assert row["spill_stores"] == 0


def test_inspect_says_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise RuntimeError("there is no compiler")

    monkeypatch.setattr(inspect, "cuda_rows", absent)
    monkeypatch.setattr(inspect, "triton_rows", lambda *_: ([{"kernel": "a", "registers": 3}], ["b: too large"]))
    assert inspect.main([]) == 1
    output = capsys.readouterr()
    assert output.out == "kernel  registers\na       3\n"
    assert output.err == (
        "no CUDA kernels are listed: there is no compiler\ndoes not compile for sm_90: b: too large\n"
    )


def test_inspect_refuses_other_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        inspect.main(["--arch", "70"])
    assert "argument --arch: invalid choice: 70 (choose from 80, 90)" in capsys.readouterr().err


def test_table() -> None:
    assert inspect.table([{"kernel": "a", "registers": 168}, {"kernel": "long", "shared": 0}]) == (
        "kernel  registers  shared\na       168\nlong               0"
    )
