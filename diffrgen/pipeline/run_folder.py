"""The folder of a run, on this machine or fetched from the hub: everything that evaluating or sharing it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from diffrgen.errors import DataError
from diffrgen.fingerprint import fingerprint
from diffrgen.images import ReadImage, read_resized
from diffrgen.model import DiffRGenConfig, DiffRGenForReportGeneration
from diffrgen.model.modeling import FORMER_NAMES
from diffrgen.pipeline.dataset import ExampleSettings, StudyDataset
from diffrgen.pipeline.hub import HubName, fetch_run, meant_as_hub_name
from diffrgen.pipeline.references import find_references
from diffrgen.pipeline.run_check import check_fit, check_generation, check_no_leak, check_weights
from diffrgen.pipeline.run_settings import FORMAT_VERSION, RunSettings
from diffrgen.pipeline.settings import load_json
from diffrgen.pipeline.source import StudySource
from diffrgen.records import Study
from diffrgen.retrieval import RetrievalIndex, Retriever, load_retriever
from diffrgen.staging import cache_root, may_write
from diffrgen.text import load_tokenizer
from diffrgen.weights import check_ranges, load_checked


@dataclass(frozen=True)
class RunFolder:
    """Paths and parts of one run below `path`; each part is loaded on request.

    name: where the run was fetched by it, its hub name; `path` is then in the hub's cache, and nothing is written there.
    """

    path: Path
    name: HubName | None = None

    @classmethod
    def open(cls, run: str | Path) -> RunFolder:
        """Return the run in the folder `run`, or fetch the one with the hub name owner/name[@revision].

        Raises DataError if `run` is a hub name and no run can be fetched by it.
        """
        name = meant_as_hub_name(run)
        return cls(Path(run)) if name is None else cls(fetch_run(name), name)

    @property
    def retriever_path(self) -> Path:
        """Towers and tokenizer of the retriever."""
        return self.path / "retriever"

    @property
    def retriever_fit_path(self) -> Path:
        """The state of the retriever's fit, while it is running or interrupted."""
        return self.path / "retriever-fit.state"

    @property
    def encoder_path(self) -> Path:
        """The image encoder that was trained on labels first, where one was."""
        return self.path / "encoder"

    @property
    def encoder_fit_path(self) -> Path:
        """The state of the encoder's pretraining, while it is running or interrupted."""
        return self.path / "encoder-fit.state"

    @property
    def index_path(self) -> Path:
        """The retrieval index."""
        return self.path / "index"

    @property
    def references_path(self) -> Path:
        """Where precomputed neighbours and prior studies are stored: beside the index; for a fetched run, and for one that
        may not be written, in the cache.
        """
        if self.name is not None:
            return cache_root() / "fetched" / self.name.repository
        if may_write(self.index_path) or not self.index_path.is_dir():
            return self.index_path
        return cache_root() / "references" / fingerprint([str(self.path.resolve())])

    @property
    def evaluation_path(self) -> Path:
        """The default folder of evaluations: into the run, for a fetched one below the working directory."""
        return self.path / "evaluation" if self.name is None else Path("evaluation") / self.name.repository

    @property
    def checkpoints_path(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def settings_path(self) -> Path:
        """The settings, as JSON."""
        return self.path / "run.json"

    def settings(self) -> RunSettings:
        """Read run.json; DataError if there is none or it is of another version."""
        settings = load_json(RunSettings, self.settings_path)
        if settings.format_version != FORMAT_VERSION:
            raise DataError(
                f"{self.settings_path}: needed format_version {FORMAT_VERSION}, got {settings.format_version}"
            )
        check_ranges(asdict(settings), self.settings_path)
        return settings

    def model(self, *, fused_kernels: bool = True) -> DiffRGenForReportGeneration:
        """Load the best weights, in evaluation mode, with the fused operator or the reference.

        Raises DataError by file and field where a value is out of range or a tensor is missing, of another shape or not
        finite.
        """
        check_generation(self.path / "generation_config.json")
        backend = "auto" if fused_kernels else "reference"
        model = load_checked(
            DiffRGenForReportGeneration, self.path, renamed=FORMER_NAMES, operator_backend=backend
        )
        check_weights(self.path, model.config)
        return model

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Load the tokenizer."""
        return load_tokenizer(self.path)

    def retriever(self) -> Retriever:
        """Load the retriever's towers."""
        return load_retriever(self.retriever_path)

    def index(self) -> RetrievalIndex:
        """Open the retrieval index."""
        return RetrievalIndex.load(self.index_path)

    def example_settings(
        self, config: DiffRGenConfig, settings: RunSettings, *, read: ReadImage = read_resized
    ) -> ExampleSettings:
        """Return the settings of this run's evaluation examples, whose images `read` reads; DataError if its parts do not fit."""
        tokenizer, index = self.tokenizer(), self.index()
        check_fit(
            self.path,
            config,
            image=settings.image,
            max_tokens=settings.max_tokens,
            retriever=settings.retriever,
            tokenizer=tokenizer,
            index=index,
        )
        return ExampleSettings(
            transform=settings.image.transform(config.encoder.num_channels),
            tokenizer=tokenizer,
            rules=settings.rules,
            max_tokens=settings.max_tokens,
            index=index,
            token_features=config.retrieved == "tokens",
            read=read,
            findings=config.findings,
            severities=config.severities,
            sections=bool(settings.sections),
        )

    def dataset(
        self,
        config: DiffRGenConfig,
        settings: RunSettings,
        source: StudySource,
        studies: Sequence[Study],
        *,
        key: str,
        priors: bool = True,
        device: torch.device | str = "cpu",
    ) -> StudyDataset:
        """Return the evaluation examples of `studies`, their references looked up on `device` and kept under `key`.

        priors: with the prior studies, of any split of `source`, where the network takes them. Raises DataError if a study
        that is not of the training split stands in the index.
        """
        examples = self.example_settings(config, settings, read=source.read_image)
        check_no_leak(studies, examples.index, rules=settings.rules)
        neighbours, found, contexts = find_references(
            self.retriever().to(device),
            examples.index,
            source,
            studies,
            split=key,
            settings=settings,
            prior=config.prior and priors,
            context=config.context,
            cache=self.references_path,
        )
        return StudyDataset(studies, neighbours, examples, priors=found, contexts=contexts, seed=settings.seed)
