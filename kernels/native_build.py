"""The optional C++ and CUDA extension: a part that cannot be built is skipped, and the package reports the reason.

Both distributions build it: `diffrgen` from the repository's root and `diffrgen-kernels` from this folder.
DIFFRGEN_CUDA=0 leaves the CUDA kernels out; DIFFRGEN_CUDA_ARCHS="80;90" names the compute capabilities they are for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

NAME = "diffrgen_kernels._native"
NOTE, CUDA_NOTE = "_native_skipped.txt", "_native_cuda_skipped.txt"
# one binary for torch >= 2.11 and Python >= 3.10: PyTorch's stable ABI, and no Python API at all
MACROS = [("TORCH_TARGET_VERSION", "0x020b000000000000"), ("Py_LIMITED_API", "0x030A0000")]
# products and sums may be fused to FMA; nothing else is relaxed. -Wno-psabi: vectors never cross the library's border
FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-ffp-contract=fast",
    "-fvisibility=hidden",
    "-Wall",
    "-Wno-psabi",
    "-Wno-unknown-pragmas",
]


class CannotBuild(Exception):
    """Why the extension, or its CUDA part, is skipped."""


class BuildNative(build_ext):
    """Builds the extension, or leaves the reason in the package, for `available_backends()` to repeat."""

    def build_extension(self, ext: Extension) -> None:
        """Build it, or write down why not."""
        target = Path(self.get_ext_fullpath(ext.name))
        note, cuda_note = target.parent / NOTE, target.parent / CUDA_NOTE
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in (target, note, cuda_note):  # a stale binary must not outlive a build that failed
            stale.unlink(missing_ok=True)
        try:
            self._add_torch(ext)
            try:
                self._add_cuda(ext)
            except CannotBuild as error:
                self._skip(cuda_note, "the CUDA part of the extension", str(error))
            super().build_extension(ext)
        except CannotBuild as error:
            self._skip(note, "the C++ extension", str(error))
        except Exception as error:  # whatever a compiler's driver raises: installing goes on without the extension
            words = f"{type(error).__name__} ('pip install -v' shows the compiler's words): {error}"
            self._skip(note, "the C++ extension", words)

    def _skip(self, note: Path, what: str, reason: str) -> None:
        note.write_text(f"{reason}. Install again from the source tree once that is mended.\n")
        print(f"WARNING: {what} is skipped: {reason}", file=sys.stderr)

    def _add_torch(self, ext: Extension) -> None:
        if self.compiler.compiler_type != "unix":
            raise CannotBuild(f"it needs GCC or Clang, and the compiler here is {self.compiler.compiler_type}")
        if shutil.which(self.compiler.compiler_cxx[0]) is None:
            raise CannotBuild(f"no C++ compiler was found ({self.compiler.compiler_cxx[0]})")
        try:
            import torch
            from torch.utils.cpp_extension import include_paths, library_paths
        except ImportError as error:
            raise CannotBuild(
                f"torch was not there at build time ({error}); install torch first, then run "
                "pip install --no-build-isolation"
            ) from error
        if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 11):
            raise CannotBuild(f"it needs torch >= 2.11, found {torch.__version__}")
        ext.include_dirs += include_paths()
        ext.library_dirs += library_paths()
        ext.libraries += ["c10", "torch", "torch_cpu"]

    def _add_cuda(self, ext: Extension) -> None:
        """Compile csrc/cuda with nvcc, which needs no GPU; the CUDA runtime is linked statically."""
        nvcc, libraries = find_cuda()
        folder = Path(self.build_temp, "cuda")
        folder.mkdir(parents=True, exist_ok=True)
        command = [nvcc, "-c", "-std=c++17", "-O3", f"-ccbin={shutil.which(self.compiler.compiler_cxx[0])}"]
        command += ["-Xcompiler=-fPIC,-fvisibility=hidden", *(f"-D{name}={value}" for name, value in MACROS)]
        command += [*(f"-isystem={path}" for path in ext.include_dirs), *architectures()]

        def build(source: Path) -> str:
            target = folder / f"{source.stem}.o"
            run = subprocess.run([*command, str(source), "-o", str(target)], capture_output=True, text=True)
            if run.returncode != 0:
                words = [line for line in run.stderr.splitlines() if "error" in line.lower()] or [run.stderr.strip()]
                raise CannotBuild(f"nvcc failed on {source}: {words[0]}")
            return str(target)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(build, sorted(Path("csrc", "cuda").glob("*.cu"))))
        ext.extra_objects += objects
        ext.library_dirs.append(libraries)
        ext.libraries += ["cudart_static", "rt", "dl", "pthread"]

    def copy_extensions_to_source(self) -> None:
        """For an editable install: bring the binary, or the reasons for what is absent, beside the sources."""
        source = Path(self.get_finalized_command("build_py").get_package_dir("diffrgen_kernels"))
        built = Path(self.build_lib, "diffrgen_kernels")
        for name in (NOTE, CUDA_NOTE):
            (source / name).unlink(missing_ok=True)
            if (built / name).exists():
                shutil.copy(built / name, source / name)
        if (built / NOTE).exists():
            for stale in source.glob("_native*.so"):
                stale.unlink()
        super().copy_extensions_to_source()

    def get_outputs(self) -> list[str]:
        """Only what was built: pip copies and lists these files."""
        return [path for path in super().get_outputs() if Path(path).exists()]


def find_cuda() -> tuple[str, str]:
    """nvcc, and the folder of the static CUDA runtime that belongs to it."""
    if os.environ.get("DIFFRGEN_CUDA") == "0":
        raise CannotBuild("DIFFRGEN_CUDA=0 was set at build time")
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=Path(home, "bin")) if home else shutil.which("nvcc")
    if nvcc is None:
        raise CannotBuild(f"no nvcc was found in {Path(home, 'bin') if home else 'PATH (CUDA_HOME is not set)'}")
    plan = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True).stderr
    for folder in re.findall(r'"-L([^"]+)"', plan):
        if Path(folder, "libcudart_static.a").exists():
            return nvcc, str(Path(folder).resolve())
    raise CannotBuild(f"{nvcc} has no libcudart_static.a beside it")


def architectures() -> list[str]:
    """nvcc's options: machine code for each compute capability, and PTX of the last for later ones."""
    names = os.environ.get("DIFFRGEN_CUDA_ARCHS", "80;90").split(";")
    codes = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]
    return [*codes, f"-gencode=arch=compute_{names[-1]},code=compute_{names[-1]}"]


def native(build_file: str) -> Extension:
    """The extension, from csrc/ of the present folder; compiler, flags and torch's folders are completed at build time.

    `build_file`: this file, for the source distribution.
    """
    files = sorted(path for folder in ("csrc", "csrc/cpu", "csrc/cuda") for path in Path(folder).glob("*.*"))
    sources = [str(path) for path in files if path.suffix == ".cpp"]
    headers = [str(path) for path in files if path.suffix != ".cpp"]
    return Extension(
        NAME,
        sources,
        depends=[*headers, build_file],
        define_macros=MACROS,
        extra_compile_args=FLAGS,
        language="c++",
        py_limited_api=True,
        optional=True,
    )
