"""The lines of a training log, metrics.jsonl, checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from diffrgen.errors import DataError
from diffrgen.records.json_text import parse_json


@dataclass(frozen=True)
class LogLine:
    """The scalars of one step; `text` is the line as it is in the file. A value that was not finite is left out."""

    phase: str
    step: int
    scalars: Mapping[str, float]
    text: bytes


def read_log(path: Path) -> Iterator[LogLine]:
    """Yield the complete lines of the log `path`, none where there is no file.

    Raises DataError for a line that `TrainingLog` does not write, by its number. A crash can leave the last line
    incomplete: it is left out.
    """
    content = path.read_bytes() if path.is_file() else b""
    for number, text in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            record: Any = parse_json(text.decode())
            phase, step = record.pop("phase"), record.pop("step")
            scalars = {name: float(value) for name, value in record.items() if value is not None and isfinite(value)}
            if not isinstance(phase, str) or type(step) is not int or step < 0:
                raise ValueError(f"phase {phase!r}, step {step!r}")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise DataError(
                f"{path}: line {number}: needed phase, step and numbers as JSON, got {json.dumps(str(text[:80]))} "
                f"({error}); correct or delete the line"
            ) from error
        yield LogLine(phase, step, scalars, text + b"\n")
