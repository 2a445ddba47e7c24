"""The manifest of a retrieval index: what the folder holds, checked before anything else is read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from diffrgen.errors import DataError
from diffrgen.records.json_text import parse_json
from diffrgen.staging import file_digest

FORMAT = 3
MOST = 10**9


@dataclass(frozen=True)
class IndexManifest:
    """Counts, widths and origin of an index folder; `recall` of the FAISS index against exact search, 0..1; `files`: SHA-256
    of every other file by name.
    """

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
    files: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT
    dtype: str = "float32"

    def check(self, folder: Path) -> None:
        """Raise DataError if a file of `folder` is missing or is not the one that the index was written with."""
        needed = ["studies.json", "embeddings.npy", "index.faiss", *["tokens.npy", "lengths.npy"] * (self.token_length > 0)]
        for name in needed:
            path = folder / name
            try:
                digest = file_digest(path)
            except OSError as error:
                raise DataError(f"{path}: needed this file of a retrieval index, got: {error.strerror}") from error
            if digest != self.files.get(name):
                raise DataError(
                    f"{path}: is not the file that manifest.json was written with (SHA-256 {digest[:12]}..., needed "
                    f"{str(self.files.get(name))[:12]}...); build the index again"
                )

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
            return TypeAdapter(cls).validate_json(json.dumps(content), strict=True)
        except ValidationError as error:
            raise DataError(f"{path}: needed the fields of index format {FORMAT}: {error}") from error

    def __post_init__(self) -> None:
        counts = {"studies": self.studies, "texts": self.texts, "width": self.width}
        lengths = {"token_length": self.token_length, "token_width": self.token_width}
        for name, value in {**counts, **lengths}.items():
            if not (name in counts) <= value <= MOST:
                raise ValueError(f"{name}: needed a number from {int(name in counts)} to {MOST}, got {value}")
        if self.dtype != "float32":
            raise ValueError(f"dtype: needed 'float32', got {self.dtype!r}")
