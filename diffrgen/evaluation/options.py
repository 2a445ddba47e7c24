"""The options of `diffrgen.evaluate`, `diffrgen.calibrate`, `diffrgen.score` and `diffrgen.rexrank`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from diffrgen.errors import DataError
from diffrgen.evaluation.columns import ColumnOptions
from diffrgen.metrics.published import PublishedData
from diffrgen.pipeline.options import GenerationOptions, ImageCacheOptions, LabelerOptions
from diffrgen.ranges import CountOrZero, check_fields
from diffrgen.records.study import Split
from diffrgen.text.protocol import Protocol


@dataclass(frozen=True)
class CalibrateOptions:
    """Calibrate the probability that a sentence of a run's reports is true, and store it in the run as confidence.json.

    `generate`, `serve` and `evaluate` then report the confidence of each sentence. Use the generation options with
    which reports will be generated.
    """

    run: Path
    """Run folder of diffrgen.train."""
    split: Split = "val"
    """Split for the calibration: studies on which the network was not trained."""
    data: str | None = None
    """`phantom` or an annotation.json; default: the data of the training."""
    images: Path | None = None
    """Folder of the images of --data."""
    skip_broken: bool = False
    """Exclude missing and unreadable images, and records with no image left; a warning gives their number."""
    overwrite: bool = False
    """Replace an existing calibration."""
    resamples: CountOrZero = 1000
    """Resamples of the studies for the 95 % intervals of the cross-fitted scores; 0: no intervals."""
    priors: bool = True
    """Use the prior studies of the data if the model supports them; --no-priors generates without."""
    fused_kernels: bool = True
    """Use the fused operator; --no-fused-kernels uses the PyTorch reference."""
    workers: CountOrZero = 0
    """Processes that load images."""
    decoded: tyro.conf.OmitArgPrefixes[ImageCacheOptions] = field(default_factory=ImageCacheOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class EvaluateOptions:
    """Generate and score the reports of a split with a trained run."""

    run: Path
    """Run folder of diffrgen.train, or the hub name owner/name[@revision] of a shared run."""
    split: Split = "test"
    """Split to evaluate."""
    data: str | None = None
    """`phantom` or an annotation.json; default: the data of the training."""
    images: Path | None = None
    """Folder of the images of --data."""
    skip_broken: bool = False
    """Exclude missing and unreadable images, and records with no image left; a warning gives their number."""
    output: Path | None = None
    """New or empty folder for predictions.jsonl and metrics.json; default: a new folder RUN/evaluation/SPLIT, or
    evaluation/OWNER/NAME/SPLIT for a run from the hub."""
    protocol: Protocol = "promptmrg"
    """Preprocessing protocol of the language scores."""
    published: PublishedData | None = None
    """Also show the paper's rows for this data set."""
    radeval: tuple[str, ...] = ()
    """Additional metrics from the package radeval, such as radgraph; pip install "diffrgen[radeval]"."""
    shuffled_images: bool = False
    """Also evaluate with each study given another study's image: the control for a model that ignores images."""
    shuffled_context: bool = False
    """Also evaluate with each study given another study's context (--model.context): the control for a model that
    ignores its context."""
    both_marks: bool = False
    """Also evaluate with the other choice of --generation.suppress-marks, as a separate row."""
    contender: tuple[str, ...] = ()
    """NAME=FILE: reports of another system for the same studies, in a format of `python -m diffrgen.score`. Adds a row
    to the table, with paired differences to the run. May be repeated."""
    human_labels: Path | None = None
    """CSV of human labels: an id and one column per finding (CheXpert's names or NIH ChestX-ray14's). Adds the AUROC of
    the classifier's probabilities and the F1 of all reports."""
    baselines: bool = True
    """Also score the image-free baselines."""
    resamples: CountOrZero = 1000
    """Bootstrap resamples of the test studies for the 95 % intervals; 0: no intervals."""
    priors: bool = True
    """Use the prior studies of the data if the model supports them; --no-priors evaluates without."""
    fused_kernels: bool = True
    """Use the fused operator; --no-fused-kernels uses the PyTorch reference."""
    workers: CountOrZero = 0
    """Processes that load images."""
    decoded: tyro.conf.OmitArgPrefixes[ImageCacheOptions] = field(default_factory=ImageCacheOptions)
    labeler: tyro.conf.OmitArgPrefixes[LabelerOptions] = field(default_factory=LabelerOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class ScoreOptions:
    """Score the reports of any system from a file."""

    predictions: Path
    """JSON (a list, an object by id, or ReXrank's), JSON lines, CSV or TSV: one report per record, with an id, a
    reference or both; R2Gen's res.csv, one column without a header, is also accepted."""
    references: Path | None = None
    """File of references in one of the same formats, joined by id, or by order if neither file has ids."""
    data: Path | None = None
    """annotation.json with references by id, and labels if it has them; default: the file's own references."""
    split: Split = "test"
    """Split of --data that contains the studies."""
    protocol: Protocol = "promptmrg"
    """Preprocessing protocol of the language scores; the r2gen protocols require --data."""
    published: PublishedData | None = None
    """Also show the paper's rows for this data set."""
    radeval: tuple[str, ...] = ()
    """Additional metrics from the package radeval, such as radgraph; pip install "diffrgen[radeval]"."""
    skip_broken: bool = False
    """Exclude studies whose reference has no word, with their predictions, and print their number; otherwise such a
    reference is an error."""
    against: Path | None = None
    """Another file of reports. Both files are scored over their common studies, with the paired difference of each
    score, its 95 % interval and p by approximate randomisation."""
    against_column: tuple[str, ...] = ()
    """Like --hypothesis-column, for the file of --against."""
    output: Path | None = None
    """New file for the scores as JSON."""
    columns: tyro.conf.OmitArgPrefixes[ColumnOptions] = field(default_factory=ColumnOptions)
    labeler: tyro.conf.OmitArgPrefixes[LabelerOptions] = field(default_factory=LabelerOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")
        if self.against_column and self.against is None:
            raise DataError("--against-column requires --against")
        if self.references is not None and self.data is not None:
            raise DataError("expected either --references or --data, got both")


@dataclass(frozen=True)
class ReXrankOptions:
    """Generate a report for every study of a ReXrank file, and write the file with the reports. Research use only."""

    run: tyro.conf.Positional[Path]
    """Run folder of diffrgen.train, or the hub name owner/name[@revision] of a shared run."""
    input_json: Path
    """ReXrank's file: an object by study id, each with image_path (a list), key_image_path and frontal_lateral."""
    save_json: Path
    """New file for the same records with `model_prediction`, which `python -m diffrgen.score` reads."""
    img_root: Path
    """Folder to which the image paths are relative."""
    fused_kernels: bool = True
    """Use the fused operator; --no-fused-kernels uses the PyTorch reference."""
    workers: CountOrZero = 0
    """Processes that load images."""
    generation: GenerationOptions = field(default_factory=GenerationOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")
