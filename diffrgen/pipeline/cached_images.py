"""Opens the cache of decoded images where the options place it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from diffrgen.errors import DataError, reason_of
from diffrgen.images.cache import CachePlan, ImageCache
from diffrgen.images.cache_writer import open_image_cache
from diffrgen.pipeline.options import ImageCacheOptions
from diffrgen.records import Study
from diffrgen.staging import cache_root


def cached_images(studies: Iterable[Study], options: ImageCacheOptions, *, resize: int) -> ImageCache | None:
    """Return the images of `studies`, decoded now unless that has been done; None if they are not to be kept.

    A default folder that cannot be written is a warning, and nothing is kept; a folder that `options` name is a
    DataError, as is a disk that is too small.
    """
    if not options.image_cache:
        return None
    root = options.image_cache_folder or cache_root()
    try:
        return open_image_cache(root, CachePlan.of(studies, resize=resize), progress=True)
    except OSError as error:
        reason = f"{root}: decoded images cannot be kept here: {reason_of(error)}"
    if options.image_cache_folder is not None:
        raise DataError(f"{reason}; choose another --image-cache-folder, or pass --no-image-cache")
    warnings.warn(f"{reason}; they are decoded in every epoch. --image-cache-folder chooses a place", stacklevel=2)
    return None
