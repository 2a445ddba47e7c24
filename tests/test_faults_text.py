"""Texts as tables, editors and other people's programs write them: each fault of a kind is refused by name, or mended."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import growth
import pytest
from iu_archive import write_openi
from mimic_archive import write_archive

from diffrgen.errors import DataError
from diffrgen.evaluation.dump import ScoreOptions, score_predictions
from diffrgen.evaluation.predictions import Prediction, read_predictions
from diffrgen.labels import FINDINGS, RuleLabeler
from diffrgen.labels.sentences import split_sentences
from diffrgen.metrics import corpus_scores, meteor
from diffrgen.phantom.language import reading
from diffrgen.phantom.language.codebook import load_codebook
from diffrgen.preparation import IuXrayOptions, MimicCxrOptions, prepare_iu_xray, prepare_mimic_cxr
from diffrgen.preparation.sections import choose_text
from diffrgen.records import read_annotation
from diffrgen.records.lines import text_lines
from diffrgen.text import load_tokenizer

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on processor time is Linux's")
FAULTS = Path(__file__).resolve().parents[2] / "shared" / "faults"
# What str.splitlines cuts at, and no file format does.
SEPARATORS = ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e")
STUDY = {"id": "a", "report": "Clear lungs.", "image_path": "a.png"}


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def annotation(folder: Path, **splits: Any) -> Path:
    return written(folder / "annotation.json", json.dumps(splits))


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_end_at_line_feeds_alone(tmp_path: Path, separator: str, end: str) -> None:
    texts = [f"one{separator}two", "three"]
    expected = [Prediction(None, text, "x") for text in texts]
    records = [json.dumps({"report": text, "gt": "x"}, ensure_ascii=False) for text in texts]
    if ord(separator) > 31:  # JSON does not allow a control character as it is
        assert read_predictions(written(tmp_path / "a.jsonl", end.join([*records, ""]))) == expected
    for name, mark in (("a.csv", ","), ("a.tsv", "\t")):
        table = [f"report{mark}gt", *(f"{text}{mark}x" for text in texts), ""]
        assert read_predictions(written(tmp_path / name, end.join(table))) == expected
    assert text_lines(end.join([*texts, ""])) == text_lines(end.join(texts)) == texts


def test_breaks_within_quotes_stay(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'report,gt\r\n"one\r\ntwo\rthree\nfour",x\r\n')
    assert read_predictions(path) == [Prediction(None, "one\r\ntwo\rthree\nfour", "x")]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1,heart, normal,y"], r"line 2: expected 3 fields as in the header, got 4; put .* double quotes"),
        (["1,x,y", "", "2,x"], r"line 4: expected 3 fields as in the header, got 2"),
        (['1,"two\nlines",y', "2,x,y,z"], r"line 4: expected 3 fields .* got 4"),
        (['1,"never closed,y', "2,x,y"], r"line 3: expected rows of \..sv, a line each, got one with unexpected end"),
        (['1,"a" b,y'], r"line 2: expected rows .* expected after"),
        (["1,a\rb,y"], r"line 2: expected rows .* new-line character"),
    ],
)
def test_a_row_that_does_not_fit_the_header_is_refused_by_its_line(
    tmp_path: Path, name: str, rows: list[str], message: str
) -> None:
    text = "\n".join(["id,hypothesis,reference", *rows])
    text = text if name == "a.csv" else text.replace(",", "\t")
    with pytest.raises(DataError, match=message):
        read_predictions(written(tmp_path / name, text))


def test_a_column_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1: expected each column once, got 'report' more than once"):
        read_predictions(written(tmp_path / "a.csv", "report,gt,report\na,b,c\n"))


def test_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    """Python keeps the last of them: a report, or a split, would be lost without a word."""
    twice = '{"a": {"report": "one", "gt": "x"}, "a": {"report": "two", "gt": "y"}}'
    with pytest.raises(DataError, match=r"a\.json: expected .* got the key 'a' more than once in an object"):
        read_predictions(written(tmp_path / "a.json", twice))
    with pytest.raises(DataError, match=r"line 2: expected a JSON object, got the key 'report' more than once"):
        read_predictions(written(tmp_path / "a.jsonl", '{"report": "one"}\n{"report": "two", "report": "three"}\n'))
    with pytest.raises(DataError, match="the key 'train' more than once"):
        read_annotation(written(tmp_path / "annotation.json", '{"train": [], "val": [], "test": [], "train": []}'))


def test_json_lines_of_either_name_and_coco(tmp_path: Path) -> None:
    record = {"image_id": 7, "caption": "edema"}
    expected = [Prediction("7", "edema", None)]
    assert read_predictions(written(tmp_path / "a.ndjson", json.dumps(record))) == expected
    assert read_predictions(written(tmp_path / "a.json", json.dumps([record]))) == expected
    whole = {"images": [{"id": 7}], "annotations": [{**record, "id": 1}]}
    assert read_predictions(written(tmp_path / "b.json", json.dumps(whole))) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.jsonl",
            '{"report": "a"}\n{"hypothesis": null, "report": "b"}',
            "line 2: expected 'hypothesis' .* got null",
        ),
        (
            "a.json",
            '[{"id": 1, "prediction": null}]',
            "record 1: expected 'prediction' to be a text, got null; leave the",
        ),
        ("a.json", '{"a": null}', "id 'a': expected 'report' to be a text, got null"),
        ("a.json", '[{"hypothesis": NaN}]', "record 1: expected 'hypothesis' to be a text, got nan"),
        ("a.jsonl", '{"report": "a"}\n{"report": ', "a.jsonl, line 2: expected a JSON object, got Expecting value"),
    ],
)
def test_a_hypothesis_that_is_missing_is_said(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_predictions(written(tmp_path / name, text))


def test_ids_that_were_written_as_floats_join(tmp_path: Path, no_java_once: None) -> None:
    data = annotation(tmp_path, train=[], test=[{**STUDY, "id": 50414267.0}, {**STUDY, "id": "51.0"}])
    path = written(tmp_path / "a.csv", "study_id,report\n50414267.0,Clear lungs.\n51,Clear lungs.\n")
    with pytest.warns(RuntimeWarning, match="METEOR"):
        scores = score_predictions(ScoreOptions(path, data=data))
    assert scores.corpus["bleu_1"] == pytest.approx(1)
    assert read_predictions(written(tmp_path / "a.json", '[{"id": 7.0, "report": "a"}]'))[0].id == "7"
    with pytest.raises(DataError, match=r"expected 'id' to be a text or an integer, got 7\.5"):
        read_predictions(written(tmp_path / "a.json", '[{"id": 7.5, "report": "a"}]'))


@pytest.mark.parametrize("empty", ["", "___", " . ", "1. ", None, float("nan")])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_report_without_a_word_is_named_before_training_or_skipped(tmp_path: Path, empty: Any, split: str) -> None:
    splits = {"train": [STUDY], "val": [], "test": []}
    splits[split] = [*splits[split], {**STUDY, "id": "b", "report": empty}]
    path = annotation(tmp_path, **splits)
    with pytest.raises(DataError, match=rf"{split}\[{len(splits[split]) - 1}\] \(id 'b'\): report without a word"):
        read_annotation(path, check_files=False)
    kept = read_annotation(path, check_files=False, skip_broken=True)
    assert ([study.id for study in kept], len(kept.skipped)) == (["a"], 1)


def test_a_record_without_the_field_report_stays_an_error(tmp_path: Path) -> None:
    path = annotation(tmp_path, train=[STUDY, {"id": "b", "image_path": "b.png"}])
    with pytest.raises(DataError, match="'report' must be a text, got no such field"):
        read_annotation(path, check_files=False, skip_broken=True)


@pytest.mark.parametrize("reference", ["", "___"])
def test_a_reference_without_a_word_is_named_before_scoring_or_skipped(
    tmp_path: Path, reference: str, no_java_once: None
) -> None:
    records = [{"id": "a", "report": "x", "gt": "Clear lungs."}, {"id": "b", "report": "x", "gt": reference}]
    path = written(tmp_path / "a.json", json.dumps(records))
    data = annotation(tmp_path, train=[], test=[STUDY, {**STUDY, "id": "b", "report": reference, "labels": [0] * 14}])
    for options in (ScoreOptions(path), ScoreOptions(path, data=data)):
        with pytest.raises(DataError, match=r"a\.json: 1 of 2 references have no word \('b'\).*--skip-broken"):
            score_predictions(options)
    path = written(tmp_path / "b.json", json.dumps([{**record, "report": "Clear lungs."} for record in records]))
    for options in (ScoreOptions(path, skip_broken=True), ScoreOptions(path, data=data, skip_broken=True)):
        with pytest.warns(match="1 of 2 references have no word .*left out of the scores"):
            scores = score_predictions(options)
        assert scores.corpus["bleu_1"] == pytest.approx(1)
        assert scores.clinical.per_finding[13].support == 1


@pytest.mark.parametrize(
    ("name", "meant"), [("valid", "val"), ("dev", "val"), ("validation", "val"), ("Test", "test"), ("TRAIN", "train")]
)
def test_a_split_of_another_name_is_said(tmp_path: Path, name: str, meant: str) -> None:
    path = annotation(tmp_path, **{"train": [STUDY], name: [{**STUDY, "id": "b"}]})
    with pytest.raises(DataError, match=f"expected the splits train, val, test, got '{name}'; rename it to '{meant}'"):
        read_annotation(path, check_files=False)


def test_records_of_no_split_are_said_and_other_fields_are_not(tmp_path: Path) -> None:
    with pytest.warns(match=r"2 record\(s\) of 'extra' are not used: the splits are train, val, test"):
        read_annotation(annotation(tmp_path, train=[STUDY], extra=[STUDY, STUDY]), check_files=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_annotation(annotation(tmp_path, train=[STUDY], version="1", authors=["A"]), check_files=False)


def test_backslashes_in_an_image_path_are_hinted_at(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"is not in the folder .* \(paths are written with /, this one has backslashes"
    ):
        read_annotation(annotation(tmp_path, train=[{**STUDY, "image_path": "p\\a.png"}]))


def test_a_token_that_is_a_line_separator_shifts_no_id(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a\u2028b", "\x85", "heart"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    assert load_tokenizer(tmp_path).convert_tokens_to_ids("heart") == 7


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b"\xff", b"{"])
def test_a_configuration_that_breaks_its_reader_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer_config\.json is not a JSON file: "):
        load_tokenizer(tmp_path)


@pytest.mark.skipif(not FAULTS.is_dir(), reason="the folder of failing inputs is not beside the checkout")
def test_the_failing_inputs(no_java_once: None) -> None:
    assert [prediction.id for prediction in read_predictions(FAULTS / "unicode_line_ends.jsonl")] == ["1", "2"]
    with pytest.raises(DataError, match="line 2: expected 3 fields as in the header, got 4"):
        read_predictions(FAULTS / "extra_field.csv")


@pytest.mark.parametrize("reader", growth.READERS)
def test_four_times_the_text_takes_four_times_the_steps(reader: str) -> None:
    """Counted in lines of Python, which does not see what a pattern does: see the next test for that."""
    read = growth.READERS[reader]
    read("no edema. FINDINGS: clear")
    for piece in (*growth.BLANKS, *growth.WORDS):
        once, four = (growth.steps(read, growth.run(piece, length)) for length in (1600, 6400))
        # Quadratic work would be 16 times as much; the remainder of the last piece of 200 words makes some difference.
        assert four <= 5.5 * once + 400, (piece, once, four)


@linux
def test_long_texts_are_read_within_processor_time_that_quadratic_work_exceeds(tmp_path: Path) -> None:
    """300,000 characters of each kind: 200 s are many times what linear readers take; one quadratic pattern takes more."""
    command = [sys.executable, str(Path(__file__).with_name("support") / "growth.py"), "300000"]
    limit = partial(resource.setrlimit, resource.RLIMIT_CPU, (200, 200))
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("done\n"), (done.stdout[-200:], done.stderr[-2000:])


def sentences_of_before(text: str) -> list[str]:
    """`split_sentences` as it was with patterns that take quadratic time."""
    flat = re.sub(r"\s*\n\s*\n\s*", " . ", text.lower())
    flat = re.sub(r"(?:^|(?<=\s))\d{1,2}[.)](?=\s)", " . ", flat.replace("\n", " "))
    flat = re.sub(r"\s*([,/:])\s*", r" \1 ", re.sub(r"[-_\"()\[\]{}]+", " ", flat))
    parts = re.split(r"(?<!\d)\.|\.(?!\d)|[!;\n]|\?(?=\s|$)", flat)
    return [sentence for sentence in (" ".join(part.split()) for part in parts) if sentence]


def test_sentences_are_those_of_before() -> None:
    random = Random(0)
    for _ in range(20_000):
        text = "".join(random.choices(" \n\t\x85.,:/;?!x1-(", k=random.randrange(24)))
        assert split_sentences(text) == sentences_of_before(text), text


def test_a_sentence_without_end_is_read_in_pieces() -> None:
    """The effusion of the 201st word begins a sentence of its own, which the denial of the 200th does not reach."""
    words = ["word"] * 199
    states = RuleLabeler()(
        [" ".join([*words, "no", "pleural effusion"]), " ".join([*words[:197], "no", "pleural effusion"])]
    )
    effusion = FINDINGS.index("pleural effusion")
    assert states[:, effusion].tolist() == [1, 2]


def test_no_wording_of_the_grammar_is_longer_than_a_clause() -> None:
    book = load_codebook()
    tail = max(len(tokens) for tokens, _ in book.tails)
    assert max(map(len, book.sentences)) + tail < reading.MOST_CLAUSE_WORDS
    assert 4 * 9 + max(map(len, book.frames)) < reading.MOST_CLAUSE_WORDS


ITEMISED = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 FINDINGS:

 LUNGS: Clear.
 HEART: Mildly enlarged.
 CHEST TUBES: None.
 RIBS/BONES: Old fracture.
 SUPPORT DEVICES:  Pacemaker.

 IMPRESSION:

 LUNGS:  No pneumonia.
 HEART:  Cardiomegaly.

 NOTIFICATION: Dr. ___ was called.
"""
ITEMS = "LUNGS: Clear. HEART: Mildly enlarged. CHEST TUBES: None. RIBS/BONES: Old fracture. SUPPORT DEVICES: Pacemaker."
SUMMARY = "LUNGS: No pneumonia. HEART: Cardiomegaly."


