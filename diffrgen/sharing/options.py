"""The options of `python -m diffrgen.share` and `python -m diffrgen.index`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from diffrgen.ranges import check_fields


@dataclass(frozen=True)
class ShareOptions:
    """Upload a trained run to the Hugging Face hub; log in before with `hf auth login`.

    Whoever gets the run can use it by its name: python -m diffrgen.generate OWNER/NAME IMAGE. The retrieval index holds
    every training report, word for word, with its study and patient ids. Data under a data use agreement, MIMIC-CXR among
    them, must not be passed on, so only runs trained on the phantom are uploaded unless told otherwise.
    """

    run: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """Run folder that diffrgen.train wrote."""
    name: Annotated[str, tyro.conf.arg(metavar="OWNER/NAME")]
    """The model repository on the hub; made where it does not exist."""
    public: bool = False
    """Anybody may see it; by default it is private."""
    i_may_share_the_reports: bool = False
    """The training data's terms let you pass on their reports: upload the index of a run trained on other data than the
    phantom."""
    without_reports: bool = False
    """Leave the index, and the reports in it, out. Whoever has the data makes it again with diffrgen.index. The weights
    and the vocabulary, learned from the reports, are uploaded: see whether the data's terms allow that."""
    dry_run: bool = False
    """List what would be uploaded, and upload nothing."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class ReindexOptions:
    """Copy a run to a new folder with an index of the reports of an annotation file's training split.

    The result is what the run would retrieve from if it had been trained here: for a run that was shared without its
    reports, or to retrieve from a collection of one's own.
    """

    run: tyro.conf.Positional[Path]
    """Run folder, or the hub name owner/name[@revision] of a shared run."""
    data: Path
    """R2Gen-style annotation.json whose training reports are indexed."""
    output: Path
    """New run folder to write."""
    images: Path | None = None
    """Folder that the annotation's image paths are relative to, kept for later evaluations."""
    skip_broken: bool = False
    """Leave out records with an empty report."""

    def __post_init__(self) -> None:
        check_fields(self, "--")
