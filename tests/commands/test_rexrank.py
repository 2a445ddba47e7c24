"""ReXrank's file in and out: every record comes back with the report that the run writes for its images."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from diffrgen import rexrank
from diffrgen.command import run_command
from diffrgen.evaluation.columns import ColumnOptions
from diffrgen.evaluation.predictions import read_prediction_file
from diffrgen.evaluation.rexrank import ReXrankOptions, _study
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.reporting.reporter import Reporter


def record(*paths: str, **more: Any) -> dict[str, Any]:
    return {
        "image_path": list(paths),
        "key_image_path": paths[0],
        "context": "Age:60-70.Gender:M.Indication: cough.Comparison: None.",
        "frontal_lateral": ["frontal"] * len(paths),
        "section_findings": "Clear lungs, no edema.",
        "section_impression": float("nan"),
        "split": "test",
        **more,
    }


def run(folder: Path, run_folder: Path, content: object, *more: str) -> int:
    (folder / "in.json").write_text(json.dumps(content))
    files = ["--input-json", str(folder / "in.json"), "--save-json", str(folder / "out.json")]
    options = ["--img-root", str(run_folder.parent / "studies"), "--generation.beams", "1", *more]
    return run_command(partial(rexrank.main, [str(run_folder), *files, *options]))


def test_every_record_gets_the_report_of_its_image(tiny_run: Path, tmp_path: Path) -> None:
    content = {
        "s3": record("/3.png"),
        # The key image is not the first one.
        "s1": record("/0.png", "1.png", key_image_path="1.png", subject_id=7),
        "s2": record("/0.png", "2.png", key_image_path="", frontal_lateral=["lateral", "frontal"]),
    }
    assert run(tmp_path, tiny_run, content) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert list(written) == ["s3", "s1", "s2"]
    studies = tiny_run.parent / "studies"
    reporter = Reporter(tiny_run)
    for name, number in (("s3", 3), ("s1", 1), ("s2", 2)):
        (expected,) = reporter.write([studies / f"{number}.png"], GenerationOptions(beams=1))
        assert written[name].pop("model_prediction") == expected.report
        assert str(written[name]) == str(content[name])
    columns = ColumnOptions(sections="findings")
    found = read_prediction_file(tmp_path / "out.json", columns).predictions
    assert [(each.id, each.reference) for each in found] == [(name, "Clear lungs, no edema.") for name in content]


def test_a_run_of_several_views_gets_all_images_up_to_its_number() -> None:
    options = ReXrankOptions(Path("run"), Path("in.json"), Path("out.json"), Path("root"))
    content = record("/a.png", "/b.png", "/c.png", frontal_lateral=["lateral", "frontal", "AP"])
    study = _study("s", content, options, views=2, states=(0,) * 14)
    assert study.images == (Path("root/a.png"), Path("root/b.png"))
    assert study.views == ("lateral", "frontal")
    assert _study("s", content, options, views=4, states=(0,) * 14).views == ("lateral", "frontal", "frontal")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected an object of records by study id, got list of no study"),
        ({}, "expected an object of records by study id, got dict of no study"),
        ({"s": "x"}, "study 's': expected an object with image_path, got str"),
        ({"s": {"image_path": []}}, r"study 's': expected image_path as a list of paths, got []"),
        ({"s": record("../../secret.png")}, "expected a path below --img-root, got image path '../../secret.png' leaves"),
        ({"s": record("/0.png"), "t": record("/none.png")}, "1 image(s) cannot be read, such as"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_a_report(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, message: str
) -> None:
    assert run(tmp_path, tiny_run, content) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_no_file_is_overwritten(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(__file__, tmp_path / "out.json")
    assert run(tmp_path, tiny_run, {"s": record("/0.png")}) == 2
    assert "needed a new file, got one that exists" in capsys.readouterr().err
