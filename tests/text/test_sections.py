"""Findings and impression as two outputs of one run: tokens, generated files, scores, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch

from diffrgen import evaluate, generate, rexrank
from diffrgen.errors import DataError
from diffrgen.evaluation.columns import ColumnOptions
from diffrgen.evaluation.predictions import read_prediction_file
from diffrgen.labels import RuleLabeler
from diffrgen.metrics import corpus_scores
from diffrgen.model import DiffRGenForReportGeneration, GeneratedReports
from diffrgen.phantom import GrammarParser, PhantomOptions
from diffrgen.pipeline.options import DataOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.source import load_source
from diffrgen.text import (
    ReportSections,
    apply_protocol,
    decode_report,
    load_tokenizer,
    section_ids,
    split_sections,
    token_spans,
    train_tokenizer,
    with_impression_token,
)

FINDINGS, IMPRESSION = "the heart is large . no effusion .", "mild cardiomegaly ."
TOGETHER = f"{FINDINGS} {IMPRESSION}"


def test_the_token_between_the_sections_is_no_word_of_either(tmp_path: Path) -> None:
    plain = train_tokenizer([TOGETHER] * 2, vocab_size=300)
    assert split_sections(plain, plain(TOGETHER, add_special_tokens=False).input_ids) is None
    with_impression_token(plain).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    ids = section_ids(tokenizer, ReportSections(FINDINGS, IMPRESSION))
    (begin,) = [place for place, token in enumerate(tokenizer.convert_ids_to_tokens(ids)) if token == "[IMPRESSION]"]
    assert decode_report(tokenizer, ids[:begin]) == FINDINGS
    assert decode_report(tokenizer, ids[begin + 1 :]) == IMPRESSION
    assert split_sections(tokenizer, [*ids, tokenizer.sep_token_id]) == (FINDINGS, IMPRESSION)
    assert decode_report(tokenizer, ids) == TOGETHER
    # A findings section without a last stop ends before the token all the same, and a second token changes nothing.
    cut = [*ids[: begin - 1], *ids[begin:], ids[begin]]
    told = [decode_report(tokenizer, cut[start:end]) for start, end in token_spans(tokenizer, cut)]
    assert told == ["the heart is large .", "no effusion", "mild cardiomegaly ."]
    assert split_sections(tokenizer, cut) == ("the heart is large . no effusion", IMPRESSION)
    assert split_sections(tokenizer, ids[:begin]) == (FINDINGS, "")
    assert split_sections(tokenizer, ids[begin:]) == ("", IMPRESSION)


def test_sections_join_at_a_stop() -> None:
    assert ReportSections(" Clear lungs", "No acute disease. ").text == "Clear lungs. No acute disease."
    assert ReportSections("Clear lungs?", "Normal.").text == "Clear lungs? Normal."
    assert (ReportSections("", "Normal").text, ReportSections("Clear.", "").text) == ("Normal", "Clear.")


def test_a_phantom_study_has_an_impression_that_agrees_with_its_report() -> None:
    options = PhantomOptions(studies=40, seed=6, size=64)
    source = load_source(DataOptions(), options, sections=True)
    plain = load_source(DataOptions(), options).splits.by_id()
    parser, told = GrammarParser(), 0
    for study in source.splits:
        assert study.sections.findings == plain[study.id].report
        assert study.report == f"{study.sections.findings} {study.sections.impression}"
        assert parser.parse(study.report).labels == study.labels
        impression = parser.parse(study.sections.impression)
        whole = parser.parse(study.sections.findings)
        assert impression.unmatched == 0 or not impression.findings
        assert len(impression.findings) <= 3
        for name, reading in impression.findings.items():
            assert reading == whole.findings[name]
        told += len(impression.findings)
    assert told > 20


@pytest.fixture(scope="module")
def sections_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of twelve steps that writes findings and impression; every fourth study has no impression."""
    folder = tmp_path_factory.mktemp("sections")
    data = tiny_training.write_studies(folder / "studies")
    splits = json.loads(data.read_text())
    for studies in splits.values():
        for number, study in enumerate(studies):
            study["findings"] = study["report"]
            study["impression"] = "" if number % 4 == 3 else "Edema. No fracture."
    data.write_text(json.dumps(splits))
    options = ["--text.sections", "findings", "impression", "--text.max-tokens", "40"]
    assert tiny_training.start(data, folder / "run", *options) == 0
    return folder / "run"


