"""One study from options to table and figure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from diffrgen.experiments.figure import write_figure
from diffrgen.experiments.options import ExperimentOptions
from diffrgen.experiments.results import StudyResults
from diffrgen.experiments.runner import Runner, jobs_of
from diffrgen.experiments.shared import make_shared
from diffrgen.experiments.table import study_markdown
from diffrgen.staging import replace_file


@dataclass(frozen=True)
class StudyFiles:
    """The files of a study: its table as Markdown, all numbers as JSON, and the figure."""

    table: Path
    results: Path
    figure: Path


def run_study(options: ExperimentOptions, *, progress: bool = True) -> StudyFiles:
    """Train what is missing and write the study's table, results and figure anew.

    Raises DataError for unusable data, for an output folder made with other options, and for a training that fails.
    """
    study, full, output = options.chosen, options.training(), options.folder
    steps = make_shared(full, output / "shared", split=options.split)
    jobs = jobs_of(study, full, seeds=options.trainings, output=output, scoring=options.scoring)
    runner = Runner(
        output, output / "shared", processes=options.side_by_side, steps=steps, keep_weights=options.keep_weights
    )
    results = StudyResults.of(study, runner.run(jobs, progress=progress))
    files = StudyFiles(*(output / f"{study.name}{ending}" for ending in (".md", ".json", ".png")))
    replace_file(files.table, study_markdown(results).encode())
    replace_file(files.results, (json.dumps(results.to_dict(), indent=1) + "\n").encode())
    write_figure(results, files.figure)
    return files
