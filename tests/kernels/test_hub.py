"""The tree for the Hugging Face kernel hub: its files, and a build of it beside the installed one."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import diffrgen_kernels
import pytest
import torch
from diffrgen_kernels import available_backends
from kernel_cases import Case
from kernel_errors import error, results, truth_and_eager
from torch.utils.cpp_extension import include_paths, library_paths

ROOT = Path(__file__).resolve().parents[2]
SPACE = "_diffrgen_kernels_cpu_0123abc"  # as kernel-builder names them: name, backend, and a word of the build's own


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "tree"
    command = [sys.executable, str(ROOT / "kernels" / "hub.py"), str(folder)]
    assert subprocess.run(command).returncode == 0
    again = subprocess.run(command, capture_output=True, text=True)
    assert (again.returncode, "expected a folder that does not exist yet" in again.stderr) == (2, True)
    return folder


def test_build_file_lists_what_is_there(tree: Path) -> None:
    """Every C++ file belongs to the library or to a kernel, and every file that is listed exists."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    build = tomllib.loads((tree / "build.toml").read_text(encoding="utf-8"))
    assert build["general"]["edition"] == 5
    assert (tree / "torch-ext" / build["general"]["name"].replace("-", "_") / "__init__.py").is_file()
    backends = {kernel["backend"]: set(kernel["src"]) for kernel in build["kernel"].values()}
    assert set(backends) == set(build["general"]["backends"]) == set(build["torch"]["stable-abi"])
    files = [*tree.glob("torch-ext/*.cpp"), *(tree / "csrc").rglob("*.*")]
    present = {str(path.relative_to(tree)) for path in files if path.is_file()}
    cpu = {path for path in present if path.startswith("csrc/cpu/")} | {"csrc/checks.h", "csrc/namespace.h"}
    assert backends["cpu"] == cpu
    assert backends["cuda"] == cpu | {path for path in present if path.startswith("csrc/cuda/")}
    assert set(build["torch"]["src"]) | backends["cuda"] == present


def test_tree_stands_alone(tree: Path) -> None:
    """No links, nothing that a build leaves, and no import by the name of a package that is installed elsewhere."""
    assert not [path for path in tree.rglob("*") if path.is_symlink() or path.suffix == ".so" or path.name == "_ops.py"]
    paths = list((tree / "torch-ext").rglob("*.py"))
    assert len(paths) > 30
    for path in paths:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
        named |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        tops = {name.partition(".")[0] for name in named}
        assert tops - sys.stdlib_module_names <= {"torch", "triton"}, path
        text = path.read_text(encoding="utf-8")
        assert "torch.ops.diffrgen." not in text, path
        assert '("diffrgen::' not in text, path


def compiled(tree: Path) -> Path:
    """The portable kernels with the library's registration in the namespace SPACE, not optimised."""
    target, stub = tree / f"{SPACE}.abi3.so", tree / "registration.h"
    stub.write_text('#define REGISTER_EXTENSION(name) extern "C" void* PyInit() { return nullptr; }\n')
    sources = [tree / "torch-ext" / "torch_binding.cpp", tree / "csrc" / "library.cpp"]
    sources += [tree / "csrc" / "cpu" / name for name in ("library.cpp", "portable.cpp")]
    command = [os.environ.get("CXX", "g++"), "-std=c++17", "-O0", "-shared", "-fPIC", "-fvisibility=hidden", "-Wno-psabi"]
    command += ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-DDIFFRGEN_PORTABLE", f"-DTORCH_EXTENSION_NAME={SPACE}"]
    command += [f"-I{tree}", *(f"-isystem{path}" for path in include_paths()), *map(str, sources), "-o", str(target)]
    command += [*(f"-L{path}" for path in library_paths()), "-ltorch_cpu", "-ltorch", "-lc10"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return target


def imported(folder: Path, library: Path) -> ModuleType:
    """The package of a built tree as the package `kernels` imports it: from its folder, under another name."""
    (folder / "_ops.py").write_text(
        "import torch\n"
        f"torch.ops.load_library({str(library)!r})\n"
        f"ops = torch.ops.{SPACE}\n\n"
        f"def add_op_namespace_prefix(op_name: str) -> str:\n    return f'{SPACE}::{{op_name}}'\n"
    )
    spec = importlib.util.spec_from_file_location("another_build", folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["another_build"] = module
    spec.loader.exec_module(module)
    return module


def test_two_builds_side_by_side(tree: Path) -> None:
    """A second build under a namespace of its own: the same results from both, before and after either is called."""
    if shutil.which(os.environ.get("CXX", "g++")) is None or sysconfig.get_platform().startswith("win"):
        pytest.skip("no C++ compiler")
    if available_backends("cpu")["native"] != "ok":
        pytest.skip(available_backends("cpu")["native"])
    other = imported(tree / "torch-ext" / "diffrgen_kernels", compiled(tree))
    assert other.routed_coattention is not diffrgen_kernels.routed_coattention
    assert other.available_backends("cpu")["native"] == "ok"
    case = Case("side_by_side", rows=14, orders=(0, 1, 2), grid=(4, 5), dim=24)
    inputs = case.inputs(torch.float32)
    exact, _ = truth_and_eager(case, inputs)
    for package in (diffrgen_kernels, other, diffrgen_kernels):
        operator = package.routed_coattention
        for backend in ("native", "reference"):
            found = results(lambda *x: operator(*x, **case.options, backend=backend), inputs)  # noqa: B023
            assert max(error(value, true) for value, true in zip(found, exact, strict=True)) <= 2e-6
    spaces = [getattr(torch.ops, SPACE), torch.ops.diffrgen, torch.ops.diffrgen_native]
    assert spaces[0].routed_coattention.default.name() == f"{SPACE}::routed_coattention"
    assert spaces[0].forward.default.name() == f"{SPACE}::forward"
    # the portable kernels round otherwise than those that this processor has: each package called its own
    key = (case.grid, [5, 5, 1, 1, 2, 2], False, 24**-0.5, True, 0)
    own, others = (space.forward(*inputs, None, None, *key)[0] for space in (spaces[2], spaces[0]))
    assert error(own, others.double()) <= 1e-6
