"""A plain folder of images as studies without reports, for inference."""

from __future__ import annotations

from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.records.study import Study, StudySplits

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm"})


def read_folder(folder: str | Path) -> StudySplits:
    """Return each image under `folder`, sub-folders included, as one test study with an empty report.

    The id is the path below `folder` with forward slashes; hidden files are left out. DataError where
    `folder` is no folder or holds no image.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"expected a folder of images, got {root}, which " + _what(root))
    paths = sorted(path for path in root.rglob("*") if _is_image(path, root))
    if not paths:
        raise DataError(f"the folder {root} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    studies = (Study(path.relative_to(root).as_posix(), "", (path,), "test") for path in paths)
    return StudySplits(source=root, train=(), val=(), test=tuple(studies))


def _is_image(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file()


def _what(path: Path) -> str:
    return "is a file" if path.exists() else "does not exist"
