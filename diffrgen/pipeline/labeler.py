"""Which labeler reads the states of the findings out of report texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from diffrgen.errors import DataError
from diffrgen.labels import Labeler, RuleLabeler
from diffrgen.labels.chexbert import CheXbertLabeler
from diffrgen.phantom import GrammarParser

LabelerName = Literal["phantom", "rule", "chexbert"]


@dataclass(frozen=True)
class LabelerOptions:
    """Who reads the states of the findings: in written reports, and in the reports of data that bring no labels."""

    labeler: LabelerName | None = None
    """`phantom`: the phantom grammar's exact parser; `rule`: phrase tables; `chexbert`: the published network. Default:
    what the run was trained with, else phantom for the phantom and rule for all other data."""
    chexbert: Path | None = None
    """CheXbert's published checkpoint, chexbert.pth."""
    chexbert_vocabulary: Path | None = None
    """BERT-base-uncased's vocab.txt, or the folder that holds it."""


@dataclass(frozen=True)
class NamedLabeler:
    """A labeler, callable as `Labeler` says, and its name for the results."""

    name: LabelerName
    read: Labeler

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return states, (len(texts), 14) int64 in the order of `FINDINGS`, values of `State`."""
        return self.read(texts)


def make_labeler(options: LabelerOptions, *, default: LabelerName) -> NamedLabeler:
    """Return the labeler that `options` name, or `default`.

    Raises DataError where a file of CheXbert is not given or cannot be used, or is given for another labeler.
    """
    name = options.labeler or default
    files = {"--chexbert": options.chexbert, "--chexbert-vocabulary": options.chexbert_vocabulary}
    if name == "chexbert":
        if options.chexbert is None or options.chexbert_vocabulary is None:
            missing = [option for option, path in files.items() if path is None]
            raise DataError(f"the labeler chexbert needs its published files, got no {' and no '.join(missing)}")
        return NamedLabeler(name, CheXbertLabeler(options.chexbert, options.chexbert_vocabulary))
    if any(files.values()):
        raise DataError(f"got files of CheXbert for the labeler {name}; add --labeler chexbert or leave them out")
    return NamedLabeler(name, GrammarParser() if name == "phantom" else RuleLabeler())
