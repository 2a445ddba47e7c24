"""The operator's own distribution, diffrgen-kernels: what its source archive and its wheel hold."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import diffrgen_kernels
import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys; from setuptools import build_meta as b; getattr(b, 'build_' + sys.argv[1])(sys.argv[2])"
EXTENSION, GLIBC_OF_WHEELS = "diffrgen_kernels/_native.abi3.so", (2, 28)
TESTS = ("tests/test_kernels.py", *(f"tests/support/kernel_{name}.py" for name in ("backends", "cases", "errors")))


def build(kind: str, folder: Path, target: Path, compiler: str = "no-such-compiler") -> Path:
    """An archive of a source tree; without a compiler the extension is skipped."""
    environment = {**os.environ, "CXX": compiler, "DIFFRGEN_CUDA": "0"}
    command = [sys.executable, "-c", BUILD, kind, str(target)]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (found,) = target.iterdir()
    return found


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, built from a copy of what a checkout has."""
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "_native*", "*.egg-info", "build", "dist")
    for name in ("kernels", "csrc"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "LICENSE", copy)
    (copy / "tests" / "support").mkdir(parents=True)
    for name in TESTS:
        shutil.copy(ROOT / name, copy / name)
    return build("sdist", copy / "kernels", tmp_path_factory.mktemp("sdist"))


def test_sdist_has_all_sources(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    sources = [path for path in (ROOT / "csrc").rglob("*.*") if path.is_file()]
    wanted = {f"csrc/{path.relative_to(ROOT / 'csrc')}" for path in sources}
    wanted |= {"native_build.py", "setup.py", "pyproject.toml", "README.md", "LICENSE", "diffrgen_kernels/operator.py"}
    wanted |= set(TESTS)
    assert wanted - set(members) == set()
    assert all(members[name].isreg() for name in wanted)


@pytest.fixture
def tree(sdist: Path, tmp_path: Path) -> Path:
    """What the source archive holds."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "sources", filter="data")
    (found,) = (tmp_path / "sources").iterdir()
    return found


def test_wheel_of_the_sdist(tree: Path, tmp_path: Path) -> None:
    """One wheel for Python 3.10 and later; it needs torch and Triton, and says why there is no extension."""
    target = tmp_path / "wheel"
    target.mkdir()
    wheel = build("wheel", tree, target)
    assert wheel.name.startswith("diffrgen_kernels-")
    assert "-cp310-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        note = archive.read("diffrgen_kernels/_native_skipped.txt").decode()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        fields = email.message_from_bytes(archive.read(metadata))
    assert "no C++ compiler was found (no-such-compiler)" in note
    packages = {path.parent for path in (ROOT / "kernels" / "diffrgen_kernels").rglob("*.py")}
    modules = {str(path.relative_to(ROOT / "kernels")) for folder in packages for path in folder.glob("*.py")}
    assert modules <= names
    assert not any(name.startswith(("diffrgen/", "csrc/", "native_build")) for name in names)
    needs = [re.match(r"\w+", line)[0] for line in fields.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(needs) == ["torch", "triton"]


@pytest.mark.skipif("DIFFRGEN_FULL_SCALE" not in os.environ, reason="compiling takes minutes: DIFFRGEN_FULL_SCALE=1")
def test_extension_of_the_sdist(tree: Path, tmp_path: Path) -> None:
    """The archive's own tests, run by pytest from its folder, pass with the extension that it builds."""
    target, installed = tmp_path / "wheel", tmp_path / "installed"
    target.mkdir()
    wheel = build("wheel", tree, target, os.environ.get("CXX", "c++"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert (installed / EXTENSION).exists()
    assert newest_glibc(installed / EXTENSION) <= GLIBC_OF_WHEELS
    shutil.rmtree(tree / "diffrgen_kernels")
    selection = "test_parity and native and cpu and (three_masks or all_at_once)"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", selection]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert re.search(r"^(\d+) passed, \d+ deselected", run.stdout, re.MULTILINE), run.stdout


def newest_glibc(extension: Path) -> tuple[int, ...]:
    """The newest version of a symbol of glibc that a library needs; its table of names holds all of them."""
    versions = re.findall(rb"GLIBC_([0-9.]+)\0", extension.read_bytes())
    return max(tuple(int(part) for part in version.split(b".")) for version in versions)


def test_extension_loads_with_the_glibc_of_the_wheels() -> None:
    """auditwheel refuses manylinux_2_28 to a library that needs symbols of a later glibc."""
    extension = Path(diffrgen_kernels.__file__).parents[1] / EXTENSION
    if sys.platform != "linux" or not extension.exists():
        pytest.skip("there is no extension for Linux")
    if not (extension.parent / "_native_cuda_skipped.txt").exists():
        pytest.skip("the extension contains CUDA kernels, which the wheels do not: the CUDA runtime needs a later glibc")
    assert newest_glibc(extension) <= GLIBC_OF_WHEELS
