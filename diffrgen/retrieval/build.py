"""From the training split to a fitted retriever and its index: the two steps that precede training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import torch
from tqdm import tqdm
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from diffrgen.fitting.checkpoint import FitCheckpoint
from diffrgen.images import ImageTransform
from diffrgen.images.encoder import PatchEncoder
from diffrgen.records import Study
from diffrgen.retrieval.dual_encoder import DualEncoder, DualEncoderConfig, text_tower_config
from diffrgen.retrieval.dual_retriever import DualRetriever
from diffrgen.retrieval.fit import FitReport, fit_dual_encoder
from diffrgen.retrieval.index import RetrievalIndex
from diffrgen.retrieval.index_writer import TokenStore, write_index
from diffrgen.retrieval.options import RetrieverOptions
from diffrgen.retrieval.pairs import StudyPairs
from diffrgen.retrieval.process_group import SINGLE_PROCESS, Arrays, ProcessGroup
from diffrgen.retrieval.retriever import Retriever
from diffrgen.retrieval.studies import IndexedStudies
from diffrgen.staging import staged
from diffrgen.text import Rules, clean_report


def build_dual_encoder(
    tokenizer: PreTrainedTokenizerFast,
    *,
    encoder: PretrainedConfig | PatchEncoder,
    transform: ImageTransform,
    options: RetrieverOptions,
) -> DualEncoder:
    """Return an unfitted dual encoder, initialised from `options.seed`.

    encoder: the layout of the image tower, or the tower itself with its weights. `transform` is the training transform;
    its evaluation form is kept in the config so that the retriever is self-contained.
    """
    tower = encoder if isinstance(encoder, PatchEncoder) else None
    layout = encoder.config if isinstance(encoder, PatchEncoder) else encoder
    text = text_tower_config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        width=options.text_width,
        layers=options.text_layers,
        max_tokens=options.max_tokens,
    )
    config = DualEncoderConfig(
        layout,
        text,
        embedding_width=options.embedding_width,
        initial_temperature=options.temperature,
        image_transform=asdict(replace(transform, train=False)),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = DualEncoder(config)
    if tower is not None:
        model.image_tower = tower
    return model


def fit_retriever(
    folder: str | Path,
    model: DualEncoder,
    tokenizer: PreTrainedTokenizerFast,
    train: StudyPairs,
    validation: StudyPairs | None = None,
    *,
    options: RetrieverOptions,
    device: torch.device | str = "cpu",
    progress: bool = True,
    checkpoint: FitCheckpoint | None = None,
) -> tuple[DualRetriever, FitReport]:
    """Fit `model` on `train`, measure it on `validation`, save it with fit.json to `folder` and return both.

    Arguments and errors are those of `fit_dual_encoder`; `tokenizer` is the one that made the tokens of the pairs.
    """
    report = fit_dual_encoder(
        model,
        train,
        options=options,
        validation=validation,
        device=device,
        progress=progress,
        checkpoint=checkpoint,
    )
    retriever = DualRetriever(model, tokenizer)
    with staged(Path(folder)) as stage:
        retriever.save(stage)
        report.save(stage / "fit.json")
    return retriever, report


def build_index(
    folder: str | Path,
    retriever: Retriever,
    studies: Sequence[Study],
    *,
    rules: Rules,
    options: RetrieverOptions,
    group: ProcessGroup = SINGLE_PROCESS,
    progress: bool = True,
) -> RetrievalIndex:
    """Embed the reports of the training studies, write their index to `folder` and return it.

    With `options.tokens_per_report` the token features of each report are kept too. Each process of a `group` embeds its
    share of the batches, and the first one makes the index of them: it is the same, to the bit, as that of one process.
    """
    folder = Path(folder)
    indexed = IndexedStudies.of(
        ids=[study.id for study in studies],
        patients=[study.patient_id for study in studies],
        reports=[clean_report(study.report, rules=rules) for study in studies],
    )
    batches = group.share(
        [indexed.texts[start : start + options.batch_size] for start in range(0, len(indexed.texts), options.batch_size)]
    )
    parts = {name: folder.with_name(f"{folder.name}-{name}") for name in ("embeddings", "tokens")}
    embeddings = group.gather(_embedding_batches(retriever, batches, progress), parts["embeddings"])
    features: Iterator[Arrays] = iter(())
    if options.tokens_per_report:
        features = group.gather(_token_batches(retriever, batches, progress), parts["tokens"])
    if not group.leads:
        for _ in chain(embeddings, features):
            pass
        group.wait()
        return RetrievalIndex.load(folder)
    length = options.tokens_per_report
    kept = cast("Iterator[tuple[np.ndarray, np.ndarray]]", features)
    index = write_index(
        folder,
        indexed,
        (rows for (rows,) in embeddings),
        factory=options.index_factory,
        search=options.index_search,
        retriever=retriever.fingerprint,
        tokens=TokenStore(kept, length, retriever.token_width) if length else None,
    )
    group.wait()
    return index


def _embedding_batches(
    retriever: Retriever, batches: Sequence[Sequence[str]], progress: bool
) -> Iterator[tuple[np.ndarray]]:
    for texts in tqdm(batches, desc="embedding reports", unit="batch", disable=not progress):
        yield (retriever.encode_texts(texts).cpu().numpy(),)


def _token_batches(
    retriever: Retriever, batches: Sequence[Sequence[str]], progress: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for texts in tqdm(batches, desc="token features", unit="batch", disable=not progress):
        features, mask = retriever.encode_text_tokens(texts)
        yield features.float().cpu().numpy(), mask.sum(1).cpu().numpy()
