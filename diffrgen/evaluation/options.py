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
    """Learn how probable the sentences of a run's reports are to be true, and keep that in the run as confidence.json.

    `generate`, `serve` and `evaluate` then give the confidence of each sentence. Use the options of generation that reports
    will be generated with.
    """

    run: Path
    """Run folder that diffrgen.train wrote."""
    split: Split = "val"
    """Split to learn from: studies that the network was not trained on."""
    data: str | None = None
    """`phantom` or an annotation.json; default: what the run was trained on."""
    images: Path | None = None
    """Folder of the images of --data."""
    skip_broken: bool = False
    """Leave out missing and unreadable images and records with no image left, counted in a warning."""
    overwrite: bool = False
    """Replace a calibration that the run has."""
    resamples: CountOrZero = 1000
    """Resamples of the studies for the 95 % intervals of the cross-fitted scores; 0: no intervals."""
    priors: bool = True
    """Give a model that takes them the earlier studies that the data have; --no-priors generates without."""
    fused_kernels: bool = True
    """The fused operator; --no-fused-kernels runs the reference in PyTorch."""
    workers: CountOrZero = 0
    """Processes that read images."""
    decoded: tyro.conf.OmitArgPrefixes[ImageCacheOptions] = field(default_factory=ImageCacheOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class EvaluateOptions:
    """Write and score the reports of a split with a trained run."""

    run: Path
    """Run folder that diffrgen.train wrote, or the hub name owner/name[@revision] of a shared run."""
    split: Split = "test"
    """Split to evaluate."""
    data: str | None = None
    """`phantom` or an annotation.json; default: what the run was trained on."""
    images: Path | None = None
    """Folder of the images of --data."""
    skip_broken: bool = False
    """Leave out missing and unreadable images and records with no image left, counted in a warning."""
    output: Path | None = None
    """Folder for predictions.jsonl and metrics.json; default: a new one, RUN/evaluation/SPLIT, for a run of the hub
    evaluation/OWNER/NAME/SPLIT."""
    protocol: Protocol = "promptmrg"
    """Text handling that the language scores are computed after."""
    published: PublishedData | None = None
    """Show the paper's own rows for this data set beside."""
    radeval: tuple[str, ...] = ()
    """Metrics of the package radeval to compute too, such as radgraph; pip install "diffrgen[radeval]"."""
    shuffled_images: bool = False
    """Also evaluate with each study shown another study's image: the control for a model that ignores images."""
    shuffled_context: bool = False
    """Also evaluate with each study given another study's context (--model.context): what a model gains by it, it loses then."""
    both_marks: bool = False
    """Also evaluate with the other choice of --generation.suppress-marks, as a row of its own."""
    contender: tuple[str, ...] = ()
    """NAME=FILE: reports of another system for the same studies, as `python -m diffrgen.score` takes them, as a row of the
    table, with the run's paired differences to it. Several may be given."""
    human_labels: Path | None = None
    """CSV of findings that people labelled: an id and a column a finding (CheXpert's names or NIH ChestX-ray14's). Scores the
    classifier's probabilities by AUROC, and all reports by F1, against them."""
    baselines: bool = True
    """Score the two blind baselines beside."""
    resamples: CountOrZero = 1000
    """Resamples of the test studies for the 95 % intervals; 0: no intervals."""
    priors: bool = True
    """Give a model that takes them the earlier studies that the data have; --no-priors evaluates without."""
    fused_kernels: bool = True
    """The fused operator; --no-fused-kernels runs the reference in PyTorch."""
    workers: CountOrZero = 0
    """Processes that read images."""
    decoded: tyro.conf.OmitArgPrefixes[ImageCacheOptions] = field(default_factory=ImageCacheOptions)
    labeler: tyro.conf.OmitArgPrefixes[LabelerOptions] = field(default_factory=LabelerOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")


@dataclass(frozen=True)
class ScoreOptions:
    """Score the reports of a file, whichever system generated them."""

    predictions: Path
    """JSON (a list, an object by id, or ReXrank's), JSON lines, CSV or TSV: a report a record, with an id or a reference
    or both; R2Gen's res.csv, a column without a header, is read too."""
    references: Path | None = None
    """File of the references in one of the same shapes, joined by id, or by order where neither file has ids."""
    data: Path | None = None
    """annotation.json with references by id, and labels where it brings them; default: the file's own references."""
    split: Split = "test"
    """Split of --data that the reports are for."""
    protocol: Protocol = "promptmrg"
    """Text handling that the language scores are computed after; the r2gen protocols need --data."""
    published: PublishedData | None = None
    """Show the paper's own rows for this data set beside."""
    radeval: tuple[str, ...] = ()
    """Metrics of the package radeval to compute too, such as radgraph; pip install "diffrgen[radeval]"."""
    skip_broken: bool = False
    """Leave out studies whose reference has no word, with their predictions, and say how many; otherwise they are an
    error that names them."""
    against: Path | None = None
    """Another file of reports: both are scored over the studies that they have in common, with the paired difference of each
    score, its 95 % interval and p by approximate randomisation."""
    against_column: tuple[str, ...] = ()
    """As --hypothesis-column, for the file of --against."""
    output: Path | None = None
    """File for the scores as JSON."""
    columns: tyro.conf.OmitArgPrefixes[ColumnOptions] = field(default_factory=ColumnOptions)
    labeler: tyro.conf.OmitArgPrefixes[LabelerOptions] = field(default_factory=LabelerOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")
        if self.against_column and self.against is None:
            raise DataError("--against-column requires --against, the file that it is a column of")
        if self.references is not None and self.data is not None:
            raise DataError("--references and --data both bring the references; give one of them")


@dataclass(frozen=True)
class ReXrankOptions:
    """Generate a report for every study of a ReXrank file, and write the file with the reports. Research use only."""

    run: tyro.conf.Positional[Path]
    """Run folder that diffrgen.train wrote, or the hub name owner/name[@revision] of a shared run."""
    input_json: Path
    """ReXrank's file: an object by study id, each with image_path (a list), key_image_path and frontal_lateral."""
    save_json: Path
    """New file for the same records with `model_prediction`, which `python -m diffrgen.score` reads."""
    img_root: Path
    """Folder that the image paths are below."""
    fused_kernels: bool = True
    """The fused operator; --no-fused-kernels runs the reference in PyTorch."""
    workers: CountOrZero = 0
    """Processes that read images."""
    generation: GenerationOptions = field(default_factory=GenerationOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")
