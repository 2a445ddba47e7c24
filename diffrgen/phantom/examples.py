"""A few of a phantom's test studies, drawn separately: the same bytes as in the complete data set."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from diffrgen.phantom.options import PhantomOptions
from diffrgen.phantom.patients.patient import study_counts
from diffrgen.phantom.write import Record, make_patient, split_patients


def draw_examples(folder: Path, options: PhantomOptions, patients: int) -> list[list[Record]]:
    """Draw the first `patients` patients of the test split; return the records of each, in the order of their days.

    Images go to `folder`, which must exist. Every second patient has a prior study, if the split has enough of them.
    """
    counts = study_counts(options)
    test = [index for index, split in enumerate(split_patients(counts, options.seed)) if split == "test"]
    followed = iter([index for index in test if counts[index] > 1])
    single = iter([index for index in test if counts[index] == 1])
    mixed = [index for pair in zip(single, followed, strict=False) for index in pair]
    rest = [index for index in test if index not in mixed]
    return [make_patient(folder, options, index, counts[index]) for index in islice([*mixed, *rest], patients)]
