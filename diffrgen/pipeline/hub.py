"""Runs by hub name: which files a shared run consists of, and how they are fetched."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from diffrgen.errors import DataError

# Patterns of huggingface_hub, in which * matches any text. Loading these files unpickles nothing.
SETTINGS = ("run.json", "config.json", "generation_config.json", "confidence.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
RETRIEVER = (
    *(f"retriever/{name}" for name in ("config.json", *TOKENIZER, *WEIGHTS)),
    *(f"retriever/{name}" for name in ("special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt")),
    *(f"retriever/{name}" for name in ("preprocessor_config.json", "processor_config.json", "spiece.model")),
)
# The retrieval index: texts, ids, patients and embeddings of the training studies.
REPORTS = (
    *("index/manifest.json", "index/studies.json", "index/embeddings.npy", "index/index.faiss"),
    *("index/tokens.npy", "index/lengths.npy"),
)
NEEDED = (*SETTINGS, *TOKENIZER, *WEIGHTS, *RETRIEVER, *REPORTS)
# Files that a training with --init requires; it builds its own index.
START = (*SETTINGS, "train.json", *TOKENIZER, *WEIGHTS, *RETRIEVER)

HUB_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[^@\s]+))?")


@dataclass(frozen=True)
class HubName:
    """A model repository `owner/name` and the branch, tag or commit that is meant (None: its main branch)."""

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubName | None:
        """Return the hub name that `text` is, owner/name or owner/name@revision; None if it is none."""
        found = HUB_NAME.fullmatch(text)
        return None if found is None else cls(found["repository"], found["revision"])

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def meant_as_hub_name(run: str | Path) -> HubName | None:
    """Return the hub name that `run` is; None if it is a path: it exists, or the folder that it would lie in does."""
    path = Path(run)
    name = HubName.parse(run if isinstance(run, str) else path.as_posix())
    # Otherwise a mistyped runs/tiny would be looked up on the hub, where anyone may have uploaded one.
    return None if name is None or path.exists() or path.parent.is_dir() else name


def fetch_run(name: HubName, files: Sequence[str] = NEEDED) -> Path:
    """Return the folder in the hub's cache with the run's `files`, fetched where missing: those that writing reports needs.

    Without a network, what was fetched before is used.

    Raises DataError if there is no such repository or revision, access to it is rejected, it cannot be reached and
    was not fetched before, or holds no run.
    """
    print(f"fetching {name} from the Hugging Face hub", file=sys.stderr)
    try:
        folder = Path(snapshot_download(name.repository, revision=name.revision, allow_patterns=list(files)))
    except GatedRepoError as error:
        raise DataError(f"{name}: request access on the hub's page of this model: {error}") from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"{name}: needed the folder of a run or a model on the Hugging Face hub, found neither; where it is private, "
            "log in with: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"{name}: the repository has no revision {name.revision!r}: a branch, tag or commit") from error
    except HFValidationError as error:
        raise DataError(f"{name}: needed the folder of a run or a hub name owner/name[@revision]: {error}") from error
    # OSError: the disk, or the hub's library without a network.
    except (OSError, HTTPError) as error:
        raise DataError(
            f"{name}: there is no such folder, and the Hugging Face hub could not be reached for a model of this name: "
            f"{error}"
        ) from error
    if not (folder / "run.json").is_file():
        raise DataError(
            f"{name}: needed a run as diffrgen.share uploads it, but the repository holds no run.json; the network alone "
            "is loaded by DiffRGenForReportGeneration.from_pretrained"
        )
    return folder
