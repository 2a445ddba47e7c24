"""A result shown and kept: JSON on standard output, and in a file where one is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def publish(result: dict[str, Any], output: Path | None) -> None:
    """Print `result`, and write the same to `output`."""
    text = json.dumps(result, indent=1)
    print(text)
    if output:
        output.write_text(text + "\n", encoding="utf-8")