def test_itemised_findings_keep_all_items() -> None:
    assert choose_text(ITEMISED, "findings").text == ITEMS
    assert choose_text(ITEMISED, "impression").text == SUMMARY
    assert choose_text(ITEMISED, "both").text == f"{ITEMS} {SUMMARY}"
    begun = ITEMISED.replace("FINDINGS:\n", "FINDINGS: Two views.\n")
    assert choose_text(begun, "findings").text == f"Two views. {ITEMS}"
    titled = "FINAL REPORT\n PORTABLE CHEST:\n LUNGS: Clear.\n COMPARISON: None.\n HEART: Seen before.\n"
    assert choose_text(titled, "both").text == "LUNGS: Clear."


@pytest.mark.parametrize("name", ["RECOMMENDATIONS", "NOTIFICATION", "HISTORY", "COMPARISON", "PORTABLE CHEST", "DATE"])
def test_what_is_no_item_ends_the_findings(name: str) -> None:
    report = f"FINAL REPORT\n FINDINGS: Clear.\n {name}: Something else.\n IMPRESSION: Normal.\n"
    assert choose_text(report, "findings").text == "Clear."


def test_files_that_macos_leaves_beside_xml_are_left_out(tmp_path: Path) -> None:
    archive = write_openi(tmp_path / "archive", packed=False)
    folder = next(archive.rglob("*.xml")).parent
    plain = prepare_iu_xray(IuXrayOptions(archive, tmp_path / "plain", min_images=1)).kept
    for path in list(folder.glob("*.xml")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    beside = prepare_iu_xray(IuXrayOptions(archive, tmp_path / "beside", min_images=1)).kept
    assert {split: count.studies for split, count in beside.items()} == {
        split: count.studies for split, count in plain.items()
    }
    assert sum(count.studies for count in plain.values()) > 0


def test_ids_of_mimic_that_were_written_as_floats_join(tmp_path: Path) -> None:
    """Every table through a table program that makes floats of integers, on its own: the annotation stays the same."""
    plain = write_archive(tmp_path / "plain", end=".csv")
    prepare_mimic_cxr(MimicCxrOptions(plain, tmp_path / "expected"))
    expected = (tmp_path / "expected" / "annotation.json").read_bytes()
    for table in ("metadata", "chexpert", "split"):
        archive = write_archive(tmp_path / table, end=".csv")
        path = next(archive.rglob(f"*{table}.csv"))
        rows = [row.split(",") for row in path.read_text().splitlines()]
        whole = [rows[0].index(name) for name in ("subject_id", "study_id", "StudyDate") if name in rows[0]]
        floats = [[f"{cell}.0" if at in whole and cell else cell for at, cell in enumerate(row)] for row in rows[1:]]
        path.write_text("\n".join(",".join(row) for row in [rows[0], *floats]) + "\n")
        prepare_mimic_cxr(MimicCxrOptions(archive, tmp_path / f"out-{table}"))
        assert (tmp_path / f"out-{table}" / "annotation.json").read_bytes() == expected, table


def test_meteor_waits_by_size_and_by_how_busy_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor.os, "cpu_count", lambda: 2)
    for load, texts, expected in ((0.1, 0, 120), (2.0, 1000, 130), (16.0, 0, 960)):
        monkeypatch.setattr(meteor.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert meteor.patience(texts) == pytest.approx(expected)
    monkeypatch.setenv(meteor.TIMEOUT_VARIABLE, "7.5")
    assert meteor.patience(10_000) == 7.5
    for wrong in ("soon", "-1", "0", "nan", "inf"):
        monkeypatch.setenv(meteor.TIMEOUT_VARIABLE, wrong)
        with pytest.raises(meteor.MeteorUnavailable, match="expected DIFFRGEN_METEOR_TIMEOUT to be a number of seconds above 0"):
            meteor.patience(1)
    with pytest.warns(RuntimeWarning, match="METEOR is not scored: expected DIFFRGEN_METEOR_TIMEOUT .* got 'inf'"):
        scores = corpus_scores(["no effusion ."], ["no effusion ."])
    assert scores["bleu_1"] == pytest.approx(1.0)
    assert "meteor" not in scores


def test_meteor_that_answers_is_not_ended_however_long_it_takes_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands still between answers, each of which sets the time from which on silence counts."""
    now = [0.0]
    monkeypatch.setattr(meteor.time, "monotonic", lambda: now[0])
    script = 'for i in 1 2 3 4 5 6; do read line; echo "1.0 1.0 1.0"; done; read line; for i in 1 2 3 4 5 6 7; do echo 0.5; done'
    monkeypatch.setattr(meteor, "_command", lambda: ["/bin/sh", "-c", script])
    read = meteor.Answers.readline

    def slowly(answers: meteor.Answers) -> str:
        now[0] += 60
        return read(answers)

    monkeypatch.setattr(meteor.Answers, "readline", slowly)
    assert meteor.meteor_score(["a"] * 6, ["a"] * 6, timeout=100).score == 0.5
    assert now[0] == 13 * 60


@pytest.mark.skipif(not FAULTS.is_dir(), reason="the folder of failing inputs is not beside the checkout")
def test_the_failing_archive(tmp_path: Path) -> None:
    summary = prepare_iu_xray(IuXrayOptions(FAULTS / "iu_appledouble", tmp_path / "out", min_images=1))
    assert summary.entries == 3