@pytest.fixture
def writes(sections_run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that has the network write the given sections for every image."""
    tokenizer, write = RunFolder(sections_run).tokenizer(), DiffRGenForReportGeneration.write_reports

    def patch(*sections: str) -> None:
        ids = torch.tensor([*section_ids(tokenizer, ReportSections(*sections)), tokenizer.sep_token_id])

        def patched(*arguments: Any, **options: Any) -> GeneratedReports:
            generated = write(*arguments, **options)
            return replace(generated, sequences=ids.expand(len(generated.sequences), -1))

        monkeypatch.setattr(DiffRGenForReportGeneration, "write_reports", patched)

    return patch


def test_the_decoder_learns_both_sections_and_retrieval_sees_no_token(sections_run: Path) -> None:
    run = RunFolder(sections_run)
    settings, config = run.settings(), run.model().config
    assert settings.sections == ("findings", "impression")
    source = load_source(settings.data, settings.phantom, sections=True)
    dataset = run.dataset(config, settings, source, source.splits.val, key="val")
    tokenizer = dataset.settings.tokenizer
    for study, report, labels in zip(dataset.studies, dataset.reports, dataset.labels, strict=True):
        assert split_sections(tokenizer, labels.tolist()) == dataset.sections[dataset.studies.index(study)]
        assert decode_report(tokenizer, labels) == report
    index = run.index().studies
    assert not any("impression" in index.report(row) for row in range(len(index)))
    assert any(index.report(row).endswith("edema . no fracture .") for row in range(len(index)))


def test_both_sections_are_generated_and_named(
    sections_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], writes: Callable[..., None]
) -> None:
    writes(FINDINGS, IMPRESSION)
    image = sections_run.parent / "studies" / "0.png"
    arguments = [str(sections_run), str(image), "--generation.beams", "1"]
    assert generate.main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sections"] == {"findings": FINDINGS, "impression": IMPRESSION}
    assert report["report"] == TOGETHER
    named = [(sentence["section"], sentence["text"]) for sentence in report["sentences"]]
    assert named == [("findings", "the heart is large ."), ("findings", "no effusion ."), ("impression", IMPRESSION)]
    assert generate.main([*arguments, "--html", str(tmp_path / "page")]) == 0
    printed = capsys.readouterr().out
    assert printed.index("FINDINGS") < printed.index("no effusion") < printed.index("IMPRESSION") < printed.index("mild")
    (page,) = (path.read_text(encoding="utf-8") for path in (tmp_path / "page").glob("*.html"))
    items = page.split("<li")
    assert [items.index(item) for item in items if '<b class="section">' in item] == [1, 3]
    assert '<b class="section">Impression</b><span class="sentence-text">Mild cardiomegaly.' in items[3]


def test_rexrank_gets_the_headings_of_its_references(
    sections_run: Path, tmp_path: Path, writes: Callable[..., None]
) -> None:
    writes(FINDINGS, IMPRESSION)
    record = {"image_path": ["0.png"], "section_findings": "Clear.", "section_impression": "Normal."}
    (tmp_path / "in.json").write_text(json.dumps({"s": record}))
    files = ["--input-json", str(tmp_path / "in.json"), "--save-json", str(tmp_path / "out.json")]
    root = ["--img-root", str(sections_run.parent / "studies"), "--generation.beams", "1"]
    assert rexrank.main([str(sections_run), *files, *root]) == 0
    (found,) = read_prediction_file(tmp_path / "out.json", ColumnOptions(sections="impression")).predictions
    assert (found.hypothesis, found.reference) == (IMPRESSION, "Normal.")


def test_each_section_is_scored_alone_and_both_together(
    sections_run: Path, tmp_path: Path, no_java: None, writes: Callable[..., None]
) -> None:
    writes("edema . no fracture .", "no fracture . edema .")
    out = tmp_path / "scores"
    command = [str(sections_run), "--split", "val", "--generation.beams", "1", "--output", str(out), "--resamples", "0"]
    assert evaluate.main(command) == 0
    rows = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    records = json.loads((sections_run.parent / "studies" / "annotation.json").read_text())["val"]
    assert [line["reference_sections"]["impression"] for line in lines] == ["edema . no fracture ."] * 3 + [""]
    assert all(line["sections"] == {"findings": "edema . no fracture .", "impression": "no fracture . edema ."} for line in lines)
    truth = {
        "DiffRGenNet": [ReportSections(record["findings"], record["impression"]).text for record in records],
        "DiffRGenNet, findings": [record["findings"] for record in records],
        # The fourth study has no impression.
        "DiffRGenNet, impression": [record["impression"] for record in records[:3]],
    }
    said = {
        "DiffRGenNet": "edema . no fracture . no fracture . edema .",
        "DiffRGenNet, findings": "edema . no fracture .",
        "DiffRGenNet, impression": "no fracture . edema .",
    }
    for row, references in truth.items():
        expected = corpus_scores(*apply_protocol("promptmrg", [said[row]] * len(references), references))
        assert rows[row]["nlg"] == pytest.approx(expected)
        assert f"| {row} |" in (out / "table.md").read_text(encoding="utf-8")
    # In all three references edema is positive and a fracture negative, as in what is generated.
    assert RuleLabeler()(["edema. no fracture."])[0].nonzero()[0].tolist() == [4, 11]
    assert rows["DiffRGenNet, impression"]["clinical_13"]["micro"]["f1"] == 1.0
    assert rows["DiffRGenNet, impression"]["truth"] == "rule"


def test_records_without_the_fields_and_one_section_alone_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny_training.write_studies(tmp_path / "studies")
    with pytest.raises(DataError, match=r"needed the text field findings or impression .* got neither in 20"):
        tiny_training.start(data, tmp_path / "run", "--text.sections", "findings", "impression")
    with pytest.raises(SystemExit, match="2"):
        tiny_training.start(data, tmp_path / "run", "--text.sections", "impression")
    assert "--text.sections: expected `findings impression`" in capsys.readouterr().err
