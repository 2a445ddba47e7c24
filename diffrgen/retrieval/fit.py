"""Fits the dual encoder to the training split: AdamW, cosine with warm-up, symmetric InfoNCE."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import get_cosine_schedule_with_warmup

from diffrgen.errors import DataError
from diffrgen.finite import all_finite, first_not_finite
from diffrgen.fitting.checkpoint import FitCheckpoint
from diffrgen.fitting.optimiser import make_adamw
from diffrgen.fitting.order import PassOrder, pass_loader
from diffrgen.fitting.precision import Precision
from diffrgen.fitting.resumable import ResumableFit
from diffrgen.retrieval.dual_encoder import DualEncoder
from diffrgen.retrieval.options import RetrieverOptions
from diffrgen.retrieval.pairs import PairBatch, PairCollator, Pairs, StudyPairs
from diffrgen.retrieval.recall import distinct_rows, recall_at
from diffrgen.workers import worker_options

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class FitReport:
    """The result of a fit: the loss of every step, and the validation recall (empty without a validation split)."""

    steps: int
    seconds: float
    losses: tuple[float, ...]
    recall: dict[str, float]
    candidates: int
    """Distinct validation reports that the recall chose among."""
    skipped: int = 0
    """Steps left out because their loss or gradient was not finite."""

    def save(self, path: Path) -> None:
        """Write the report as JSON; a loss that is not finite as null."""
        content = asdict(self) | {"losses": [loss if all_finite(loss) else None for loss in self.losses]}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def fit_dual_encoder(
    model: DualEncoder,
    train: Pairs,
    *,
    options: RetrieverOptions,
    validation: Pairs | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
    checkpoint: FitCheckpoint | None = None,
) -> FitReport:
    """Fit `model` in place on `train`; one process, the same weights for a seed on one machine, whatever its workers.

    Batches are padded with the text tower's pad token; the last, smaller batch of a pass is left out. `checkpoint`: where
    the fit saves its state on a stop request and continues from there.

    Raises DataError when there are fewer pairs than 2 and when the losses are not finite any more, FitStopped when
    `checkpoint` requests a stop.
    """
    fit = _Fit(model, train, options, device)
    fit.run("fitting the retriever", progress=progress, checkpoint=checkpoint)
    model.eval()
    broken = first_not_finite(model.state_dict().items())
    if broken is not None:
        raise DataError(f"the fitted retriever's {broken} is not finite; lower --retriever.learning-rate")
    recall, candidates = ({}, 0) if validation is None else validation_recall(model, validation, options=options)
    return FitReport(fit.step, fit.elapsed(), tuple(fit.losses), recall, candidates, fit.guard.skipped)


class _Fit(ResumableFit[PairBatch]):
    """A fit under way: the towers, the optimiser and where it stands."""

    def __init__(
        self, model: DualEncoder, train: Pairs, options: RetrieverOptions, device: torch.device | str
    ) -> None:
        self.model, self.train, self.options = model.to(device).train(), train, options
        self.order = PassOrder(len(train), seed=options.seed)
        self.loader = _loader(train, model, self.order, options)
        self.a_pass = len(self.loader)
        steps = options.epochs * self.a_pass
        if options.max_steps is not None:
            steps = min(steps, options.max_steps)
        self.optimiser = make_adamw(model, learning_rate=options.learning_rate, weight_decay=options.weight_decay)
        self.schedule = get_cosine_schedule_with_warmup(self.optimiser, int(options.warmup * steps), steps)
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=options.precision == "fp16")
        super().__init__(model, steps, optimiser=self.optimiser, schedule=self.schedule, scaler=self.scaler)

    @property
    def key(self) -> str:
        """Identifies the fit: the options without the number of workers, and the number of pairs."""
        return f"{replace(self.options, workers=0)} {len(self.train)}"

    def batches(self) -> Iterator[PairBatch]:
        """Yield the batches that are left, pass after pass."""
        while self.step < self.steps:
            epoch, done = divmod(self.step, self.a_pass)
            self.order.epoch, self.order.start = epoch, done * (self.loader.batch_size or 1)
            if isinstance(self.train, StudyPairs):
                self.train.set_epoch(epoch)
            # The range comes first: zip then stops before it fetches an unused batch.
            for _, batch in zip(range(self.steps - self.step), self.loader, strict=False):
                yield batch

    def take(self, batch: PairBatch) -> float:
        """Take one step and return its loss; one that is not finite is skipped."""
        device, precision = self.model.device, self.options.precision
        inputs = {name: part.to(device, non_blocking=True) for name, part in cast("dict[str, Tensor]", batch).items()}
        self.guard.keep()
        with torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
            loss: Tensor = self.model(**inputs)
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        value, norm = loss.item(), torch.nn.utils.get_total_norm(gradients).item()
        self.losses.append(value)
        # In fp16 the scaler handles an overflowing gradient: it reduces its scale and skips the step.
        if all_finite(value) and (all_finite(norm) or self.scaler.is_enabled()):
            self.scaler.step(self.optimiser)
            self.guard.passed()
        else:
            cause = f"the learning rate {self.options.learning_rate:g} is too high; lower --retriever.learning-rate"
            self.guard.skip(self.step, loss=value, norm=norm, cause=f"{cause} (step of the retriever's fit)")
        self.scaler.update()
        self.schedule.step()
        return value


@torch.inference_mode()
def validation_recall(
    model: DualEncoder, pairs: Pairs, *, options: RetrieverOptions
) -> tuple[dict[str, float], int]:
    """Return recall@{1, 5, 21} of images among the distinct reports of `pairs`, and how many those are."""
    collate = PairCollator(cast("int", model.config.text_config.pad_token_id))
    of_pairs = cast("Dataset[PairBatch]", pairs)  # which the collator makes of pairs
    loader = DataLoader(of_pairs, options.batch_size, collate_fn=collate, **worker_options(options.workers))
    images, texts, ids = [], [], []
    for batch in loader:
        images.append(model.encode_images(batch["pixel_values"].to(model.device)).cpu())
        tokens, mask = batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device)
        texts.append(model.encode_texts(tokens, mask).cpu())
        ids += batch["input_ids"]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=collate.pad_token_id)
    first, text_of = distinct_rows(padded)
    return recall_at(torch.cat(images), torch.cat(texts)[first], text_of), len(first)


def _loader(train: Pairs, model: DualEncoder, order: PassOrder, options: RetrieverOptions) -> DataLoader[PairBatch]:
    if len(train) < 2:
        raise DataError(f"needed at least 2 image-report pairs to fit the retriever, got {len(train)}")
    of_pairs = cast("Dataset[PairBatch]", train)  # which the collator makes of pairs
    collate = cast("Callable[[list[PairBatch]], PairBatch]", PairCollator(cast("int", model.config.text_config.pad_token_id)))
    return pass_loader(of_pairs, order, batch_size=options.batch_size, workers=options.workers, collate=collate)
