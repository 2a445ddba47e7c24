"""The network of the paper: one file an equation, put together in `modeling`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffrgen.lazy import on_first_use

if TYPE_CHECKING:
    from diffrgen.model.auto import register_auto_classes
    from diffrgen.model.config import DiffRGenConfig
    from diffrgen.model.inputs import StudyInputs
    from diffrgen.model.modeling import DiffRGenForReportGeneration
    from diffrgen.model.outputs import DiffRGenOutput, EncodedStudy, GeneratedReports

__all__ = [
    "DiffRGenConfig",
    "DiffRGenForReportGeneration",
    "DiffRGenOutput",
    "EncodedStudy",
    "GeneratedReports",
    "StudyInputs",
    "register_auto_classes",
]

__getattr__ = on_first_use(__name__, __file__)
