"""The file of configurations that `python -m diffrgen_kernels.tune` found best, kept from one process to the next.

    {"NVIDIA H200": {"forward bfloat16 64": {"rows": 128, "keys": 64, "warps": 8, "stages": 3}, ...}, ...}

It is `tuned.json` below DIFFRGEN_CACHE, else ~/.cache/diffrgen. DIFFRGEN_TUNED=FILE names another one; empty, none.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import warnings
from pathlib import Path

import torch

Row = dict[str, int]
FIELDS = ("rows", "keys", "warps", "stages")


def tuned_file() -> Path | None:
    """Where the configurations are kept, or None if they are not to be used."""
    named = os.environ.get("DIFFRGEN_TUNED")
    if named is not None:
        return Path(named) if named else None
    return Path(os.environ.get("DIFFRGEN_CACHE", Path.home() / ".cache" / "diffrgen")) / "tuned.json"


def key_of(kernel: str, dtype: torch.dtype, dim: int) -> str:
    """The name of a row: exactly this kernel, dtype and head dimension."""
    return f"{kernel} {str(dtype).removeprefix('torch.')} {dim}"


def tuned_row(kernel: str, dtype: torch.dtype, dim: int) -> Row | None:
    """What was found best for the current GPU; None if nothing was, or where no GPU is in use."""
    if not torch.cuda.is_initialized():
        return None
    return _rows(_device_name(torch.cuda.current_device())).get(key_of(kernel, dtype, dim))


def read(file: Path) -> dict[str, dict[str, Row]]:
    """Rows by device and name; none where there is no file.

    Raises:
        ValueError: the file is not as described above.
    """
    try:
        devices = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{file}: expected JSON, got {error}") from error
    if not isinstance(devices, dict) or not all(isinstance(rows, dict) for rows in devices.values()):
        raise ValueError(f"{file}: expected an object of rows for each device")
    for device, rows in devices.items():
        for name, row in rows.items():
            if not isinstance(row, dict) or sorted(row) != sorted(FIELDS) or not all(map(_is_count, row.values())):
                raise ValueError(f"{file}: {device}: {name}: expected whole numbers {', '.join(FIELDS)}, got {row}")
    return devices


def write(file: Path, device: str, rows: dict[str, Row]) -> None:
    """Put the rows of a device beside what the file holds; a reader sees the old file or the new one.

    Raises:
        ValueError: the file exists and is not as described above.
    """
    devices = read(file)
    devices[device] = {**devices.get(device, {}), **rows}
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=file.name, delete=False) as new:
        new.write(json.dumps(devices, indent=1, sort_keys=True) + "\n")
    os.replace(new.name, file)


def forget() -> None:
    """Read the file again when it is next needed."""
    _rows.cache_clear()


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


@functools.cache
def _rows(device: str) -> dict[str, Row]:
    file = tuned_file()
    if file is None:
        return {}
    try:
        return read(file).get(device, {})
    except (OSError, ValueError) as error:
        warnings.warn(f"tuned configurations are ignored, the fixed ones are used: {error}", stacklevel=2)
        return {}


@functools.cache
def _device_name(index: int) -> str:
    return torch.cuda.get_device_name(index)
