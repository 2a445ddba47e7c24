"""What is told of the data: counts by hand, and never where they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

from diffrgen.labels import RuleLabeler
from diffrgen.pipeline.data_summary import DataSummary, SplitSummary
from diffrgen.pipeline.labeler import NamedLabeler
from diffrgen.pipeline.options import DataOptions
from diffrgen.pipeline.source import StudySource
from diffrgen.records import Study, StudySplits


def study(name, split, *, patient=None, days=None, prior=None, images=1):
    paths = tuple(Path(f"{name}-{number}.png") for number in range(images))
    return Study(name, "clear .", paths, split, (0,) * 14, patient, days, None, prior)


def source_of(annotation: Path) -> StudySource:
    train = (
        study("a", "train", patient="p", days=1.0),
        study("b", "train", patient="p", days=2.0, prior="a", images=2),
        study("c", "train", patient="q", prior="elsewhere"),
    )
    val = (study("d", "val", patient="p", days=3.0, prior="b"), study("e", "val"))
    splits = StudySplits(annotation, train, val, (), skipped=("one", "two"))
    return StudySource(splits, NamedLabeler("rule", RuleLabeler()), unlabelled=frozenset({"b", "d", "e"}))


def test_counts_of_each_split(tmp_path):
    path = tmp_path / "mimic" / "annotation.json"
    path.parent.mkdir()
    path.write_bytes(b"{}")
    assert DataSummary.of(DataOptions(str(path)), source_of(path)) == DataSummary(
        name="mimic/annotation.json",
        sha256=hashlib.sha256(b"{}").hexdigest(),
        splits={
            "train": SplitSummary(3, 4, patients=2, dated=2, followed=1, labels="data, rule for 1 of 3 studies"),
            "val": SplitSummary(2, 2, patients=None, dated=1, followed=0, labels="rule"),
            "test": SplitSummary(0, 0, patients=0, dated=0, followed=0, labels="data"),
        },
        skipped=2,
    )


def test_the_phantom_has_a_name_and_no_file(tmp_path):
    summary = DataSummary.of(DataOptions("phantom"), source_of(tmp_path / "absent.json"))
    assert (summary.name, summary.sha256) == ("phantom", None)
