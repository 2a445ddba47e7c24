"""Packages, and the optional C++ extension: a build that cannot be is skipped, and the package says why."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
NAME = "diffrgen_kernels._native"
NOTE = "_native_skipped.txt"
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
    """Why the extension is skipped."""


class BuildNative(build_ext):
    """Builds the extension, or leaves the reason in the package, for `available_backends()` to repeat."""

    def build_extension(self, ext: Extension) -> None:
        """Build it, or write down why not."""
        target = Path(self.get_ext_fullpath(ext.name))
        note = target.parent / NOTE
        target.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        target.unlink(missing_ok=True)  # a stale binary must not outlive a build that failed
        try:
            self._add_torch(ext)
            super().build_extension(ext)
        except CannotBuild as error:
            self._skip(note, str(error))
        except Exception as error:  # whatever a compiler's driver raises: installing goes on without the extension
            self._skip(note, f"{type(error).__name__} ('pip install -v' shows the compiler's words): {error}")

    def _skip(self, note: Path, reason: str) -> None:
        note.write_text(f"{reason}. Install again from the source tree once that is mended.\n")
        print(f"WARNING: the C++ extension is skipped: {reason}", file=sys.stderr)

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

    def copy_extensions_to_source(self) -> None:
        """For an editable install: bring the binary, or the reason for its absence, beside the sources."""
        source = Path(self.get_finalized_command("build_py").get_package_dir("diffrgen_kernels"))
        note = Path(self.build_lib, "diffrgen_kernels", NOTE)
        (source / NOTE).unlink(missing_ok=True)
        if note.exists():
            for stale in source.glob("_native*.so"):
                stale.unlink()
            shutil.copy(note, source / NOTE)
        super().copy_extensions_to_source()

    def get_outputs(self) -> list[str]:
        """Only what was built: pip copies and lists these files."""
        return [path for path in super().get_outputs() if Path(path).exists()]


def native() -> Extension:
    """The extension; compiler, flags and torch's folders are completed at build time."""
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc" / "cpu").glob("*.cpp"))
    headers = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc" / "cpu").glob("*.[hi]*"))
    return Extension(
        NAME,
        sources,
        depends=headers,
        define_macros=MACROS,
        extra_compile_args=FLAGS,
        language="c++",
        py_limited_api=True,
        optional=True,
    )


setup(
    packages=find_packages(include=["diffrgen", "diffrgen.*"]) + find_packages("kernels"),
    package_dir={"diffrgen_kernels": "kernels/diffrgen_kernels"},
    package_data={"diffrgen_kernels": [NOTE]},
    ext_modules=[native()],
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
