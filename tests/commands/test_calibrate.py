"""`python -m diffrgen.calibrate`, and the commands that give the confidence of a calibrated run."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_training

from diffrgen import calibrate, evaluate, generate
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.evaluation import calibrate as calibration_of_runs
from diffrgen.labels import DISEASES
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.reporting.calibration import FILE, read_calibration
from diffrgen.reporting.confidence import NotMentioned, SentenceConfidence
from diffrgen.reporting.rater import SentenceRater
from diffrgen.reporting.writer import GeneratedReport

pytestmark = pytest.mark.usefixtures("no_java")
GREEDY = ("--generation.beams", "1")


def made_up_reports(model, dataset, options, *, labeler, workers, rater) -> list[GeneratedReport]:
    """For each study a true and a false sentence about each finding, the true ones with the surer classifier."""
    assert rater.calibration is None
    reports = []
    for study in dataset.studies:
        states = dict(zip(DISEASES, rater.labeler([study.report])[0], strict=False))
        sentences = []
        for name, state in states.items():
            for said in ("positive", "negative"):
                true = (state == 1) == (said == "positive")
                agreement = 0.9 if true else 0.2
                sentences.append(SentenceConfidence(name, 0, 0, {name: said}, None, -0.5, -1.0, agreement, 0.5))
        zeros = dict.fromkeys(DISEASES, 0.0)
        reports.append(GeneratedReport("", dict.fromkeys(DISEASES, "blank"), zeros, (), (), confidence=tuple(sentences)))
    return reports


@pytest.fixture(scope="module")
def calibrated_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run, calibrated on sentences that are true where the classifier says so."""
    run = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("calibrated") / "run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration_of_runs, "write_reports", made_up_reports)
        assert calibrate.main([str(run), *GREEDY]) == 0
    return run


def test_the_calibration_is_kept_with_its_cross_fitted_scores(calibrated_run):
    calibration = read_calibration(RunFolder(calibrated_run))
    assert (calibration.split, calibration.data, calibration.studies) == ("val", None, 4)
    # 26 sentences a study, one of each pair true: the 52 true ones and the 52 false ones are told apart.
    assert calibration.rated == 104
    probabilities = calibration.sentences.probabilities
    assert (probabilities[0], probabilities[-1]) == pytest.approx((1 / 53, 52 / 53))
    assert calibration.decoding.beams == 1
    scores = calibration.cross_fitted
    assert (scores["sentences"], scores["share_true"], scores["surer_half"], scores["other_half"]) == (104, 0.5, 0.0, 1.0)
    assert scores["ece"] == pytest.approx(1 / 27, abs=5e-4)  # by half of the sentences


def test_a_calibration_is_not_replaced_unasked(calibrated_run, capsys):
    before = (calibrated_run / FILE).read_bytes()
    assert run_command(lambda: calibrate.main([str(calibrated_run), *GREEDY])) == 2
    assert "already calibrated; pass --overwrite" in capsys.readouterr().err
    assert (calibrated_run / FILE).read_bytes() == before


def test_reports_that_teach_nothing_leave_no_calibration(own_run, capsys):
    assert run_command(lambda: calibrate.main([str(own_run), *GREEDY])) == 2
    message = capsys.readouterr().err
    assert "a calibration needs at least 20 true and 20 false sentences" in message
    assert "Traceback" not in message
    assert not (own_run / FILE).exists()


def test_evaluation_says_that_it_scores_what_the_calibration_was_fitted_on(calibrated_run, tmp_path, capsys):
    folder = tmp_path / "scores"
    command = [str(calibrated_run), "--split", "val", "--output", str(folder), "--no-baselines", *GREEDY]
    assert evaluate.main(command) == 0
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    rated = [one for line in lines for one in line["confidence"] if one["findings"]]
    metrics = json.loads((folder / "metrics.json").read_text())["DiffRGenNet"]
    for line in lines:
        assert [line["hypothesis"][one["start"] : one["end"]] for one in line["confidence"]] == [
            one["text"] for one in line["confidence"]
        ]
    assert all(0 <= one["probability"] <= 1 for one in rated)
    assert ("confidence" in metrics) == bool(rated)
    if rated:
        assert metrics["confidence"]["sentences"] == len(rated)
        assert metrics["confidence"]["fitted_on_these_studies"]
        assert "the scores are optimistic" in " ".join(capsys.readouterr().out.split())
        assert (folder / "confidence.png").stat().st_size > 5_000


