"""The operator alone, as the distribution diffrgen-kernels; pyproject.toml beside this file has the rest."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import find_packages, setup

sys.path.insert(0, str(Path(__file__).parent))

from native_build import CUDA_NOTE, NOTE, BuildNative, native

setup(
    packages=find_packages(),
    package_data={"diffrgen_kernels": [NOTE, CUDA_NOTE, "py.typed"]},
    ext_modules=[native("native_build.py")],
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
