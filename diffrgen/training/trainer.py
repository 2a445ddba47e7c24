"""The training loop: steps, validation after each epoch, checkpoints, the best weights kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, set_seed
from torch import Tensor
from tqdm import tqdm

from diffrgen.errors import DataError
from diffrgen.finite import all_finite
from diffrgen.fitting.optimiser import make_adamw
from diffrgen.labels import State
from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.model.disease import adapted_class_prior
from diffrgen.pipeline.dataset import Example, example_loader
from diffrgen.pipeline.run_check import note_weights
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.reporting.calibration import FILE as CALIBRATION
from diffrgen.staging import staged
from diffrgen.training.assembly import TrainingParts
from diffrgen.training.checkpoints import Checkpoints, Progress
from diffrgen.training.finite_steps import FiniteSteps
from diffrgen.training.interruption import StopRequest, TrainingStopped
from diffrgen.training.log import TrainingLog
from diffrgen.training.options import TrainOptions
from diffrgen.training.order import EpochOrder
from diffrgen.training.plan import StepPlan
from diffrgen.training.schedule import go_to, gumbel_temperature, make_scheduler
from diffrgen.training.summary import TrainingSummary
from diffrgen.training.tracking import tracking
from diffrgen.training.validation import LOSSES, validate
from diffrgen.training.waiting import BatchTimer

LOG_EVERY = 10


class Trainer:
    """Trains an assembled run with `accelerate`: any number of processes, mixed precision, optional torch.compile."""

    def __init__(
        self,
        options: TrainOptions,
        run: RunFolder,
        parts: TrainingParts,
        accelerator: Accelerator,
        stop: StopRequest | None = None,
    ) -> None:
        self.options, self.run, self.parts, self.accelerator = options, run, parts, accelerator
        if accelerator.num_processes > 1:
            # Each process draws its own dropout and routing noise.
            set_seed(options.seed, device_specific=True)
        if options.activation_checkpointing:
            parts.model.decoder.gradient_checkpointing_enable({"use_reentrant": False})
        self.plan = StepPlan(
            len(parts.train),
            batch_size=min(options.optimiser.batch_size, len(parts.train)),
            accumulate=options.optimiser.accumulate,
            processes=accelerator.num_processes,
            epochs=options.optimiser.epochs,
        )
        lengths = [len(labels) for labels in parts.train.labels]
        self.order = EpochOrder(lengths, batch_size=self.plan.batch_size, seed=options.seed)
        loader = example_loader(
            parts.train,
            batch_size=self.plan.batch_size,
            workers=options.workers,
            sampler=self.order,
            drop_last=True,
            passes=True,
        )
        self.model, self.optimiser, self.loader = accelerator.prepare(
            parts.model,
            make_adamw(
                parts.model,
                learning_rate=options.optimiser.learning_rate,
                weight_decay=options.optimiser.weight_decay,
                slower=parts.model.image_encoder,
                slower_rate=options.optimiser.encoder_rate,
            ),
            loader,
        )
        # Prepared, not registered for checkpointing: accelerate would unpickle a registered object.
        self.scheduler = accelerator.prepare(make_scheduler(self.optimiser.optimizer, options.optimiser, self.plan.planned))
        self.finite = FiniteSteps(options, accelerator, self.network, self.optimiser)
        self.checkpoints = Checkpoints(accelerator, run.checkpoints_path, every=options.checkpoint_every)
        self.stop = stop or StopRequest()
        self.progress = Progress()
        self.timer = BatchTimer()
        self.frequency = (parts.train.states == State.POSITIVE).float().mean(0)  # (C,)
        self.started = time.perf_counter()

    @property
    def network(self) -> DiffRGenForReportGeneration:
        """The network without the wrappers of compilation and of several processes."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def fit(self) -> TrainingSummary:
        """Train to the last step, from the newest checkpoint with `options.resume`.

        Raises TrainingStopped after Ctrl-C or a termination signal, DataError if no checkpoint can be written.
        """
        if self.options.resume:
            self.progress = self.checkpoints.load()
            self.finite.guard.skipped = self.progress.skipped
        self._go_to_place()
        self.started = time.perf_counter() - self.progress.seconds
        main, visible = self.accelerator.is_main_process, self.accelerator.is_local_main_process
        with (
            self.stop,
            tracking(self.accelerator, self.options, self.run.path) as track,
            TrainingLog(self.run.path, self.progress, enabled=main, track=track) as log,
            tqdm(
                total=self.steps, initial=self.progress.step, desc="training", unit="step", disable=not visible
            ) as bar,
        ):
            if self._start_is_scored():
                with self.stop.immediate(self._advice()):
                    self._end_epoch(log, bar)
                self._save_and_stop(log, always=True)
            while self.progress.step < self.steps or self._validation_is_due():
                if not self._validation_is_due():
                    self._train_epoch(log, bar)
                with self.stop.immediate(self._advice()):
                    self._end_epoch(log, bar)
                self._save_and_stop(log, always=True)
        if self.progress.best < 0:
            raise DataError(
                f"{self.run.path}: needed a validation whose loss is finite, got none in {self.progress.step} steps, so there "
                f"are no best weights. Likely cause: {self.finite.likely_cause([])}"
            )
        return TrainingSummary(
            self.progress.step, self.progress.seconds, self.progress.best, self.timer.share, skipped=self.finite.guard.skipped
        )

    def _go_to_place(self) -> None:
        """Lay out what is left of the training: `steps` in all, and where the schedules stand.

        `ahead`: steps taken less the place in the schedules; 0 unless the size of a batch was changed on the way. Schedules
        run over all epochs even if training stops before, so that a resumed run goes on along them.
        """
        place = self.plan.place(self.progress)
        self.ahead = self.progress.step - place
        self.steps = self.ahead + self.plan.planned
        if self.options.max_steps is not None:
            self.steps = min(self.steps, self.options.max_steps)
        go_to(self.scheduler.scheduler, place)

    def _train_epoch(self, log: TrainingLog, bar: tqdm) -> None:
        """Take the remaining steps of the current epoch, or of the complete training."""
        self.model.train()
        group: list[Example] = []
        for batch in self.timer.timed(self._batches()):
            group.append(batch)
            if len(group) < self.options.optimiser.accumulate:
                continue
            step = self.progress.step + 1
            temperature = gumbel_temperature(self.options.optimiser, step - 1 - self.ahead, self.plan.planned)
            losses = self._step(group, temperature)
            self.progress = replace(
                self.progress,
                step=step,
                studies=self.progress.studies + self.plan.studies_a_step,
                skipped=self.finite.guard.skipped,
            )
            group = []
            last = self._validation_is_due()
            bar.update()
            if self._is_logged(step):
                self._log_step(losses, temperature, log, bar)
            self._save_and_stop(log, always=last)
            if last:
                return

    def _is_logged(self, step: int) -> bool:
        return step % LOG_EVERY == 0 or step == self.steps

    def _validation_is_due(self) -> bool:
        """Return whether an epoch or the training is over and its validation has not been done yet."""
        progress = self.progress
        return not self.plan.left(progress) or progress.validated < progress.step == self.steps

    def _start_is_scored(self) -> bool:
        """Return whether to validate the weights before the first step: those of an initial run, or if there are no steps."""
        begun = self.progress.step > 0 or self.progress.best >= 0
        return not begun and (self.steps == 0 or self.options.init is not None)

    def _save_and_stop(self, log: TrainingLog, *, always: bool) -> None:
        """Write a checkpoint, always or where one is due; raise TrainingStopped if a process received a signal to stop."""
        number, due = self.stop.number, self.checkpoints.due(self.progress.step)
        if self.accelerator.num_processes > 1:
            mine = torch.tensor([[number, due]], device=self.accelerator.device)
            number, due = self.accelerator.gather(mine).amax(0).tolist()
        if always or due or number:
            self.progress = replace(self.progress, seconds=time.perf_counter() - self.started)
            log.flush()
            self.finite.check(self.progress.step)
            self.checkpoints.save(self.progress)
        if number:
            raise TrainingStopped(number, self._advice())

    def _advice(self) -> str:
        return (
            f"stopped after step {self.progress.step} of {self.steps}, which is saved; continue with: "
            f"python -m diffrgen.train --resume --output {self.run.path}"
        )

    def _batches(self) -> Iterator[Example]:
        progress = self.progress = replace(
            self.progress, ordered_by=self.progress.ordered_by or self.plan.batch_size
        )
        self.order.epoch = self.parts.train.epoch = progress.epoch
        # The rest of an epoch keeps the order in which the epoch began.
        self.order.batch_size, self.order.start = progress.ordered_by, progress.studies
        return iter(self.loader)

    def _step(self, group: list[Example], temperature: float) -> Tensor:
        """Take one step of AdamW on L = L_LM + lambda L_SDL + gamma L_SCL, averaged over the group's batches.

        Returns the means of LOSSES. A step whose loss or gradient is not finite is skipped in all processes.
        """
        self.network.set_temperature(temperature)
        self.finite.guard.keep()
        losses = []
        for number, batch in enumerate(group, start=1):
            # The processes sum their gradients once per step.
            with self.accelerator.no_sync(self.model) if number < len(group) else nullcontext():
                output = self.model(**batch)
                self.accelerator.backward(output.loss / len(group))
            losses.append(torch.stack([output[name].detach() for name in LOSSES]))
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.options.optimiser.clip_norm)
        means = torch.stack(losses).mean(0)
        self.finite.take(self.progress.step + 1, group, means, norm)
        self.scheduler.step()
        self.optimiser.zero_grad()
        return means

    def _log_step(self, losses: Tensor, temperature: float, log: TrainingLog, bar: tqdm) -> None:
        scalars = dict(zip(LOSSES, self.accelerator.reduce(losses, "mean").tolist(), strict=True))
        bar.set_postfix({name.removesuffix("_loss"): f"{value:.2f}" for name, value in scalars.items()})
        learning_rate = self.scheduler.get_last_lr()[0]
        log.write("train", self.progress.step, {**scalars, "learning_rate": learning_rate, "temperature": temperature})

    def _end_epoch(self, log: TrainingLog, bar: tqdm) -> None:
        """Validate, keep the best weights, adapt Eq. 9's prior after a complete epoch."""
        # Batch statistics differ between processes after the last step; those of the first process are kept.
        for buffer in self.network.buffers():
            broadcast(buffer)
        validation = validate(
            self.network,
            self.parts.val,
            self.parts.source.labeler,
            batch_size=self.options.generation.batch_size,
            studies=self.options.validation_studies,
            workers=self.options.workers,
            progress=self.accelerator.is_local_main_process,
            calibrated_to=self.frequency if self.options.calibrate_prompts else None,
        )
        progress, scores = self.progress, validation.scores
        log.write("val", progress.step, scores)
        if self.accelerator.is_main_process:
            bar.write(
                f"step {progress.step}: validation loss {scores['loss']:.3f}, language {scores['language_loss']:.3f}, "
                f"micro-F1 of the reports {scores['micro_f1']:.3f}; "
                f"{self.timer.last_share:.1%} of the training time spent waiting for data"
            )
        # Weights without a finite validation loss are never the best, whatever their reports.
        better = all_finite(scores["loss"]) and scores["micro_f1"] > progress.best
        self._keep_if(better, scores["micro_f1"])
        if not self.plan.left(progress):
            prior = self.network.classifier.class_prior
            states = self.parts.val.states
            if torch.isfinite(validation.positive_probability).all():
                prior.copy_(adapted_class_prior(prior.cpu(), validation.positive_probability, states))
            self._next_epoch()

    def _keep_if(self, better: bool, score: float) -> None:
        """Note that the newest weights are validated, and keep them as the run's where they are `better`, by `score`."""
        if better and self.accelerator.is_main_process:
            self.finite.check(self.progress.step)
            # The calibration was fitted to reports of the weights that are being replaced.
            (self.run.path / CALIBRATION).unlink(missing_ok=True)
            with staged(self.run.path) as stage:
                self.network.save_pretrained(stage, safe_serialization=True)
                note_weights(stage)
        progress = self.progress
        self.progress = replace(progress, best=score if better else progress.best, validated=progress.step)

    def _next_epoch(self) -> None:
        self.progress = replace(self.progress, epoch=self.progress.epoch + 1, studies=0, ordered_by=0)
