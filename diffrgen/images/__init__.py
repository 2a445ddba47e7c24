"""Radiographs: read as grey images, checked, made into the network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffrgen.lazy import on_first_use

if TYPE_CHECKING:
    from diffrgen.images.collection import Collection, collect_images
    from diffrgen.images.grey import MAX_PIXELS, probe_grey, read_grey
    from diffrgen.images.integrity import check_images, raise_broken
    from diffrgen.images.resized import ReadImage, ResizedImages, read_resized
    from diffrgen.images.transform import ImageTransform

__all__ = [
    "MAX_PIXELS",
    "Collection",
    "ImageTransform",
    "ReadImage",
    "ResizedImages",
    "check_images",
    "collect_images",
    "probe_grey",
    "raise_broken",
    "read_grey",
    "read_resized",
]

__getattr__ = on_first_use(__name__, __file__)
