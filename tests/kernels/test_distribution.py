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

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys; from setuptools import build_meta as b; getattr(b, 'build_' + sys.argv[1])(sys.argv[2])"


def build(kind: str, folder: Path, target: Path) -> Path:
    """An archive of a source tree; there is no compiler, so that the extension is skipped."""
    environment = {**os.environ, "CXX": "no-such-compiler", "DIFFRGEN_CUDA": "0"}
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
    return build("sdist", copy / "kernels", tmp_path_factory.mktemp("sdist"))


def test_sdist_has_all_sources(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    sources = [path for path in (ROOT / "csrc").rglob("*.*") if path.is_file()]
    wanted = {f"csrc/{path.relative_to(ROOT / 'csrc')}" for path in sources}
    wanted |= {"native_build.py", "setup.py", "pyproject.toml", "README.md", "LICENSE", "diffrgen_kernels/operator.py"}
    assert wanted - set(members) == set()
    assert all(members[name].isreg() for name in wanted)


def test_wheel_of_the_sdist(sdist: Path, tmp_path: Path) -> None:
    """One wheel for Python 3.10 and later; it needs torch and Triton, and says why there is no extension."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
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
    needs = [re.match(r"\w+", line)[0] for line in fields.get_all("Requires-Dist")]
    assert sorted(needs) == ["torch", "triton"]
