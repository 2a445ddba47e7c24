"""The settings of a run other than its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from diffrgen.model import DiffRGenConfig
from diffrgen.phantom import PhantomOptions
from diffrgen.pipeline.options import DataOptions, GenerationOptions, ImageOptions, LabelerName, LabelerOptions
from diffrgen.retrieval import RetrieverOptions
from diffrgen.text import Rules

FORMAT_VERSION = 1


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run other than its weights, stored as run.json.

    generation: the run's decoding options, None in runs of version 0.1. sections: the sections that the run generates,
    empty if it generates one text.
    """

    data: DataOptions
    phantom: PhantomOptions
    image: ImageOptions
    rules: Rules
    max_tokens: int
    labeler: LabelerName
    retriever: RetrieverOptions
    seed: int
    chexbert: Path | None = None
    chexbert_vocabulary: Path | None = None
    generation: GenerationOptions | None = None
    sections: tuple[Literal["findings", "impression"], ...] = ()
    format_version: int = FORMAT_VERSION

    def data_options(self, config: DiffRGenConfig, *, data: str | None = None, images: Path | None = None) -> DataOptions:
        """Return the run's data, or `data` and `images` with the views that the run was trained on.

        A network for one image takes the first of a study, as it did before there were several.
        """
        views = "first" if config.views == 1 and self.data.views == "all" else self.data.views
        if data is None:
            return replace(self.data, views=views)
        return DataOptions(data=data, images=images, views=views)

    def labeler_options(self, asked: LabelerOptions, *, same_data: bool) -> LabelerOptions:
        """Return `asked`, completed by the run's labeler if that fits the data.

        same_data: the data are the run's; of a labeler for other data only CheXbert is kept.
        """
        kept = asked.labeler is None and (same_data or self.labeler == "chexbert")
        if not kept and asked.labeler != self.labeler:
            return asked
        vocabulary = asked.chexbert_vocabulary or self.chexbert_vocabulary
        return LabelerOptions(self.labeler, asked.chexbert or self.chexbert, vocabulary)
