"""Fits the dual encoder to the training split: AdamW, cosine with warm-up, symmetric InfoNCE."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from diffrgen.errors import DataError
from diffrgen.optimiser import make_adamw
from diffrgen.retrieval.dual_encoder import DualEncoder
from diffrgen.retrieval.options import Precision, RetrieverOptions
from diffrgen.retrieval.pairs import Pair, PairBatch, PairCollator, StudyPairs
from diffrgen.retrieval.recall import distinct_rows, recall_at

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class FitReport:
    """What a fit did: the loss of every step, and the validation recall (empty without a validation split)."""

    steps: int
    seconds: float
    losses: tuple[float, ...]
    recall: dict[str, float]
    candidates: int
    """Distinct validation reports that the recall chose among."""

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def fit_dual_encoder(
    model: DualEncoder,
    train: Dataset[Pair],
    *,
    options: RetrieverOptions,
    validation: Dataset[Pair] | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> FitReport:
    """Fit `model` in place on `train`; one process, deterministic for a seed on one machine.

    Batches are padded with the text tower's pad token; the last, smaller batch of a pass is left out. Raises DataError
    when there are fewer pairs than 2.
    """
    started = time.perf_counter()
    loader = _loader(train, model, options)
    steps = options.epochs * len(loader)
    if options.max_steps is not None:
        steps = min(steps, options.max_steps)
    model.to(device).train()
    optimiser = make_adamw(model, learning_rate=options.learning_rate, weight_decay=options.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimiser, int(options.warmup * steps), steps)
    scaler = torch.amp.GradScaler(model.device.type, enabled=options.precision == "fp16")
    losses: list[float] = []
    with tqdm(total=steps, desc="fitting the retriever", unit="step", disable=not progress) as bar:
        for batch in _batches(loader, train, steps):
            loss = _step(model, batch, optimiser, scaler, options.precision)
            schedule.step()
            losses.append(loss)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
    model.eval()
    recall, candidates = ({}, 0) if validation is None else validation_recall(model, validation, options=options)
    return FitReport(len(losses), time.perf_counter() - started, tuple(losses), recall, candidates)


@torch.inference_mode()
def validation_recall(
    model: DualEncoder, pairs: Dataset[Pair], *, options: RetrieverOptions
) -> tuple[dict[str, float], int]:
    """Return recall@{1, 5, 21} of images among the distinct reports of `pairs`, and how many those are."""
    collate = PairCollator(model.config.text_config.pad_token_id)
    loader = DataLoader(pairs, options.batch_size, collate_fn=collate, num_workers=options.workers)
    images, texts, ids = [], [], []
    for batch in loader:
        images.append(model.encode_images(batch["pixel_values"].to(model.device)).cpu())
        tokens, mask = batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device)
        texts.append(model.encode_texts(tokens, mask).cpu())
        ids += batch["input_ids"]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=collate.pad_token_id)
    first, text_of = distinct_rows(padded)
    return recall_at(torch.cat(images), torch.cat(texts)[first], text_of), len(first)


def _loader(train: Dataset[Pair], model: DualEncoder, options: RetrieverOptions) -> DataLoader[PairBatch]:
    if len(train) < 2:
        raise DataError(f"needed at least 2 image-report pairs to fit the retriever, got {len(train)}")
    return DataLoader(
        train,
        batch_size=min(options.batch_size, len(train)),
        shuffle=True,
        drop_last=True,
        collate_fn=PairCollator(model.config.text_config.pad_token_id),
        generator=torch.Generator().manual_seed(options.seed),
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _batches(loader: DataLoader[PairBatch], train: Dataset[Pair], steps: int) -> Iterator[PairBatch]:
    """Yield `steps` batches, pass after pass."""
    epoch, left = 0, steps
    while left:
        if isinstance(train, StudyPairs):
            train.set_epoch(epoch)
        # The range comes first: zip then stops without fetching a batch that nobody takes.
        for _, batch in zip(range(left), loader, strict=False):
            yield batch
        left, epoch = max(0, left - len(loader)), epoch + 1


def _step(
    model: DualEncoder,
    batch: PairBatch,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    precision: Precision,
) -> float:
    """Take one step and return its loss."""
    device = model.device
    inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    with torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
        loss: Tensor = model(**inputs)
    optimiser.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimiser)
    scaler.update()
    return loss.item()
