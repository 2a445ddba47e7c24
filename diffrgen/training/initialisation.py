"""The start of a training from a finished run (`--init`): what is taken over, what is new, and the record of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from transformers import PreTrainedTokenizerFast

from diffrgen.errors import DataError
from diffrgen.fingerprint import weights_fingerprint
from diffrgen.images.encoder import PatchEncoder
from diffrgen.model import DiffRGenConfig, DiffRGenForReportGeneration
from diffrgen.pipeline.hub import START as START_FILES
from diffrgen.pipeline.hub import fetch_run, meant_as_hub_name
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import load_json, save_json
from diffrgen.retrieval import DualRetriever, Retriever
from diffrgen.staging import file_digest, staged
from diffrgen.training.build import DataShape, chosen_fields, frozen_where_asked, set_generation, start_prompts_alike
from diffrgen.training.initial_record import NETWORK, RECORD, Initialisation, take_tensors, write_record
from diffrgen.training.options import TrainOptions
from diffrgen.training.promptmrg_checkpoint import PromptMRGStart, find_promptmrg, is_checkpoint
from diffrgen.training.start_options import check_agrees, recorded_options
from diffrgen.weights import read_config, weight_files


@dataclass(frozen=True)
class Start:
    """The network that the training in the folder `run` starts from."""

    run: RunFolder
    model: DiffRGenForReportGeneration

    def encoder(self, options: TrainOptions) -> PatchEncoder:
        """Return the start's image encoder, frozen where asked."""
        return frozen_where_asked(self.model.image_encoder, options)

    def network(
        self,
        options: TrainOptions,
        tokenizer: PreTrainedTokenizerFast,
        retriever: Retriever,
        shape: DataShape,
        *,
        log: Callable[[str], None] = print,
    ) -> DiffRGenForReportGeneration:
        """Return the network of the new training with the start's weights; arguments as of `build_model`.

        `log` gets what was taken and what is new, which is written to initialisation.json too. Raises DataError if the
        data have other findings than the start, and for reports longer than its decoder reads.
        """
        before = self.model.config
        _check_findings(options, before, shape.findings)
        _check_positions(options, before)
        views = max(shape.views, before.views)
        model = DiffRGenForReportGeneration(
            _changed(
                before,
                options,
                tokenizer,
                prior_width=retriever.embedding_width,
                views=views,
                view_recogniser=views > 1 and (shape.view_recogniser or before.view_recogniser),
            )
        )
        taken, new, unused = take_tensors(model, self.model.state_dict())
        if model.config.prior and not before.prior:
            start_prompts_alike(model)
        frozen_where_asked(model.image_encoder, options)
        set_generation(model, options)
        write_record(self.run.path, taken, new, unused, log=log)
        return model


def find_start(options: TrainOptions, run: RunFolder) -> Start | PromptMRGStart | None:
    """Return the start that `options.init` names, None without one; its tokenizer and retriever are then the run's.

    The start is read once and kept in `run`, so that a resumed training finds it there. Raises DataError for a start that is
    no finished run or holds broken weights, and for options that contradict it.
    """
    if options.init is None:
        return None
    kept = RunFolder(run.path / NETWORK)
    if is_checkpoint(options.init):
        return find_promptmrg(options, run, kept.path)
    if not kept.path.is_dir():
        _take_over(options, run, kept.path)
    return Start(run, kept.model(fused_kernels=options.fused_kernels))


def open_start(init: str) -> RunFolder:
    """Return the run that `init` names, a folder or a hub name owner/name[@revision], of which weights, settings, tokenizer and
    retriever are fetched; DataError if there is none.
    """
    name = meant_as_hub_name(init)
    return RunFolder(Path(init)) if name is None else RunFolder(fetch_run(name, START_FILES), name)


def read_start_options(init: str) -> TrainOptions:
    """Return the options of the finished run that `init` names; DataError if there is none."""
    return _options(open_start(init))


def _options(start: RunFolder) -> TrainOptions:
    stored = load_json(TrainOptions, start.path / "train.json")
    return recorded_options(stored, cast("DiffRGenConfig", read_config(DiffRGenConfig, start.path)))


def _take_over(options: TrainOptions, run: RunFolder, kept: Path) -> None:
    """Check the start and put its tokenizer, its retriever and at last its network into `run`."""
    assert options.init is not None  # what this is called for
    start = open_start(options.init)
    start.settings()
    model = start.model(fused_kernels=options.fused_kernels)
    check_agrees(options, _options(start))
    _check_positions(options, model.config)
    tokenizer, retriever = start.tokenizer(), start.retriever()
    if options.freeze == "encoder":
        _check_frozen(options, model, retriever)
    with staged(run.path) as stage:
        tokenizer.save_pretrained(stage)
    with staged(run.retriever_path) as stage:
        retriever.save(stage)
    name = start.path.resolve().name if start.name is None else str(start.name)
    digests = {path.name: file_digest(path) for path in weight_files(start.path)}
    with staged(kept) as stage:
        # `made_with` describes the parts of the initial run.
        model.config.made_with = {}
        model.save_pretrained(stage, safe_serialization=True)
        save_json(Initialisation(name, digests, {}), stage / RECORD)


def _changed(
    before: DiffRGenConfig, options: TrainOptions, tokenizer: PreTrainedTokenizerFast, **changes: object
) -> DiffRGenConfig:
    """Return the start's configuration with what the options may change."""
    fields, dropout = before.to_dict(), options.model.dropout
    decoder = dict(fields["decoder"])
    if dropout != before.dropout:
        decoder |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return DiffRGenConfig.from_dict({**fields, **chosen_fields(options, tokenizer), **changes, "decoder": decoder})


def _check_findings(options: TrainOptions, config: DiffRGenConfig, findings: int) -> None:
    if findings != config.findings:
        raise DataError(
            f"--init {options.init}: needed data with the {config.findings} findings of the initial run, got labels "
            f"of {findings}; give labels of {config.findings} findings, or train without --init"
        )


def _check_positions(options: TrainOptions, config: DiffRGenConfig) -> None:
    most = config.decoder.max_position_embeddings - 1 - config.findings
    for name, tokens in (("text", options.text.max_tokens), ("generation", options.generation.limits.most or 0)):
        if tokens > most:
            raise DataError(
                f"--{name}.max-tokens: needed at most {most}, which the decoder of --init {options.init} reads, got {tokens}"
            )


def _check_frozen(options: TrainOptions, model: DiffRGenForReportGeneration, retriever: Retriever) -> None:
    """Raise DataError if the retriever does not use the features of the encoder to be frozen."""
    tower = retriever.model.image_tower if isinstance(retriever, DualRetriever) else None
    if tower is None or weights_fingerprint(tower) != weights_fingerprint(model.image_encoder):
        raise DataError(
            f"--freeze encoder: needed a start that was trained with --freeze encoder, whose retriever reads the same features; "
            f"in {options.init} the encoder was trained further than the retriever's; pass --freeze nothing"
        )
