"""Facts from the files of a run, from which its model card is generated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from diffrgen.errors import DataError, reason_of
from diffrgen.evaluation.record import RECORD, EvaluationRecord
from diffrgen.evaluation.result import MODEL_ROW
from diffrgen.pipeline.data_summary import DataSummary
from diffrgen.pipeline.run_check import weights_digest
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.run_settings import RunSettings
from diffrgen.pipeline.settings import load_json
from diffrgen.reinforcement.lineage import RECORD as LINEAGE
from diffrgen.reinforcement.lineage import Lineage
from diffrgen.training.initial_record import RECORD as INITIALISATION
from diffrgen.training.initial_record import Initialisation
from diffrgen.training.options import TrainOptions
from diffrgen.training.presets import preset_options
from diffrgen.training.summary import TrainingSummary

# Locations and resuming do not describe the run.
ABOUT_THE_START = ("output", "resume", "overwrite", "workers", "checkpoint_every", "track", "decoded.image_cache_folder")


@dataclass(frozen=True)
class EvaluationFacts:
    """One evaluation of the run: the name of its folder, evaluation.json, metrics.json and table.md."""

    name: str
    record: EvaluationRecord
    metrics: Mapping[str, Any]
    table: str

    @property
    def model(self) -> Mapping[str, Any]:
        """The scores of the model itself."""
        return self.metrics[MODEL_ROW]

    @property
    def others(self) -> Mapping[str, Mapping[str, Any]]:
        """The scores of the controls and the image-free baselines by name."""
        return {name: scores for name, scores in self.metrics.items() if name != MODEL_ROW}


@dataclass(frozen=True)
class RunFacts:
    """All facts from the files of a run. changed: options that are not the preset's, by their names on the command line;
    parameters: numbers in the weights; retriever_fit: its steps, seconds and recall, None if it was not fitted here;
    evaluations: those of the weights that are in the run now, of the test split and the newest first; initialisation: what was
    taken of the run that the training started from, None if it started from none; lineage: of a run that was trained further
    on rewards, else None.
    """

    settings: RunSettings
    data: DataSummary
    training: TrainingSummary
    options: TrainOptions
    changed: Mapping[str, object]
    parameters: int
    retriever_fit: Mapping[str, Any] | None
    indexed: Mapping[str, Any]
    evaluations: tuple[EvaluationFacts, ...]
    has_curves: bool
    initialisation: Initialisation | None = None
    lineage: Lineage | None = None

    @classmethod
    def read(cls, path: Path) -> RunFacts:
        """Read the files of the run in the folder `path`; DataError if one that training writes is missing or broken."""
        run = RunFolder(path)
        options = load_json(TrainOptions, path / "train.json")
        fit, start = path / "retriever" / "fit.json", path / INITIALISATION
        return cls(
            settings=run.settings(),
            data=load_json(DataSummary, path / "data.json"),
            training=load_json(TrainingSummary, path / "training.json"),
            options=options,
            changed=dict(_changed(options)),
            parameters=count_parameters(path),
            retriever_fit=_read(fit) if fit.is_file() else None,
            indexed=_read(path / "index" / "manifest.json"),
            evaluations=tuple(_evaluations(run.evaluation_path, weights_digest(path))),
            has_curves=(path / "curves.png").is_file(),
            initialisation=load_json(Initialisation, start) if start.is_file() else None,
            lineage=load_json(Lineage, path / LINEAGE) if (path / LINEAGE).is_file() else None,
        )


def count_parameters(folder: Path) -> int:
    """Return how many numbers the safetensors files of `folder` hold, from their headers; DataError for a broken file."""
    total = 0
    for path in sorted(folder.glob("model*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    count = 1
                    for length in file.get_slice(name).get_shape():
                        count *= length
                    total += count
        except SafetensorError as error:
            raise DataError(f"{path}: needed the weights of a run as safetensors, got: {error}") from error
    return total


def _changed(options: TrainOptions) -> Iterator[tuple[str, object]]:
    """Yield the name and value of each option that the preset has otherwise."""
    preset = dict(_flat(asdict(preset_options(options.preset))))
    for name, value in _flat(asdict(options)):
        if name not in ABOUT_THE_START and value != preset[name]:
            # Paths are shortened to file names: the folders of the training machine are private.
            yield name.replace("_", "-"), value.name if isinstance(value, Path) else _without_folder(value)


def _without_folder(value: object) -> object:
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in options.items():
        if isinstance(value, dict):
            # These two have no prefix on the command line.
            yield from _flat(value, "" if name in ("data", "labeler") and not prefix else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _evaluations(folder: Path, weights: str) -> Iterator[EvaluationFacts]:
    """Yield the evaluations of `weights`: those of the run's own data first, of the test split before the others, the
    newest (test-3, test-2, test) first.
    """
    found = []
    for path in (file.parent for file in folder.glob(f"*/{RECORD}")):
        record, metrics = load_json(EvaluationRecord, path / RECORD), _read(path / "metrics.json")
        table = (path / "table.md").read_text(encoding="utf-8").rstrip()
        if record.weights == weights and MODEL_ROW in metrics:
            found.append(EvaluationFacts(path.name, record, metrics, table))
    yield from sorted(found, key=_place)


def _place(one: EvaluationFacts) -> tuple[bool, bool, int]:
    number = one.name.rpartition("-")[2]
    return one.record.data is not None, one.record.split != "test", -int(number) if number.isdecimal() else 0


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: needed a file of a finished run as JSON, got: {reason_of(error)}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: needed an object, got {type(content).__name__}")
    return content