def test_generate_marks_doubtful_sentences_and_leaves_none_out(calibrated_run, finished_run, tmp_path, capsys):
    image = str(finished_run.parent / "data" / "16.png")
    said = []
    for run, more in ((finished_run, ()), (calibrated_run, ("--abstain", "1"))):
        assert generate.main([str(run), image, "--json", *GREEDY, *more]) == 0
        said.append(json.loads(capsys.readouterr().out))
    plain, marked = said
    assert "confidence" not in plain
    assert marked["abstain"] == 1
    assert marked["report"] == plain["report"]
    assert [one["text"] for one in marked["confidence"]] == [one["text"] for one in plain["sentences"]]
    assert [one["doubtful"] for one in marked["confidence"]] == [bool(one["findings"]) for one in marked["confidence"]]
    assert generate.main([str(calibrated_run), image, "--abstain", "1", "--html", str(tmp_path / "page"), *GREEDY]) == 0
    printed = capsys.readouterr().out
    page = (tmp_path / "page" / "16.html").read_text()
    doubtful = sum(one["doubtful"] for one in marked["confidence"])
    assert printed.count("doubtful: ") == page.count('<small class="confidence">doubtful: ') == doubtful
    assert page.count('<small class="confidence">') == len(marked["confidence"])


def test_hospital_files_mark_doubtful_sentences_and_name_what_is_not_mentioned(
    calibrated_run, tmp_path, capsys, monkeypatch
):
    pydicom = pytest.importorskip("pydicom", reason="clinical files need the extra diffrgen[clinical]")
    pytest.importorskip("fhir.resources", reason="clinical files need the extra diffrgen[clinical]")
    from clinical_files import radiograph

    rate, left_out = SentenceRater.rate, (NotMentioned("fracture", 0.75),)
    # As the run's own rater says, but for what is not mentioned: that of so small a run is nothing.
    monkeypatch.setattr(SentenceRater, "rate", lambda *given: replace(rate(*given), not_mentioned=left_out))
    exported = ["--dicom-sr", str(tmp_path / "sr"), "--fhir", str(tmp_path / "report.json")]
    command = [str(calibrated_run), str(radiograph(tmp_path / "a.dcm")), "--json", "--abstain", "1", *GREEDY, *exported]
    assert generate.main(command) == 0
    said = json.loads(capsys.readouterr().out)["confidence"]
    words = [f"doubtful: {one['probability']:.0%} likely to be true" if one["doubtful"] else "" for one in said]
    words_left_out = "Not mentioned, although the classifier is confident: fracture (75%)"
    (document,) = (pydicom.dcmread(path) for path in (tmp_path / "sr").iterdir())
    *items, comment = document.ContentSequence[-1].ContentSequence
    assert comment.TextValue == words_left_out
    certainty = [[child.TextValue for child in item.ContentSequence if "TextValue" in child] for item in items]
    assert certainty == [[word] if word else [] for word in words]
    notes = [f"Sentence {number}: {word}" for number, word in enumerate(words, 1) if word]
    report = json.loads((tmp_path / "report.json").read_text())
    assert [each["valueAnnotation"]["text"] for each in report["extension"]] == [*notes, words_left_out]
    assert report["conclusion"] == " ".join(f"{o['text']} [{w}]" if w else o["text"] for o, w in zip(said, words, strict=True))
    assert notes


@pytest.mark.parametrize("abstain", [1.5, -0.1, math.nan])
def test_a_threshold_that_is_no_probability_is_refused(abstain):
    with pytest.raises(DataError, match=r"--abstain: expected .*, got"):
        generate.GenerateOptions(Path("run"), abstain=abstain)


def test_sentences_of_a_run_without_calibration_cannot_be_marked(finished_run, capsys):
    image = str(finished_run.parent / "data" / "16.png")
    assert run_command(lambda: generate.main([str(finished_run), image, "--abstain", "0.5"])) == 2
    assert "--abstain requires a calibrated run; calibrate this run with: python -m diffrgen.calibrate" in capsys.readouterr().err


def test_new_weights_end_a_calibration(calibrated_run, tmp_path):
    """A training that goes on and keeps better weights removes what was learned from the reports of the old ones."""
    run = Path(shutil.copytree(calibrated_run, tmp_path / "run"))
    weights = (run / "model.safetensors").read_bytes()
    assert tiny_training.start(run.parent, run, "--max-steps", "8") == 0
    assert ((run / "model.safetensors").read_bytes() == weights) == (run / FILE).exists()
