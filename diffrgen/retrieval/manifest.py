"""The manifest of a retrieval index: what the folder holds, checked before anything else is read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffrgen.errors import DataError
from diffrgen.records.json_text import parse_json

FORMAT = 2


@dataclass(frozen=True)
class IndexManifest:
    """Counts, widths and origin of an index folder; `recall` of the FAISS index against exact search, 0..1."""

    factory: str
    search: str
    studies: int
    texts: int
    width: int
    token_length: int
    token_width: int
    fingerprint: str
    retriever: str
    recall: float
    format: int = FORMAT
    dtype: str = "float32"

    def save(self, folder: Path) -> None:
        """Write manifest.json."""
        (folder / "manifest.json").write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> IndexManifest:
        """Read manifest.json; DataError when it is missing, broken or of another format version."""
        path = folder / "manifest.json"
        try:
            content: Any = parse_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DataError(
                f"{path}: not found, so {folder} holds no retrieval index; make it of your copy of the training data: "
                "python -m diffrgen.index RUN --data annotation.json --output NEW"
            ) from error
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: needed the manifest of a retrieval index as JSON: {error}") from error
        version = content.get("format") if isinstance(content, dict) else None
        if version != FORMAT:
            raise DataError(f"{path}: needed index format {FORMAT}, got {version!r}; build the index again")
        try:
            return cls(**content)
        except TypeError as error:
            raise DataError(f"{path}: needed the fields of index format {FORMAT}: {error}") from error
