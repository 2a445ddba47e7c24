"""The training loop: steps, validation after each epoch, checkpoints, the best weights kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from accelerate import Accelerator
from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.model import DiffRGenForReportGeneration, DiffRGenOutput
from diffrgen.model.disease import adapted_prior
from diffrgen.optimiser import make_adamw
from diffrgen.pipeline.dataset import Example, example_loader
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.training.checkpoints import Progress, load_checkpoint, save_checkpoint
from diffrgen.training.log import TrainingLog
from diffrgen.training.options import TrainOptions
from diffrgen.training.order import EpochOrder
from diffrgen.training.prepare import PreparedRun
from diffrgen.training.schedule import gumbel_temperature, make_scheduler
from diffrgen.training.summary import TrainingSummary
from diffrgen.training.validation import LOSSES, validate

LOG_EVERY = 10


class Trainer:
    """Trains a prepared run with `accelerate`: any number of processes, mixed precision, optional torch.compile."""

    def __init__(
        self, options: TrainOptions, run: RunFolder, prepared: PreparedRun, accelerator: Accelerator, log: TrainingLog
    ) -> None:
        self.options, self.run, self.prepared = options, run, prepared
        self.accelerator, self.log = accelerator, log
        batch_size = min(options.optimiser.batch_size, len(prepared.train))
        lengths = [len(labels) for labels in prepared.train.labels]
        self.order = EpochOrder(lengths, batch_size=batch_size, seed=options.seed)
        loader = example_loader(
            prepared.train,
            batch_size=batch_size,
            workers=options.workers,
            sampler=self.order,
            drop_last=True,
        )
        self.model, self.optimiser, self.loader = accelerator.prepare(
            prepared.model,
            make_adamw(
                prepared.model,
                learning_rate=options.optimiser.learning_rate,
                weight_decay=options.optimiser.weight_decay,
            ),
            loader,
        )
        # Schedules run over all epochs even if training stops before, so that a resumed run goes on along them.
        self.planned = options.optimiser.epochs * len(self.loader)
        self.steps = min(self.planned, options.max_steps or self.planned)
        self.scheduler = make_scheduler(self.optimiser.optimizer, options.optimiser, self.planned)
        self.progress = Progress()
        self.started = time.perf_counter()

    @property
    def network(self) -> DiffRGenForReportGeneration:
        """The network without the wrappers of compilation and of several processes."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def fit(self) -> TrainingSummary:
        """Train to the last step, from the newest checkpoint with `options.resume`."""
        if self.options.resume:
            self.progress = load_checkpoint(self.accelerator, self.run.checkpoints_path)
        if self.progress.step:
            self.scheduler.step(self.progress.step)
        self.started = time.perf_counter() - self.progress.seconds
        visible = self.accelerator.is_local_main_process
        with tqdm(
            total=self.steps, initial=self.progress.step, desc="training", unit="step", disable=not visible
        ) as bar:
            while self.progress.step < self.steps:
                self._train_epoch(bar)
                self._end_epoch(bar)
        return TrainingSummary(self.progress.step, self.progress.seconds, self.progress.best)

    def _train_epoch(self, bar: tqdm) -> None:
        """Take the steps that are left of the current epoch, or of the whole training."""
        progress = self.progress
        self.model.train()
        for batch in self._batches():
            temperature = gumbel_temperature(self.options.optimiser, progress.step, self.planned)
            output = self._step(batch, temperature)
            progress = replace(progress, step=progress.step + 1, batch=progress.batch + 1)
            bar.update()
            if progress.step % LOG_EVERY == 0 or progress.step == self.steps:
                self._log_step(output, progress.step, temperature, bar)
            if progress.step == self.steps:
                break
        if progress.batch >= len(self.loader):
            progress = replace(progress, epoch=progress.epoch + 1, batch=0)
        self.progress = progress

    def _batches(self) -> Iterator[Example]:
        self.order.epoch = self.prepared.train.epoch = self.progress.epoch
        if not self.progress.batch:
            return iter(self.loader)
        return iter(self.accelerator.skip_first_batches(self.loader, self.progress.batch))

    def _step(self, batch: Example, temperature: float) -> DiffRGenOutput:
        """Take one step of AdamW on L = L_LM + lambda L_SDL + gamma L_SCL."""
        self.network.set_temperature(temperature)
        output = self.model(**batch)
        self.accelerator.backward(output.loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.options.optimiser.clip_norm)
        self.optimiser.step()
        self.scheduler.step()
        self.optimiser.zero_grad()
        return output

    def _log_step(self, output: DiffRGenOutput, step: int, temperature: float, bar: tqdm) -> None:
        scalars = {name: output[name].item() for name in LOSSES}
        bar.set_postfix({name.removesuffix("_loss"): f"{value:.2f}" for name, value in scalars.items()})
        learning_rate = self.scheduler.get_last_lr()[0]
        self.log.write("train", step, {**scalars, "learning_rate": learning_rate, "temperature": temperature})

    def _end_epoch(self, bar: tqdm) -> None:
        """Validate, keep the best weights, adapt the prior after a whole epoch, write a checkpoint."""
        validation = validate(
            self.network,
            self.prepared.val,
            self.prepared.labeler,
            batch_size=self.options.generation.batch_size,
            studies=self.options.validation_studies,
            workers=self.options.workers,
            progress=self.accelerator.is_local_main_process,
        )
        scores = validation.scores
        self.log.write("val", self.progress.step, scores)
        bar.write(
            f"step {self.progress.step}: validation loss {scores['loss']:.3f}, language {scores['language_loss']:.3f}, "
            f"micro-F1 of the reports {scores['micro_f1']:.3f}"
        )
        if scores["micro_f1"] > self.progress.best and self.accelerator.is_main_process:
            self.network.save_pretrained(self.run.path, safe_serialization=True)
        if not self.progress.batch:
            prior = self.network.classifier.prior
            states = self.prepared.val.states
            prior.copy_(adapted_prior(prior.cpu(), validation.positive_probability, states))
        self.progress = replace(
            self.progress,
            best=max(self.progress.best, scores["micro_f1"]),
            seconds=time.perf_counter() - self.started,
        )
        save_checkpoint(self.accelerator, self.run.checkpoints_path, self.progress)


def make_accelerator(options: TrainOptions) -> Accelerator:
    """Return the accelerator of these options; DataError where the device cannot run the precision."""
    if options.precision == "fp16" and not torch.cuda.is_available():
        raise DataError("precision fp16 needs a GPU and none is visible; use --precision bf16 or fp32 on a CPU")
    return Accelerator(
        mixed_precision={"fp32": "no"}.get(options.precision, options.precision),
        dynamo_backend="inductor" if options.compile else None,
        step_scheduler_with_optimizer=False,
    )
