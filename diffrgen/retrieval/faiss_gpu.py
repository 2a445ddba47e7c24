"""FAISS on a GPU, where faiss-gpu is installed in place of faiss-cpu and a GPU is visible.

Indices live on disk and in main memory. A copy goes to the GPU to be trained and filled, or to answer many queries,
and no longer: training the network needs the memory.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import packages_distributions

import faiss
import torch

# Maximum number of neighbours per query that a GPU index returns.
MOST_ON_GPU = 2048


def to_gpu(index: faiss.Index) -> faiss.Index:
    """Return a copy of `index` on this process's GPU; `index` itself where FAISS sees no GPU.

    Warns, and returns `index`, where FAISS has no such index on a GPU (HNSW, for one) or no memory for it there.
    """
    if faiss.get_num_gpus() == 0:
        return index
    device = torch.cuda.current_device() if torch.cuda.is_available() else 0
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device, index)
    except RuntimeError as error:
        warnings.warn(
            f"the index stays on the CPU, because FAISS does not support it on GPU {device}: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return index


@cache
def faiss_packages() -> list[str]:
    """Return the installed packages that bring the module faiss; asking for them reads every package's list of files."""
    return sorted(set(packages_distributions().get("faiss", ())))


def warn_of_two_packages() -> None:
    """Warn where faiss-cpu and faiss-gpu are both installed: they bring one module, of which files of both may be left."""
    packages = faiss_packages()
    if len(packages) > 1:
        warnings.warn(
            f"{' and '.join(packages)} are both installed and overwrite each other; keep one: pip uninstall "
            f"{' '.join(packages)}, then install the one that you want",
            RuntimeWarning,
            stacklevel=2,
        )
