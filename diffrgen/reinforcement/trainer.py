"""The training loop of `diffrgen.training` with samples and their rewards in the place of references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from diffrgen.evaluation.scoring import finding_scores
from diffrgen.labels import DISEASES
from diffrgen.metrics import report_diversity
from diffrgen.metrics.corpus import bleu_counts, bleu_of_sums
from diffrgen.model import DiffRGenForReportGeneration, EncodedStudy, StudyInputs
from diffrgen.model.outputs import Prompt
from diffrgen.pipeline.dataset import Example, StudyDataset
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.reinforcement.objective import PolicyLoss, group_advantages, policy_loss, self_critical_advantages
from diffrgen.reinforcement.options import ReinforceOptions
from diffrgen.reinforcement.rewards import Rewards
from diffrgen.reporting.candidates import studies_of
from diffrgen.reporting.writer import write_reports
from diffrgen.text import apply_protocol, decode_report
from diffrgen.training.assembly import TrainingParts
from diffrgen.training.interruption import StopRequest
from diffrgen.training.log import TrainingLog
from diffrgen.training.options import OptimiserOptions, TrainOptions
from diffrgen.training.trainer import Trainer

# No constraint on tokens: samples and log-probabilities come from the same distribution.
SAMPLING = {"num_beams": 1, "do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_new_tokens": 0}
GREEDY = {"num_beams": 1, "do_sample": False, "min_new_tokens": 0}
FREE = {"no_repeat_ngram_size": 0, "repetition_penalty": 1.0}
# Logged for every batch, before the mean of each reward.
SCALARS = ("loss", "reward", "kl", "clip_fraction", "distinct", "tokens")


class NumberedStudies(StudyDataset):
    """Examples with the index of their study, `row`."""

    def __getitem__(self, row: int) -> Example:
        """Return the example of study `row`."""
        return {**super().__getitem__(row), "row": torch.tensor(row)}


@dataclass(frozen=True)
class Samples:
    """Reports sampled for a batch, those of a study one after the other, n = B G.

    encoded, prompt: of the study of each; sequences (n, T); start (n, T): log-probabilities by the start; advantages (n,).
    """

    encoded: EncodedStudy
    prompt: Prompt
    sequences: Tensor
    start: Tensor
    advantages: Tensor
    texts: list[str]
    rewards: dict[str, np.ndarray]


def train_options(options: ReinforceOptions) -> TrainOptions:
    """Return what the training loop takes of the options."""
    return TrainOptions(
        output=options.output,
        max_steps=options.max_steps,
        precision=options.precision,
        checkpoint_every=options.checkpoint_every,
        resume=options.resume,
        fused_kernels=options.fused_kernels,
        seed=options.seed,
        workers=options.workers,
        validation_studies=options.validation_studies,
        optimiser=OptimiserOptions(
            learning_rate=options.learning_rate,
            weight_decay=0.0,
            clip_norm=options.clip_norm,
            epochs=options.epochs,
            batch_size=options.batch_size,
        ),
    )


class PolicyTrainer(Trainer):
    """Trains the decoder of a prepared run on the rewards of reports that it samples.

    All else is frozen and in evaluation mode, so that a batch is encoded once and nothing but the samples is random; these are
    drawn from (seed, batch). start: the network before the first step, whose image encoder may be the trained one's.
    """

    def __init__(
        self,
        options: ReinforceOptions,
        run: RunFolder,
        parts: TrainingParts,
        accelerator: Accelerator,
        *,
        start: DiffRGenForReportGeneration,
        rewards: Rewards,
        validation_rewards: Rewards,
        stop: StopRequest | None = None,
    ) -> None:
        parts.model.requires_grad_(False)
        parts.model.decoder.requires_grad_(True)
        super().__init__(train_options(options), run, parts, accelerator, stop)
        self.finite.rate_option, self.finite.start_anew = "--learning-rate", "in another --output"
        self.asked, self.start = options, start.to(accelerator.device).eval().requires_grad_(False)
        self.weights = options.weights()
        self.rewards, self.validation_rewards = rewards, validation_rewards
        self.tokenizer = parts.train.settings.tokenizer
        self.max_tokens = parts.settings.max_tokens

    def _start_is_scored(self) -> bool:
        return self.progress.step == 0 and self.progress.best < 0

    def _is_logged(self, step: int) -> bool:
        return True

    def _advice(self) -> str:
        return (
            f"stopped after batch {self.progress.step} of {self.steps}, which is saved; continue with: "
            f"python -m diffrgen.reinforce {self.asked.run} --resume --output {self.run.path}"
        )

    def _step(self, group: list[Example], temperature: float) -> Tensor:
        """Sample reports for a batch and take the steps on them; return SCALARS and the mean of each reward."""
        (batch,) = group
        self.model.eval()
        samples = self._sample(batch)
        written = self.network.written(samples.sequences)
        sampled_with, found = None, PolicyLoss(*torch.zeros(3))
        for _ in range(self.asked.steps_a_batch):
            self.finite.guard.keep()
            with self.accelerator.autocast():
                now = self.network.token_log_probability(samples.encoded, samples.prompt, samples.sequences)
            sampled_with = now.detach() if sampled_with is None else sampled_with
            found = policy_loss(
                *(now, sampled_with, samples.start, written, samples.advantages),
                clip=self.asked.clip,
                kl_weight=self.asked.kl_weight,
            )
            self.accelerator.backward(found.loss)
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.asked.clip_norm)
            self.finite.take(self.progress.step + 1, group, found.loss.detach()[None], norm)
            self.optimiser.zero_grad()
        self.scheduler.step()
        means = [float(values.mean()) for values in samples.rewards.values()]
        texts = [samples.texts[first : first + self.asked.group] for first in range(0, len(samples.texts), self.asked.group)]
        distinct = float(np.mean([len(set(own)) / len(own) for own in texts]))
        scalars = [found.loss.item(), self._weighted(samples.rewards), found.kl.item(), found.clip_fraction.item()]
        return torch.tensor([*scalars, distinct, written.sum().item() / len(written), *means], dtype=torch.float64)

    def _weighted(self, rewards: dict[str, np.ndarray]) -> float:
        return float(sum(self.weights[name] * values.mean() for name, values in rewards.items()))

    @torch.no_grad()
    def _sample(self, batch: Example) -> Samples:
        network, count, options = self.network, self.asked.group, self.asked
        inputs, rows = StudyInputs.of(batch), batch["row"].tolist()
        with self.accelerator.autocast():
            encoded = network.encode(inputs)
            prompt = Prompt(network.predicted_states(encoded), inputs.prior_states)
            limits = {**FREE, "max_new_tokens": self.max_tokens}
            with torch.random.fork_rng():
                draw = np.random.SeedSequence((options.seed, self.progress.step)).generate_state(1)
                torch.manual_seed(int(draw[0]))
                sequences = network.decode(encoded, prompt, num_return_sequences=count, **SAMPLING, **limits)
            texts = self._texts(sequences)
            rewards = self.rewards(np.repeat(rows, count).tolist(), texts)
            grouped = {name: values.reshape(-1, count) for name, values in rewards.items()}
            if options.method == "scst":
                plain = self._texts(network.decode(encoded, prompt, **GREEDY, **limits))
                advantages = self_critical_advantages(grouped, self.rewards(rows, plain), self.weights)
            else:
                advantages = group_advantages(grouped, self.weights)
            places = torch.arange(len(rows), device=sequences.device).repeat_interleave(count)
            encoded, prompt = studies_of(encoded, prompt, places)
            start = self.start.token_log_probability(encoded, prompt, sequences)
        wanted = torch.from_numpy(advantages.reshape(-1)).to(start)
        return Samples(encoded, prompt, sequences, start, wanted, texts, rewards)

    def _texts(self, sequences: Tensor) -> list[str]:
        return [decode_report(self.tokenizer, ids) for ids in sequences]

    def _log_step(self, losses: Tensor, temperature: float, log: TrainingLog, bar: tqdm) -> None:
        names = (*SCALARS, *(f"reward_{name}" for name in self.weights))
        scalars = dict(zip(names, losses.tolist(), strict=True))
        bar.set_postfix({name: f"{scalars[name]:.3f}" for name in ("reward", "kl")})
        log.write("train", self.progress.step, {**scalars, "learning_rate": self.scheduler.get_last_lr()[0]})

    def _end_epoch(self, log: TrainingLog, bar: tqdm) -> None:
        """Score greedy reports of the validation split, and those from other studies' images; keep what `--keep` asks for."""
        val, step = self.parts.val, self.progress.step
        rows = range(min(self.options.validation_studies, len(val)))
        scores = self._scores(rows)
        image_rows = val.image_rows
        val.shuffle_images(self.options.seed)
        shuffled = self._scores(rows)
        val.image_rows = image_rows
        log.write("val", step, scores)
        log.write("val_shuffled", step, shuffled)
        bar.write(
            f"batch {step}: validation reward {scores['reward']:.4f} (images shuffled {shuffled['reward']:.4f}), states-F1 "
            f"{scores['micro_f1']:.3f} ({shuffled['micro_f1']:.3f}), BLEU-4 {scores['corpus_bleu_4']:.3f} "
            f"({shuffled['corpus_bleu_4']:.3f}), distinct {scores['distinct']:.2f} ({shuffled['distinct']:.2f})"
        )
        # The newest weights are the best by their step.
        score = float(step) if self.asked.keep == "last" else scores[self.asked.keep]
        self._keep_if(score > self.progress.best, score)
        if not self.plan.left(self.progress):
            self._next_epoch()

    def _scores(self, rows: Sequence[int]) -> dict[str, float]:
        """Return the weighted reward, each reward, micro-F1 of the 13 findings, corpus BLEU-4, distinct texts, mean words."""
        options = GenerationOptions(beams=1, batch_size=self.options.generation.batch_size)
        written = write_reports(
            self.network, self.parts.val, options, rows=rows, workers=self.options.workers, progress=False
        )
        reports, own = [report.report for report in written], self.validation_rewards
        rewards = own(rows, reports)
        truth = self.parts.val.states[list(rows)].numpy()
        cleaned = apply_protocol("promptmrg", reports, [own.references[row] for row in rows])
        diversity = report_diversity(reports)
        return {
            "reward": self._weighted(rewards),
            **{f"reward_{name}": float(values.mean()) for name, values in rewards.items()},
            "micro_f1": finding_scores(own.labeler(reports), truth, DISEASES, resamples=0).micro.f1 or 0.0,
            "corpus_bleu_4": float(bleu_of_sums(bleu_counts(*cleaned).sum(0, keepdims=True))[0, 3]),
            "distinct": diversity.distinct_ratio,
            "words": diversity.mean_words,
        }
