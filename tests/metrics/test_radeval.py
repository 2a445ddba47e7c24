"""The adapter to radeval: a stand-in of its interface, and every way without it."""

from __future__ import annotations

import json
import sys
import types
import warnings

import pytest

from diffrgen.evaluate import main
from diffrgen.metrics import radeval_intervals, radeval_scores
from diffrgen.metrics.bootstrap import mean_interval


class StandIn:
    """RadEval of radeval 2: metrics by name, then refs and hyps as lists, a flat dict of numbers."""

    def __init__(self, metrics=None, per_sample=False, detailed=False, show_progress=True):
        warnings.filterwarnings("ignore")
        self.metrics, self.per_sample = metrics, per_sample
        if metrics == ["green"]:
            raise OSError("cannot   reach\nthe hub")

    def __call__(self, refs, hyps):
        assert isinstance(refs, list)
        assert isinstance(hyps, list)
        if self.per_sample:
            each = [float(ref == hyp) for ref, hyp in zip(refs, hyps, strict=True)]
            # The second level's score is not the mean of its studies, as micro-F1 is not.
            return {f"{self.metrics[0]}_simple": each, f"{self.metrics[0]}_partial": [0.1] * len(refs), "acc": each}
        same = sum(map(str.__eq__, refs, hyps)) / len(refs)
        return {f"{self.metrics[0]}_{level}": same for level in ("simple", "partial")} | {"references": len(refs[0])}


@pytest.fixture
def stand_in(monkeypatch):
    module = types.ModuleType("radeval")
    module.RadEval = StandIn
    monkeypatch.setitem(sys.modules, "radeval", module)
    monkeypatch.setitem(sys.modules, "RadEval", module)


@pytest.mark.usefixtures("stand_in")
def test_scores_have_radevals_names_and_sides():
    filters = list(warnings.filters)
    scores = radeval_scores(["edema", "a"], ["no edema", "a"], ["radgraph"])
    assert scores == {"radgraph_simple": 0.5, "radgraph_partial": 0.5, "references": 8.0}
    assert warnings.filters == filters


@pytest.mark.usefixtures("stand_in")
def test_what_cannot_be_computed_has_a_reason_and_no_number():
    with pytest.warns(RuntimeWarning, match="green is not scored: OSError: cannot reach the hub"):
        scores = radeval_scores(["a"], ["a"], ["green", "radgraph"])
    assert scores["green"] == "OSError: cannot reach the hub"
    assert scores["radgraph_simple"] == 1.0


@pytest.mark.usefixtures("stand_in")
def test_scores_that_are_means_over_studies_have_intervals():
    said, true = ["a", "b", "c", "d"] * 10, ["a", "b", "x", "d"] * 10
    scores = radeval_scores(said, true, ["radgraph"])
    intervals = radeval_intervals(said, true, ["radgraph", "green"], scores | {"green": "cannot reach the hub"})
    assert list(intervals) == ["radgraph_simple"]
    assert intervals["radgraph_simple"] == mean_interval([1, 1, 0, 1] * 10)
    with pytest.warns(RuntimeWarning, match="green has no interval: OSError"):
        assert radeval_intervals(said, true, ["green"], {}) == {}


def test_without_the_package_the_reason_says_what_to_install(no_java_once, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "radeval", None)
    (tmp_path / "a.jsonl").write_text('{"id": 1, "hypothesis": "no edema", "reference": "edema"}\n')
    output = tmp_path / "scores.json"
    arguments = ["--predictions", str(tmp_path / "a.jsonl"), "--output", str(output), "--radeval", "radgraph"]
    with pytest.warns(RuntimeWarning, match="radgraph is not scored"):
        assert main(arguments) == 0
    assert json.loads(output.read_text())["radeval"] == {
        "radgraph": 'radeval is not installed: pip install "diffrgen[radeval]"'
    }
