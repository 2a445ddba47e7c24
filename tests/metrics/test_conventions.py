"""Clinical scores by convention against scikit-learn, temporal entities by hand, and paired differences by enumeration."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
from sklearn.metrics import classification_report, precision_recall_fscore_support

from diffrgen.labels import COMMON, FINDINGS
from diffrgen.metrics import clinical_conventions, clinical_scores, paired_differences, score_corpus
from diffrgen.metrics.conventions import AVERAGES, finding_counts, per_study_numbers, presence, scores_of_sums
from diffrgen.metrics.paired import MEASURES, paired_numbers
from diffrgen.metrics.temporal import temporal_entities, temporal_f1, temporal_score

pytestmark = pytest.mark.usefixtures("no_java")


def random_states(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """States of 1 to 30 studies, of any density: findings that nobody has, and studies without any, are among them."""
    draw = np.random.default_rng(seed)
    studies, rarity = int(draw.integers(1, 31)), draw.uniform(0.02, 1)
    shape = (2, studies, len(FINDINGS) + int(draw.integers(0, 2)) * 4)
    states = np.where(draw.random(shape) < rarity, draw.integers(0, 4, shape), 0)
    return states[0], states[1]


@pytest.mark.parametrize("block", range(10))
def test_averages_are_scikit_learns_on_random_states(block: int) -> None:
    """1,000 matrices in all, each average of each convention, to 1e-12."""
    for seed in range(100 * block, 100 * block + 100):
        predicted, truth = random_states(seed)
        scores = clinical_conventions(predicted, truth, resamples=0)
        said, true = (np.isin(states[:, :14], (1, 3)).astype(int) for states in (predicted, truth))
        for name, findings in (("14", FINDINGS), ("5", COMMON)):
            columns = [FINDINGS.index(finding) for finding in findings]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for average in ("micro", "macro", "weighted", "samples"):
                    expected = precision_recall_fscore_support(
                        true[:, columns], said[:, columns], average=average, zero_division=0
                    )[:3]
                    got = scores.f1chexbert[name][average]
                    assert (got.precision, got.recall, got.f1) == pytest.approx(expected, abs=1e-12)
        positive = [(states[:, :14] == 1).astype(int) for states in (truth, predicted)]
        expected = precision_recall_fscore_support(*positive, average="samples", zero_division=0)[:3]
        got = scores.promptmrg
        assert (got.precision, got.recall, got.f1) == pytest.approx(expected, abs=1e-12)


def test_f1chexbert_is_its_packages_report() -> None:
    """The package f1chexbert returns scikit-learn's classification_report of both widths."""
    predicted, truth = random_states(7)
    said, true = (np.isin(states[:, :14], (1, 3)).astype(int) for states in (predicted, truth))
    report = classification_report(true, said, output_dict=True, zero_division=0)
    scores = clinical_conventions(predicted, truth, resamples=0).to_dict()["f1chexbert"]["14"]
    for average in AVERAGES:
        expected = report[f"{average} avg"]
        assert scores[average]["f1"] == pytest.approx(expected["f1-score"], abs=1e-12)
        assert scores[average]["precision"] == pytest.approx(expected["precision"], abs=1e-12)


def test_promptmrg_is_what_the_tables_print_and_uncertain_tells_them_apart() -> None:
    predicted, truth = random_states(11)
    example = clinical_scores(predicted[:, :14], truth[:, :14], findings=FINDINGS, resamples=0).example
    named = clinical_conventions(predicted, truth, resamples=0).promptmrg
    assert (named.precision, named.recall, named.f1) == pytest.approx((example.precision, example.recall, example.f1))
    doubt = np.zeros((1, 14), dtype=int)
    doubt[0, 4] = 3  # edema, uncertain
    scores = clinical_conventions(doubt, doubt, resamples=0)
    assert scores.promptmrg.f1 == 0
    assert scores.f1chexbert["5"]["micro"].f1 == 1


def test_an_interval_holds_its_score_and_shrinks_with_studies() -> None:
    draw = np.random.default_rng(0)

    def width(studies: int) -> float:
        truth = draw.integers(0, 2, (studies, 14))
        predicted = np.where(draw.random(truth.shape) < 0.7, truth, 1 - truth)
        scores = clinical_conventions(predicted, truth)
        for average in scores.f1chexbert["14"].values():
            low, high = average.f1_interval
            assert low <= average.f1 <= high
        low, high = scores.f1chexbert["14"]["micro"].f1_interval
        return high - low

    assert width(20) > 2 * width(400)


