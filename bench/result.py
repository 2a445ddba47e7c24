"""A result shown and kept: JSON on standard output, and in a file where one is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

DIGITS = 4


def publish(result: dict[str, Any], output: Path | None) -> None:
    """Print `result`, and write the same to `output`."""
    text = json.dumps(result, indent=1)
    print(text)
    if output:
        output.write_text(text + "\n", encoding="utf-8")


def brief(value: Any) -> Any:
    """The same JSON value with floats to DIGITS significant digits.

    >>> brief({"seconds": [0.000123456, 7, 12345.678]})
    {'seconds': [0.0001235, 7, 12350.0]}
    """
    if isinstance(value, dict):
        return {name: brief(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [brief(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def write_brief(path: Path, result: dict[str, Any]) -> None:
    """Write `result`, brief, a line for each member of its lists; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, value in brief(result).items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        elif isinstance(value, dict) and value:
            text = "{\n  " + ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n }"
        parts.append(f"{json.dumps(name)}: {text}")
    new = path.with_name(path.name + ".new")
    new.write_text("{\n " + ",\n ".join(parts) + "\n}\n", encoding="utf-8")
    os.replace(new, path)
