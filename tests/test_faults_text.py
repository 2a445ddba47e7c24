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

from diffrgen.errors import DataError
from diffrgen.evaluation.dump import ScoreOptions, score_predictions
from diffrgen.evaluation.predictions import Prediction, read_predictions
from diffrgen.labels import FINDINGS, RuleLabeler
from diffrgen.labels.sentences import split_sentences
from diffrgen.phantom.language import reading
from diffrgen.phantom.language.codebook import load_codebook
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
    for key, text in growth.texts(1600, frames=("{}", "FINDINGS:{}x")).items():
        once, four = (growth.steps(read, text * times) for times in (1, 4))
        # Quadratic work would be 16 times as much; the remainder of the last piece of 200 words makes some difference.
        assert four <= 5.5 * once + 400, (key, once, four)


@linux
def test_long_texts_are_read_within_processor_time_that_quadratic_work_exceeds(tmp_path: Path) -> None:
    """100,000 characters of each kind: 200 s are many times what linear readers take, and a fraction of what others would."""
    command = [sys.executable, str(Path(__file__).with_name("growth.py")), "100000"]
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