def test_temporal_entities_by_hand() -> None:
    assert temporal_entities("NEW effusion, unchanged heart; newly placed line, changes.") == {"new", "unchanged"}
    said = ["stable heart", "new effusion, larger", "clear", "worse edema", "increased, increased and new"]
    true = ["stable heart", "new effusion", "clear", "no edema", "increased"]
    # both same; 1 of 2 and 1 of 1; nothing on either side; only the report; the set counts a word once
    expected = [1, 2 / 3, 1, 0, 2 / 3]
    assert temporal_f1(said, true).tolist() == pytest.approx(expected)
    score = temporal_score(said, true)
    assert (score.f1, score.mentioned) == (pytest.approx(np.mean(expected)), 3)
    assert score.interval[0] < score.f1 < score.interval[1]


def numbers(values: list[float]) -> dict[str, np.ndarray]:
    return {"rouge_l": np.array([[value, 1] for value in values])}


def test_p_is_the_share_of_all_exchanges_that_are_as_far_apart() -> None:
    """Eight studies: all 256 exchanges are enumerated, and random ones must come close to their share."""
    draw = np.random.default_rng(5)
    first, second = draw.random(8) + 0.25, draw.random(8)
    apart = first - second
    every = [abs(np.mean(apart * signs)) >= abs(apart.mean()) - 1e-12 for signs in product((-1, 1), repeat=8)]
    found = paired_differences(numbers(list(first)), numbers(list(second)))["rouge_l"]
    assert found.difference == pytest.approx(apart.mean())
    assert found.p == pytest.approx(np.mean(every), abs=0.02)
    # The bootstrap of a mean difference: resamples of the differences themselves.
    resampled = [apart[draw.integers(8, size=8)].mean() for _ in range(4000)]
    assert found.interval == pytest.approx(tuple(np.percentile(resampled, (2.5, 97.5))), abs=0.05)


def test_a_system_against_itself_has_p_one_and_no_difference() -> None:
    said = ["the heart is large .", "no effusion .", "clear lungs .", "new edema ."]
    true = ["the heart is enlarged .", "there is no effusion .", "lungs are clear .", "edema is unchanged ."]
    states = random_states(3)[0][:4]
    states = np.resize(states, (4, 14))
    corpus = score_corpus(said, true, resamples=0).per_study
    mine = paired_numbers(corpus, states, states[::-1], (said, true))
    found = paired_differences(mine, mine, swaps=300)
    assert set(found) == set(MEASURES)
    for difference in found.values():
        assert (difference.difference, difference.interval, difference.p) in ((0, (0, 0), 1), (None, None, None))


def test_each_measure_is_the_score_of_the_same_name() -> None:
    said = ["the heart is large .", "no effusion is seen .", "clear lungs ."]
    true = ["the heart is enlarged .", "there is no effusion seen .", "lungs are clear ."]
    predicted, truth = (np.resize(states, (3, 14)) for states in random_states(21))
    corpus = score_corpus(said, true, resamples=0)
    conventions = clinical_conventions(predicted, truth, resamples=0)
    expected = {
        **{name: corpus.values[name] for name in ("bleu_1", "bleu_4", "rouge_l", "cider")},
        "precision": conventions.promptmrg.precision,
        "recall": conventions.promptmrg.recall,
        "f1": conventions.promptmrg.f1,
        "micro_f1": clinical_scores(predicted[:, :13], truth[:, :13], findings=FINDINGS[:13], resamples=0).micro.f1,
        "f1chexbert_14_macro": conventions.f1chexbert["14"]["macro"].f1,
        "f1chexbert_5_micro": conventions.f1chexbert["5"]["micro"].f1,
    }
    mine = paired_numbers(corpus.per_study, predicted, truth, (said, true))
    found = paired_differences(mine, mine, resamples=0, swaps=10)
    for name, value in expected.items():
        assert found[name].first == pytest.approx(value), name


def test_systems_over_other_studies_are_refused() -> None:
    with pytest.raises(ValueError, match="expected the same studies for both systems"):
        paired_differences(numbers([1, 2]), numbers([1, 2, 3]))


def test_sums_over_no_study_are_zero() -> None:
    nothing = np.zeros((2, 14), dtype=bool)
    for average in AVERAGES:
        sums = per_study_numbers(finding_counts(nothing, nothing), average).sum(axis=0, keepdims=True)
        assert scores_of_sums(sums, average).tolist() == [[0, 0, 0]]
    assert presence(np.array([[3] * 14]), uncertain=False).sum() == 0
