"""ReXrank's file of studies in, and the same file with a report for each of them out."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from diffrgen.errors import DataError, reason_of
from diffrgen.evaluation.options import ReXrankOptions
from diffrgen.images import check_images
from diffrgen.pipeline.contexts import contexts_of_studies
from diffrgen.pipeline.dataset import StudyDataset
from diffrgen.pipeline.labeler import run_labeler
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.records import MAX_VIEWS, NO_SECTIONS, SECTION_NAMES, Sections, Study, ViewKind, main_view, view_kind
from diffrgen.records.json_text import parse_json
from diffrgen.records.location import path_fault
from diffrgen.reporting.writer import GeneratedReport, run_decoding, write_reports
from diffrgen.retrieval import neighbours_of_studies
from diffrgen.staging import check_new_file, replace_file

PREDICTION = "model_prediction"
# The parts of a record's context, "Age:60-70.Gender:M.Indication: cough.Comparison: None.", each up to the next one.
PARTS = re.compile(r"(?<![a-z])(age|gender|sex|indication|history|comparison|technique)\s{0,3}:", re.IGNORECASE)


def write_rexrank(options: ReXrankOptions) -> int:
    """Write `options.save_json` and return the number of its studies.

    A run of several views gets all images of a study (of more than it takes the first ones), another one the key image. A run
    that was trained with an indication or the like gets that part of a record's context; where no record has it, a warning
    says so.

    Raises:
        DataError: the input is not ReXrank's, an image cannot be read (all are tried first), or the output exists.
    """
    check_new_file(options.save_json)
    run = RunFolder.open(options.run)
    settings, model = run.settings(), run.model(fused_kernels=options.fused_kernels)
    generation = options.generation.over(settings.generation)
    run_decoding(model, generation, max_tokens=settings.max_tokens)
    records = read_rexrank(options.input_json)
    states = (0,) * model.config.findings
    studies = [
        _study(name, record, options, views=model.config.views, states=states) for name, record in records.items()
    ]
    _warn_of_missing(model.config.context, studies, options.input_json)
    broken = check_images(studies, progress=True)
    if broken:
        first = next(iter(broken))
        raise DataError(f"{options.input_json}: {len(broken)} image(s) cannot be read, such as {first}: {broken[first]}")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    examples = run.example_settings(model.config, settings)
    retriever = run.retriever().to(model.device)
    neighbours = neighbours_of_studies(retriever, examples.index, studies, split="rexrank", options=settings.retriever)
    names = model.config.context
    contexts = contexts_of_studies(retriever, studies, names, rules=settings.rules) if names else None
    dataset = StudyDataset(studies, neighbours, examples, contexts=contexts, seed=settings.seed)
    labeler = run_labeler(settings.labeler)
    written = write_reports(model, dataset, generation, labeler=labeler, workers=options.workers)
    content = {
        name: {**record, PREDICTION: _text(report)}
        for (name, record), report in zip(records.items(), written, strict=True)
    }
    replace_file(options.save_json, json.dumps(content, indent=4, ensure_ascii=False).encode())
    return len(content)


def _text(report: GeneratedReport) -> str:
    """Return a report as ReXrank's references are, with headings, where it has sections."""
    if report.sections is None:
        return report.report
    headed = [f"{name.capitalize()}: {text}" for name, text in report.sections._asdict().items() if text]
    return " ".join(headed)


def read_rexrank(path: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a ReXrank file by study id; DataError for a file that is none."""
    try:
        content = parse_json(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected ReXrank's JSON, an object by study id, got {reason_of(error)}") from error
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{path}: expected an object of records by study id, got {type(content).__name__} of no study")
    for name, record in content.items():
        if not isinstance(record, dict):
            raise DataError(f"{path}, study {name!r}: expected an object with image_path, got {type(record).__name__}")
    return dict(content)


def _study(
    name: str, record: Mapping[str, Any], options: ReXrankOptions, *, views: int, states: tuple[int, ...]
) -> Study:
    """Return the study of a record, with the images that a run of so many `views` takes."""
    place = f"{options.input_json}, study {name!r}"
    paths = record.get("image_path")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        raise DataError(f"{place}: expected image_path as a list of paths, got {paths!r:.80}")
    named = record.get("frontal_lateral")
    kinds: list[ViewKind] = ["unknown"] * len(paths)
    if isinstance(named, list) and len(named) == len(paths):
        kinds = [view_kind(str(kind)) for kind in named]
    views = min(views, MAX_VIEWS)
    if views == 1:
        chosen = _key(record, paths, kinds)
        paths, kinds = [paths[chosen]], [kinds[chosen]]
    return Study(
        id=name,
        report="",
        images=tuple(options.img_root / _relative(path, place) for path in paths[:views]),
        split="test",
        labels=states,
        views=tuple(kinds[:views]),
        sections=context_sections(record.get("context")),
    )


def context_sections(context: object) -> Sections:
    """Return the sections in a record's context; none if the text has no sections.

    >>> context_sections("Age:60-70.Gender:M.Indication: ___M with cough.Comparison: None.").to_record()
    {'indication': '___M with cough.', 'comparison': 'None.'}
    """
    if not isinstance(context, str):
        return NO_SECTIONS
    heads = list(PARTS.finditer(context))
    ends = [*(head.start() for head in heads), len(context)][1:]
    parts = {head[1].lower(): context[head.end() : end].strip() for head, end in zip(heads, ends, strict=True)}
    return Sections(**{name: text for name, text in parts.items() if name in SECTION_NAMES})


def _warn_of_missing(names: Sequence[str], studies: Sequence[Study], path: Path) -> None:
    """Warn of sections that the run takes and no study has."""
    missing = [name for name in names if not any(getattr(study.sections, name) for study in studies)]
    if missing:
        named = " and ".join(missing)
        warnings.warn(f"{path}: no record's context has the {named} that the run takes", RuntimeWarning, stacklevel=3)


def _key(record: Mapping[str, Any], paths: list[str], kinds: list[ViewKind]) -> int:
    """Return which image is shown to a run of one view: the key image, else the first frontal one, else the first."""
    if record.get("key_image_path") in paths:
        return paths.index(record["key_image_path"])
    return main_view(tuple(kinds))


def _relative(path: str, place: str) -> Path:
    """Return a path below the image folder; ReXrank's begin with a slash, for the two are joined as texts."""
    relative = path.replace("\\", "/").lstrip("/")
    fault = path_fault(relative)
    if fault is not None:
        raise DataError(f"{place}: expected a path below --img-root, got {fault}")
    return Path(relative)
