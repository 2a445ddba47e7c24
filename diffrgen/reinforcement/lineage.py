"""The origin of a reinforced run: its record, and the files copied from the initial run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.pipeline.hub import NEEDED
from diffrgen.pipeline.run_check import weights_digest
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import save_json
from diffrgen.reinforcement.options import Keep, Method, ReinforceOptions
from diffrgen.staging import remove, staged
from diffrgen.training.initial_record import NETWORK

RECORD = "lineage.json"
# The files required to use a run, and those described in its card. A calibration belongs to the weights of one run.
COPIED = (
    *(name for name in NEEDED if name != "confidence.json"),
    *("index/[!.]*", "index/priors-*/*", "data.json", "data-digests.json", "train.json", "training.json", "retriever/fit.json"),
)


@dataclass(frozen=True)
class Lineage:
    """The start's name and the SHA-256 of its weights, and how the decoder was trained further.

    weights: of the rewards by name; batches: of samples that were trained on, 0 until the end; reward: the weighted mean on the
    validation split of the start and of the weights that were kept, the best by `keep`.
    """

    start: str
    start_weights: str
    method: Method
    weights: Mapping[str, float]
    group: int
    kl_weight: float
    batches: int = 0
    reward: tuple[float, float] | None = None
    keep: Keep = "reward"

    def lines(self) -> list[str]:
        """Return the record as text, a line for each fact."""
        rewards = ", ".join(f"{name} {weight:g}" for name, weight in self.weights.items())
        lines = [
            f"start: {self.start} (SHA-256 of its weights {self.start_weights[:16]})",
            f"method: {self.method}, {self.group} reports per study, KL weight {self.kl_weight:g}",
            f"rewards: {rewards}",
            "trained part: decoder",
        ]
        if self.reward is not None:
            before, after = self.reward
            lines.append(f"{self.batches:,} batches of samples; validation reward {before:.4f} before, {after:.4f} after")
            kept = "the last weights" if self.keep == "last" else f"the weights of the best validation {self.keep}"
            lines.append(f"kept: {kept}")
        return lines


def take_start(options: ReinforceOptions, start: RunFolder, model: DiffRGenForReportGeneration, output: Path) -> None:
    """Copy the run `start` to `output`, with a second copy of its network for the KL term; write the record last.

    What an interrupted copy left is replaced.
    """
    with staged(output / NETWORK) as stage:
        # `made_with` describes the parts of the initial run.
        model.config.made_with = {}
        model.save_pretrained(stage, safe_serialization=True)
    with staged(output) as stage:
        for path in sorted(start.path.rglob("*")):
            name = path.relative_to(start.path).as_posix()
            if path.is_file() and any(fnmatchcase(name, one) and name.count("/") == one.count("/") for one in COPIED):
                (stage / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, stage / name)
        for folder in (path for path in stage.iterdir() if path.is_dir()):
            remove(output / folder.name)
    name = start.path.resolve().name if start.name is None else str(start.name)
    digest, weights = weights_digest(start.path), options.weights()
    record = Lineage(name, digest, options.method, weights, options.group, options.kl_weight, keep=options.keep)
    save_json(record, output / RECORD)
