"""The options of `python -m diffrgen.share` and `python -m diffrgen.index`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from diffrgen.ranges import check_fields


@dataclass(frozen=True)
class ShareOptions:
    """Upload a trained run to the Hugging Face hub; log in first with `hf auth login`.

    Anyone with access can use the run by its name: python -m diffrgen.generate OWNER/NAME IMAGE. The retrieval index
    contains every training report verbatim, with its study and patient ids. Data under a data use agreement, such as
    MIMIC-CXR, must not be redistributed, so only runs trained on the phantom are uploaded by default.
    """

    run: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """Run folder of diffrgen.train."""
    name: Annotated[str, tyro.conf.arg(metavar="OWNER/NAME")]
    """Model repository on the hub; created if it does not exist."""
    public: bool = False
    """Make the repository public; by default it is private."""
    i_may_share_the_reports: bool = False
    """Confirm that the terms of the training data allow redistribution of the reports: upload the index of a run
    trained on data other than the phantom."""
    without_reports: bool = False
    """Exclude the index and its reports; anyone with the data can rebuild it with diffrgen.index. Weights and
    vocabulary, which were learned from the reports, are uploaded: check that the terms of the data allow this."""
    dry_run: bool = False
    """List the files without uploading them."""

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class ReindexOptions:
    """Copy a run to a new folder with an index of the reports of an annotation file's training split.

    Use this command for a run that was shared without its reports, or to retrieve from your own collection.
    """

    run: tyro.conf.Positional[Path]
    """Run folder, or the hub name owner/name[@revision] of a shared run."""
    data: Path
    """R2Gen-style annotation.json with the training reports to index."""
    output: Path
    """New run folder to write."""
    images: Path | None = None
    """Folder to which the annotation's image paths are relative, stored for later evaluations."""
    skip_broken: bool = False
    """Exclude records with an empty report."""

    def __post_init__(self) -> None:
        check_fields(self, "--")
