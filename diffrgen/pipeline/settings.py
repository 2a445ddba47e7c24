"""Frozen option dataclasses to JSON files and back, checked by pydantic."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from diffrgen.errors import DataError, reason_of
from diffrgen.staging import replace_file

T = TypeVar("T")


def save_json(options: object, path: Path) -> None:
    """Write a dataclass to `path`; interrupted, it leaves the earlier file."""
    replace_file(path, TypeAdapter(type(options)).dump_json(options, indent=2) + b"\n")


def load_json(kind: type[T], path: Path) -> T:
    """Read a dataclass of type `kind`; DataError if the file is missing or holds something else."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except OSError as error:
        needed = "needed the folder of a run, as diffrgen.train writes it"
        raise DataError(f"{path}: {needed}, got: {reason_of(error)}") from error
    except ValidationError as error:
        raise DataError(f"{path}: {_first_fault(error)}") from error


def _first_fault(error: ValidationError) -> str:
    """The first fault in one line: the field, what it needs, and what it holds."""
    fault = error.errors(include_url=False)[0]
    field = "".join(f"{name}: " for name in [".".join(map(str, fault["loc"]))] if name)
    if fault["type"] == "missing":
        return f"{field}needed a value, got none"
    needed = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{field}needed {needed}, got {reprlib.repr(fault['input'])}"
