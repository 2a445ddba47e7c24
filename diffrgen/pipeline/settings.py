"""Frozen option dataclasses to JSON files and back, checked by pydantic."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from diffrgen.errors import DataError
from diffrgen.staging import replace_file

T = TypeVar("T")


def save_json(options: object, path: Path) -> None:
    """Write a dataclass to `path`; interrupted, it leaves the earlier file."""
    replace_file(path, TypeAdapter(type(options)).dump_json(options, indent=2) + b"\n")


def load_json(kind: type[T], path: Path) -> T:
    """Read a dataclass of type `kind`; DataError where the file is missing or holds something else."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: needed the folder of a run, as diffrgen.train writes it, got: {error}") from error
    except ValidationError as error:
        raise DataError(f"{path}: needed {kind.__name__} as JSON, got: {error}") from error
