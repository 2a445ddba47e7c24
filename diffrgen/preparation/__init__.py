"""Annotation files made from what the public archives ship: a file a data set."""

from __future__ import annotations

from diffrgen.preparation.chexpert_plus import prepare_chexpert_plus
from diffrgen.preparation.iu_xray import prepare_iu_xray
from diffrgen.preparation.mimic_cxr import prepare_mimic_cxr
from diffrgen.preparation.options import (
    ChexpertPlusOptions,
    IuXrayOptions,
    MimicCxrOptions,
    PadchestGrOptions,
    RexGradientOptions,
    ReXrankInputOptions,
)
from diffrgen.preparation.padchest_gr import prepare_padchest_gr
from diffrgen.preparation.rexgradient import prepare_rexgradient
from diffrgen.preparation.rexrank_input import prepare_rexrank
from diffrgen.preparation.summary import Summary

__all__ = [
    "ChexpertPlusOptions",
    "IuXrayOptions",
    "MimicCxrOptions",
    "PadchestGrOptions",
    "ReXrankInputOptions",
    "RexGradientOptions",
    "Summary",
    "prepare_chexpert_plus",
    "prepare_iu_xray",
    "prepare_mimic_cxr",
    "prepare_padchest_gr",
    "prepare_rexgradient",
    "prepare_rexrank",
]
