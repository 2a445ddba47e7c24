"""corpus_scores: published numbers, hand-computed numbers, and every way without Java."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import warnings
from collections import Counter

import pytest

from diffrgen.metrics import corpus_scores, meteor
from diffrgen.text import clean_report

NAMES = {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"}
java = pytest.mark.skipif(shutil.which("java") is None, reason="METEOR requires a Java runtime")


def quiet_scores(hypotheses, references):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return corpus_scores(hypotheses, references)


def golden_texts(folder):
    """Return the published hypotheses and their references by the published recipe."""
    studies = json.loads((folder / "annotation.json").read_text())
    with (folder / "golden_nlg_hypotheses.csv").open(newline="") as file:
        said = {row["dicom_id"]: row["report"] for row in csv.DictReader(file)}
    training = (clean_report(study["report"], rules="iu").split() for study in studies["train"])
    counts = Counter(word for words in training for word in words)
    vocabulary = {word for word, count in counts.items() if count >= 3}
    assert len(vocabulary) == 759
    references = []
    for study in studies["test"]:
        words = clean_report(study["report"], rules="iu").split()[:59]
        references.append(" ".join(word if word in vocabulary else "<unk>" for word in words))
    return [clean_report(said[study["id"]], rules="iu") for study in studies["test"]], references


@pytest.fixture
def started(monkeypatch):
    """Return the list of the processes that METEOR starts."""
    processes = []
    popen = subprocess.Popen

    def remember(*args, **kwargs):
        processes.append(popen(*args, **kwargs))
        return processes[-1]

    monkeypatch.setattr(meteor.subprocess, "Popen", remember)
    return processes


@java
def test_published_scores(shared, started, capfd):
    hypotheses, references = golden_texts(shared / "iu_xray")
    published = json.loads((shared / "iu_xray" / "golden_nlg.json").read_text())["published"]
    scores = corpus_scores(hypotheses, references)
    assert capfd.readouterr() == ("", "")
    assert len(started) == 1
    assert started[0].poll() is not None
    assert scores.keys() == published.keys()
    for name, value in published.items():
        assert scores[name] == pytest.approx(value, abs=5e-4 if name == "meteor" else 1e-4), name


def test_hand_computed_scores(no_java_once):
    # One pair of 4 against 6 words: 3 words, 1 pair match; the longest common subsequence has 3 words.
    scores = quiet_scores(["the heart is big"], ["the heart size is mildly enlarged"])
    brevity = math.exp(1 - 6 / 4)
    assert scores["bleu_1"] == pytest.approx(brevity * 3 / 4, rel=1e-6)
    assert scores["bleu_2"] == pytest.approx(brevity * math.sqrt(3 / 4 * 1 / 3), rel=1e-6)
    precision, recall = 3 / 4, 3 / 6
    assert scores["rouge_l"] == pytest.approx((1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision))
    assert scores["cider"] == 0.0


def test_cider_of_exact_copies_is_ten(no_java_once):
    texts = ["the lungs are clear today", "a large effusion is seen", "no focal consolidation or edema"]
    scores = quiet_scores(texts, texts)
    assert scores["cider"] == pytest.approx(10.0)
    assert scores["bleu_4"] == pytest.approx(1.0)
    assert scores["rouge_l"] == pytest.approx(1.0)


def test_white_space_does_not_count(no_java_once):
    assert quiet_scores([" the  heart\nis normal "], ["the heart is normal"]) == quiet_scores(
        ["the heart is normal"], ["the heart is normal"]
    )


def test_prints_nothing(no_java_once, capfd):
    quiet_scores(["a b", ""], ["a b c", "d e"])
    assert capfd.readouterr() == ("", "")


def test_all_empty_hypotheses_score_zero(no_java_once):
    scores = quiet_scores(["", " "], ["a b c", "d e"])
    assert scores == pytest.approx(dict.fromkeys(NAMES, 0.0), abs=1e-12)


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a"], ["a", "b"], "got 1 hypotheses and 2 references"),
        ([], [], "got empty lists"),
        ("a", ["a"], "got one string"),
        (["a", None], ["a", "b"], r"hypotheses\[1\] to be a string, got NoneType"),
        (["a", "b"], ["a", " "], r"references\[1\] to hold words"),
    ],
)
def test_wrong_input(hypotheses, references, message):
    with pytest.raises(ValueError, match=message):
        corpus_scores(hypotheses, references)


def test_without_java_one_warning_and_no_number(no_java_once):
    with pytest.warns(RuntimeWarning, match="no `java`") as caught:
        scores = corpus_scores(["a b"], ["a b"])
    assert scores.keys() == NAMES
    assert len(caught) == 1


def test_without_jar_no_number(monkeypatch):
    monkeypatch.setattr(meteor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(meteor.shutil, "which", lambda *_, **__: "/bin/java")
    with pytest.warns(RuntimeWarning, match="reinstall pycocoevalcap"):
        assert "meteor" not in corpus_scores(["a b"], ["a b"])


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no heap left >&2; exit 1", "no heap left"),
        ("read line; echo 1.0 2.0; exit 0", "left no message"),
        ("while read line; do echo nonsense; echo nonsense; done", "could not convert"),
    ],
)
def test_broken_java_gives_its_reason(monkeypatch, script, reason):
    monkeypatch.setattr(meteor, "_command", lambda: ["/bin/sh", "-c", script])
    with pytest.warns(RuntimeWarning, match=reason):
        assert "meteor" not in corpus_scores(["a b", "c"], ["a b", "c"])


def test_hanging_java_is_ended(monkeypatch):
    monkeypatch.setattr(meteor, "_command", lambda: ["/bin/sh", "-c", "exec sleep 600"])
    with pytest.raises(meteor.MeteorUnavailable, match=r"within 0\.2 s"):
        meteor.meteor_score(["a"], ["a"], timeout=0.2)


def test_protocol_is_safe_from_its_own_marks(monkeypatch, started, tmp_path):
    heard = tmp_path / "heard"
    script = f"""while read -r line; do echo "$line" >> {heard}
        case $line in EVAL*) echo 0.1; echo 0.2; echo 0.7;; *) echo 1.0 2.0;; esac; done"""
    monkeypatch.setattr(meteor, "_command", lambda: ["/bin/sh", "-c", script])
    assert meteor.meteor_score(["the ||| heart\nis big", ""], ["a b", "c"]).score == 0.7
    assert heard.read_text().splitlines() == [
        "SCORE ||| a b ||| the heart is big",
        "SCORE ||| c |||",
        "EVAL ||| 1.0 2.0 ||| 1.0 2.0",
    ]
    assert started[0].poll() is not None
