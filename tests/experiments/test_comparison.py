"""Variants compared: intervals, p-values and paired resampling against hand computation; the table that shows them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from experiment_runs import record

from diffrgen.errors import DataError
from diffrgen.evaluation.statements import COUNTS
from diffrgen.experiments.comparison import Estimate, difference, estimate, paired_p_value, seed_interval
from diffrgen.experiments.figure import write_figure
from diffrgen.experiments.measures import MEASURES
from diffrgen.experiments.record import RunRecord
from diffrgen.experiments.results import StudyResults
from diffrgen.experiments.routing import RoutingStatistics, normalised_entropy, routing_statistics
from diffrgen.experiments.table import study_markdown
from diffrgen.experiments.variants import FULL, Row, Study, Variant

MEASURE = {measure.name: measure for measure in MEASURES}
# True positives, false positives, false negatives: micro-F1 1/2 over both studies, 1 in the first and 0 in the second.
HALF, WHOLE = [[1, 0, 0], [0, 1, 1]], [[1, 0, 0], [1, 0, 0]]


def runs(variant: str, *matrices: list[list[float]]) -> list[RunRecord]:
    return [record(variant, seed, clinical_13=matrix) for seed, matrix in enumerate(matrices)]


def test_interval_over_seeds_by_hand():
    # t(0.975, 2) = 4.302653; the mean is 2, the deviation 1
    low, high = seed_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-6)
    assert seed_interval([1.0]) is None


def test_p_over_seeds_by_hand():
    # With two degrees of freedom p = 1 - t / sqrt(t^2 + 2); here t = 2 sqrt(3).
    assert paired_p_value([1.0, 2.0, 3.0]) == pytest.approx(1 - math.sqrt(12 / 14))
    assert paired_p_value([-1.0, 1.0]) == pytest.approx(1.0)
    assert paired_p_value([0.5]) is None
    assert paired_p_value([0.0, 0.0]) is None


def test_estimate_of_two_seeds_by_hand():
    found = estimate(MEASURE["micro_f1"], runs("full", HALF, WHOLE))
    assert found.values == (0.5, 1.0)
    assert found.mean == 0.75
    # A resample of studies: both first (1, 1), both second (0, 1), one of each (1/2, 1).
    assert found.study_interval == (0.5, 1.0)
    assert found.seed_interval == pytest.approx((0.75 - 12.706205 * 0.25, 0.75 + 12.706205 * 0.25), abs=1e-5)
    assert found.p_value is None


def test_paired_difference_by_hand():
    found = difference(MEASURE["micro_f1"], runs("other", WHOLE, WHOLE), runs("full", HALF, WHOLE))
    assert found.values == (0.5, 0.0)
    assert found.mean == 0.25
    # Mean over seeds by resample: both first studies 0, both second (1 + 0)/2, one of each (1/2 + 0)/2.
    assert found.study_interval == (0.0, 0.5)
    # t = 1 with one degree of freedom
    assert found.p_value == pytest.approx(0.5)
    assert not found.clear


def test_a_difference_is_clear_only_by_seeds_and_by_studies():
    by_both = Estimate(0.2, (0.2, 0.21), (0.1, 0.3), (0.05, 0.4), 0.01)
    assert by_both.clear
    for other in ((0.2, 0.01), ((-0.1, 0.4), 0.01), ((0.05, 0.4), 0.2), ((0.05, 0.4), None), (None, 0.01)):
        interval, p = (by_both.study_interval, 0.06) if other[0] == 0.2 else other
        assert not Estimate(0.2, (0.2, 0.21), (0.1, 0.3), interval, p).clear


def test_equal_runs_differ_by_nothing():
    found = difference(MEASURE["micro_f1"], runs("other", HALF, HALF), runs("full", HALF, HALF))
    assert (found.mean, found.study_interval, found.p_value) == (0.0, (0.0, 0.0), None)


def test_runs_of_other_seeds_or_studies_cannot_be_paired():
    with pytest.raises(DataError, match=r"equal seeds, got \[0\] and \[0, 1\]"):
        difference(MEASURE["micro_f1"], runs("other", HALF), runs("full", HALF, HALF))
    strange = [record("other", 0, studies=("a", "c"), clinical_13=HALF)]
    with pytest.raises(DataError, match="others in other"):
        difference(MEASURE["micro_f1"], strange, runs("full", HALF))


def test_measures_by_hand():
    counts = dict.fromkeys(COUNTS, 0) | {"change_right": 1, "change_said": 2, "change_true": 4}
    run = record(
        "full",
        0,
        meteor=0.25,
        # words written, words wanted, n-grams written, n-grams that match
        bleu=[[4, 4, 4, 3, 2, 1, 2, 1, 0, 0], [4, 4, 4, 3, 2, 1, 4, 3, 2, 1]],
        rouge_l=[[0.5], [0.25]],
        clinical_14=[[1, 0, 1], [0, 0, 0]],
        clinical_13=[[1, 0, 1], [0, 0, 0]],
        classifier_13=[[2, 1, 0], [0, 0, 1]],
        followed_13=[[1, 0, 2], [0, 0, 0]],
        classifier_rare=[[0, 0, 0], [1, 5, 1]],
        statements=[list(counts.values()), [0] * len(COUNTS)],
    )
    values = {name: measure.of(run) for name, measure in MEASURE.items()}
    assert values == {
        "bleu_1": pytest.approx(6 / 8),
        "bleu_4": pytest.approx((6 / 8 * 4 / 6 * 2 / 4 * 1 / 2) ** 0.25),
        "meteor": 0.25,
        "rouge_l": 0.375,
        # 2/3 in the first study; nothing on either side scores 0
        "f1": pytest.approx(1 / 3),
        "micro_f1": pytest.approx(2 / 3),
        "classifier_f1": pytest.approx(4 / 6),
        "classifier_rare_recall": 0.5,
        "prompts_told": pytest.approx(1 / 3),
        "change_f1": pytest.approx(2 / 6),
        "hallucination": 0.0,
        **dict.fromkeys(["change_without_prior", "severity_accuracy", "rare_recall"]),
    }


def test_routing_by_hand():
    assert normalised_entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).tolist() == [1.0, 0.0]
    states = np.zeros((2, 14), dtype=np.int64)
    states[0, 9] = 1
    # A layer of one mask has nothing to route; the other sends each study another way.
    found = routing_statistics([[[1.0], [1.0, 0.0]], [[1.0], [0.0, 1.0]]], states)
    assert (found.layers, found.mean, found.entropy, found.spread) == ((1,), ((0.5, 0.5),), (0.0,), (1.0,))
    assert found.by_finding == {"pleural effusion": ((1.0, -1.0),)}
    assert routing_statistics([[[1.0]], [[1.0]]], states) is None
    assert routing_statistics([[], []], states) is None


@pytest.fixture
def results() -> StudyResults:
    study = Study(
        "table2", "A table", (Row(FULL, "whole", {"f1": 0.483}), Row(Variant("other"), "other", {"f1": 0.382}))
    )
    halves = [record("full", seed, clinical_13=HALF, clinical_14=HALF, meteor=0.1 + seed) for seed in range(2)]
    wholes = [record("other", seed, clinical_13=WHOLE, clinical_14=WHOLE) for seed in range(2)]
    return StudyResults.of(study, [*wholes[::-1], *halves])


def test_table_shows_scores_differences_and_what_the_paper_printed(results):
    text = study_markdown(results)
    lines = text.splitlines()
    header = next(line for line in lines if "parameters" in line)
    assert header.startswith("| Variant | parameters | F1 | micro-F1 | BLEU-1")
    assert header.endswith("| F1 (published, MIMIC-CXR) |")
    whole = next(line for line in lines if line.startswith("| whole"))
    # BLEU and ROUGE-L were not recorded; METEOR is 0.1 and 1.1.
    assert whole.startswith("| whole | 1,234,567 | 0.500 [0.500, 0.500] | 0.500 [0.500, 0.500] | - | - | 0.600 [")
    assert whole.endswith("| - | 0.483 |")
    assert "| other | +0.500 [+0.000, +1.000] | +0.500 [+0.000, +1.000] | - | - | - | - |" in lines
    assert "2 test studies; 2 seed(s); 7 steps" in text
    assert "Statements" not in text
    assert "Routing" not in text


def test_table_shows_how_each_layer_routes(results):
    def routed(first: float) -> RoutingStatistics:
        return RoutingStatistics((0, 1), ((first, 1 - first), (0.2, 0.3, 0.5)), (0.5, 0.9), (0.0, 0.1), {})

    runs = {
        "full": [replace(run, routing=routed(first)) for run, first in zip(results.runs["full"], (0.5, 0.7), strict=True)],
        "other": results.runs["other"],
    }
    lines = study_markdown(replace(results, runs=runs)).splitlines()
    assert "| whole | 1 | 0.60 0.40 | 0.500 | 0.000 |" in lines
    assert "| whole | 2 | 0.20 0.30 0.50 | 0.900 | 0.100 |" in lines
    assert sum(line.startswith("| other |") for line in lines) == 2  # scores and differences


def test_results_are_plain_json(results):
    content = json.loads(json.dumps(results.to_dict()))
    assert content["scores"]["other"]["micro_f1"]["values"] == [1.0, 1.0]
    assert content["differences"]["other"]["micro_f1"]["mean"] == 0.5
    assert content["differences"]["other"]["meteor"] is None
    assert content["published"] == {"full": {"f1": 0.483}, "other": {"f1": 0.382}}


def test_figure_is_drawn(results, tmp_path):
    write_figure(results, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_records_come_back_as_they_were_written(tmp_path):
    run = record("full", 3, clinical_13=HALF, rouge_l=[[1 / 3], [0.0]])
    run.save(tmp_path / "full" / "seed-3.json")
    again = RunRecord.load(tmp_path / "full" / "seed-3.json")
    assert again == run
    np.testing.assert_array_equal(again.numbers("clinical_13"), HALF)
    assert again.numbers("rouge_l")[0, 0] == pytest.approx(1 / 3, abs=1e-6)
    assert again.numbers("statements") is None
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match="needed the record of an experiment's run"):
        RunRecord.load(tmp_path / "bad.json")
