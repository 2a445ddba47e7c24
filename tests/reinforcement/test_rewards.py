"""Rewards of single reports are the scores that evaluation computes, study by study."""

from __future__ import annotations

import numpy as np
import pytest

from diffrgen.evaluation.statements import StatementTruth
from diffrgen.labels import FINDINGS, RuleLabeler
from diffrgen.metrics import score_corpus
from diffrgen.metrics.corpus import CiderReferences, bleu_counts, bleu_of_sums, rouge_l
from diffrgen.phantom import GrammarParser, PhantomOptions
from diffrgen.pipeline.options import DataOptions
from diffrgen.pipeline.source import load_source
from diffrgen.reinforcement.rewards import Rewards

REFERENCES = ["the heart is large . no effusion .", "no pneumothorax is seen .", "the heart is normal in size and shape ."]
HYPOTHESES = ["the heart is large .", "no pneumothorax is seen .", ""]


@pytest.mark.usefixtures("no_java")
def test_scores_of_one_report_are_those_of_a_corpus_of_one() -> None:
    with pytest.warns(RuntimeWarning, match="METEOR"):
        whole = score_corpus(HYPOTHESES, REFERENCES, resamples=0)
    each = [score_corpus([one], [other], resamples=0) for one, other in zip(HYPOTHESES, REFERENCES, strict=True)]
    sentence_bleu = bleu_of_sums(bleu_counts(HYPOTHESES, REFERENCES))
    for row, scores in enumerate(each):
        for order in range(4):
            assert sentence_bleu[row, order] == pytest.approx(scores.values[f"bleu_{order + 1}"], rel=1e-12, abs=1e-15)
    np.testing.assert_array_equal(rouge_l(HYPOTHESES, REFERENCES), whole.per_study["rouge_l"][:, 0])
    # Frequencies of the same references, however few of the studies are scored at once.
    cider = CiderReferences(REFERENCES)
    found = np.concatenate([cider(HYPOTHESES[:1], REFERENCES[:1]), cider(HYPOTHESES[1:], REFERENCES[1:])])
    np.testing.assert_allclose(found, whole.per_study["cider"][:, 0], rtol=0, atol=1e-12)
    assert found[1] == pytest.approx(10.0)


class Studies:
    """The part of a data set of examples that `Rewards` uses."""

    def __init__(self, studies) -> None:
        import torch

        self.studies, self.states = studies, torch.tensor([study.labels for study in studies])


def test_states_and_change_of_phantom_reports() -> None:
    source = load_source(DataOptions(), PhantomOptions(studies=40, seed=6, size=64))
    data, train = Studies(source.splits.train), source.splits.train
    rewards = Rewards(["states", "change", "temporal"], data, GrammarParser(), train)  # type: ignore[arg-type]
    references = [study.report for study in train]
    rows = list(range(len(train)))
    own = rewards(rows, references)
    assert {name: values.min() for name, values in own.items()} == {"states": 1.0, "change": 1.0, "temporal": 1.0}
    moved = references[1:] + references[:1]
    found = rewards(rows, moved)
    truth = StatementTruth.of(train, train)
    statements = truth.score(moved, [()] * len(moved))
    right, said, true = statements.counts[:, :3].T
    expected = [2 * r / (s + t) if s + t else 1.0 for r, s, t in zip(right, said, true, strict=True)]
    np.testing.assert_allclose(found["change"], expected, atol=1e-15)
    assert 0 < found["change"].mean() < 1
    labels, read = np.array([study.labels for study in train])[:, :13] == 1, GrammarParser()(moved)[:, :13] == 1
    for row in rows:
        hits, total = (labels[row] & read[row]).sum(), labels[row].sum() + read[row].sum()
        assert found["states"][row] == pytest.approx(2 * hits / total if total else 1.0, abs=1e-15)
    # Rows may come in any order, and several times.
    again = rewards([3, 3, 1], [moved[3], references[3], moved[1]])
    assert again["states"].tolist() == [found["states"][3], 1.0, found["states"][1]]


def test_nothing_said_where_there_is_nothing_is_right() -> None:
    source = load_source(DataOptions(), PhantomOptions(studies=40, seed=6, size=64))
    study = source.splits.train[0]
    from dataclasses import replace

    healthy = replace(study, labels=(0,) * 13 + (1,), report="normal chest .")
    rewards = Rewards(["states", "bleu_4"], Studies([healthy]), RuleLabeler(), [healthy])  # type: ignore[arg-type]
    assert FINDINGS[13] == "no finding"
    assert rewards([0, 0], ["normal chest .", "there is edema ."])["states"].tolist() == [1.0, 0.0]
