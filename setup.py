"""Packages, and the optional extension of the operator (kernels/native_build.py)."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import find_packages, setup

sys.path.insert(0, str(Path(__file__).parent / "kernels"))

from native_build import CUDA_NOTE, NOTE, BuildNative, native

setup(
    packages=find_packages(include=["diffrgen", "diffrgen.*"]) + find_packages("kernels"),
    package_dir={"diffrgen_kernels": "kernels/diffrgen_kernels"},
    package_data={"diffrgen_kernels": [NOTE, CUDA_NOTE, "py.typed"]},
    ext_modules=[native("kernels/native_build.py")],
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
