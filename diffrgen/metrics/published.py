"""The data sets that the paper prints scores for."""

from __future__ import annotations

from typing import Literal

PublishedData = Literal["mimic-cxr", "iu-xray"]
