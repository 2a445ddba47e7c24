"""Selects the labeler of report texts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HTTPError

from diffrgen.errors import DataError
from diffrgen.labels import Labeler, RuleLabeler
from diffrgen.labels.chexbert import CheXbertLabeler
from diffrgen.phantom import GrammarParser
from diffrgen.pipeline.options import LabelerName, LabelerOptions

HUB = Path("hub")
"""In place of a checkpoint: the one on the Hugging Face hub."""
CHECKPOINT = ("StanfordAIMI/RRG_scorers", "chexbert.pth")
VOCABULARY = ("google-bert/bert-base-uncased", "vocab.txt")


@dataclass(frozen=True)
class NamedLabeler:
    """A labeler with the call of `Labeler`, and its name for the results."""

    name: LabelerName
    read: Labeler

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return states, (len(texts), 14) int64 in the order of `FINDINGS`, values of `State`."""
        return self.read(texts)


def fetch_chexbert(vocabulary: Path | None = None) -> tuple[Path, Path]:
    """Return CheXbert's checkpoint and vocabulary in the hub's cache, downloaded where they are missing.

    vocabulary: the user's own, which is used where it is given. Raises DataError if the hub cannot be reached, or does not
    have a file.
    """
    return _fetch(*CHECKPOINT), vocabulary or _fetch(*VOCABULARY)


def absolute_checkpoint(file: Path | None) -> Path | None:
    """Return a file of CheXbert as a run keeps it: absolute, or `HUB`."""
    return file if file is None or file == HUB else file.resolve()


def _fetch(repository: str, file: str) -> Path:
    print(f"fetching {file} of {repository} from the Hugging Face hub", file=sys.stderr)
    try:
        return Path(hf_hub_download(repository, file))
    # OSError: the disk, or the hub's library without a network.
    except (OSError, HTTPError) as error:
        raise DataError(f"{repository}: needed {file} from the Hugging Face hub, got: {error}") from error


def make_labeler(options: LabelerOptions, *, default: LabelerName) -> NamedLabeler:
    """Return the labeler that `options` name, or `default`.

    Raises DataError if a file of CheXbert is not given or cannot be used, or is given for another labeler.
    """
    name = options.labeler or default
    files = {"--chexbert": options.chexbert, "--chexbert-vocabulary": options.chexbert_vocabulary}
    if name == "chexbert" and options.chexbert == HUB:
        return NamedLabeler(name, CheXbertLabeler(*fetch_chexbert(options.chexbert_vocabulary)))
    if name == "chexbert":
        if options.chexbert is None or options.chexbert_vocabulary is None:
            missing = [option for option, path in files.items() if path is None]
            raise DataError(f"the labeler chexbert requires its published files, got no {' and no '.join(missing)}")
        return NamedLabeler(name, CheXbertLabeler(options.chexbert, options.chexbert_vocabulary))
    if any(files.values()):
        raise DataError(f"got files of CheXbert for the labeler {name}; add --labeler chexbert or remove them")
    return NamedLabeler(name, GrammarParser() if name == "phantom" else RuleLabeler())


def run_labeler(trained_with: LabelerName) -> NamedLabeler:
    """Return the labeler that reads reports in generation, of a run that was trained with another or the same one.

    It is not CheXbert, whose files a run does not hold: the rule-based labeler stands in its place.
    """
    return make_labeler(LabelerOptions(), default="phantom" if trained_with == "phantom" else "rule")
