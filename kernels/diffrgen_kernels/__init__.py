"""Routed co-attention over patch windows: the operator of DiffRGenNet (Eq. 5-6) and its backends.

Read in this order: `reference.py` (the equation), `operator.py` (the public function), `dispatch.py` (the backends).
"""

from __future__ import annotations

from diffrgen_kernels.dispatch import available_backends
from diffrgen_kernels.operator import routed_coattention
from diffrgen_kernels.reference import routed_coattention_reference
from diffrgen_kernels.windows import window_masks

__all__ = ["available_backends", "routed_coattention", "routed_coattention_reference", "window_masks"]
