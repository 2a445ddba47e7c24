"""The settings of a run without the folders of the machine that trained it."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath

# Files that may contain local paths. Others are uploaded unchanged: a vocabulary contains "/" as a word.
WITH_FOLDERS = (
    *("run.json", "train.json", "config.json", "generation_config.json", "tokenizer_config.json"),
    *("retriever/config.json", "retriever/tokenizer_config.json"),
)


def without_folders(path: Path) -> bytes:
    """Return the JSON file `path` with every absolute path reduced to its last part; unchanged if there is none."""
    content = path.read_bytes()
    settings = json.loads(content)
    stripped = _stripped(settings)
    return content if stripped == settings else json.dumps(stripped, indent=2).encode() + b"\n"


def _stripped(value: object) -> object:
    if isinstance(value, dict):
        return {name: _stripped(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_stripped(one) for one in value]
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):
            path = kind(value)
            if path.is_absolute() and path.name:
                return path.name
    return value
