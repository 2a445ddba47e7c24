"""Routed co-attention over patch windows: the operator of DiffRGenNet (Eq. 5-6) and its backends.

Read in this order: `reference.py` (the equation), `operator.py` (the public function), `dispatch.py` (the backends).
"""

from __future__ import annotations

from .dispatch import available_backends
from .operator import routed_coattention
from .reference import routed_coattention_reference
from .windows import window_masks

__all__ = ["available_backends", "routed_coattention", "routed_coattention_reference", "window_masks"]
