"""Annotation files made from what the public archives ship: MIMIC-CXR and IU X-Ray."""

from __future__ import annotations

from diffrgen.preparation.iu_xray import prepare_iu_xray
from diffrgen.preparation.mimic_cxr import prepare_mimic_cxr
from diffrgen.preparation.options import IuXrayOptions, MimicCxrOptions
from diffrgen.preparation.summary import Summary

__all__ = ["IuXrayOptions", "MimicCxrOptions", "Summary", "prepare_iu_xray", "prepare_mimic_cxr"]
