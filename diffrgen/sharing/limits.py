"""Limitations of a run, derived from its scores: the sentences of the model card's limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diffrgen.evaluation.result import SHUFFLED_ROW
from diffrgen.pipeline.options import PHANTOM
from diffrgen.sharing.facts import EvaluationFacts, RunFacts

# Recall below which a finding is often missed; number of studies below which scores are unreliable.
OFTEN_MISSED, FEW = 0.5, 10


def limits(facts: RunFacts) -> list[str]:
    """Return one sentence for each limit that the figures of the run show."""
    found = list(_of_data(facts))
    own = next((one for one in facts.evaluations if one.record.data is None), None)
    if own is None:
        return [*found, "Its reports have not been scored; their accuracy is unknown."]
    return found + list(_of_scores(own))


def _of_data(facts: RunFacts) -> Iterator[str]:
    train = facts.data.splits["train"]
    if facts.settings.data.data == PHANTOM:
        yield "The phantom is synthetic. A model trained on it is useless on X-rays of patients."
    else:
        yield (
            f"It was trained on {train.studies:,} studies of one collection ({facts.data.name}). On images of other "
            "machines, projections, ages and hospitals it may fail without warning."
        )
    if not facts.options.model.prior:
        yield "It was trained without prior studies: it cannot detect change, and any change that a report mentions is a guess."
    elif not train.followed:
        yield "No training study had a prior study: it has learned nothing about change."
    yield (
        "Retrieved reports belong to other patients: statements copied from them may be false for the image. The disease "
        "probabilities are not calibrated."
    )


def _of_scores(evaluation: EvaluationFacts) -> Iterator[str]:
    diseases = evaluation.model["clinical_13"]
    findings = [one for one in diseases["per_finding"] if one["support"]]
    never = [_named(one) for one in findings if not one["predicted"]]
    missed = [
        f"{_named(one)}, {one['recall']:.2f} found"
        for one in findings
        if one["predicted"] and (one["recall"] or 0.0) < OFTEN_MISSED
    ]
    absent = [one["finding"] for one in diseases["per_finding"] if not one["support"]]
    few = [_named(one) for one in findings if one["support"] < FEW]
    if never:
        yield f"Its reports never mention these findings, although studies have them: {'; '.join(never)}."
    if missed:
        yield f"Its reports miss these in more than half of the studies that have them: {'; '.join(missed)}."
    if absent:
        yield f"Nothing is known about {', '.join(absent)}: no study of the split has them."
    if few:
        yield f"Fewer than {FEW} studies of the split have these, so their scores are unreliable: {'; '.join(few)}."
    yield from _beside_baselines(evaluation)


def _named(finding: Mapping[str, Any]) -> str:
    return f"{finding['finding']} (of {finding['support']})"


def _beside_baselines(evaluation: EvaluationFacts) -> Iterator[str]:
    """Name the image-free baselines, and the control with shuffled images, that the model's micro-F1 is not clearly above."""
    own = evaluation.model["clinical_13"]
    score, lowest = own["micro"]["f1"] or 0.0, (own["micro_f1_interval"] or [0.0])[0]
    reached = {
        "the model with other patients' images" if name == SHUFFLED_ROW else name: scores["clinical_13"]["micro"]["f1"] or 0.0
        for name, scores in evaluation.others.items()
    }
    as_good = [f"{name} ({other:.2f})" for name, other in reached.items() if other >= lowest]
    if as_good:
        yield (
            f"Its micro-F1 over the 13 diseases ({score:.2f}, lower end of the interval {lowest:.2f}) is not clearly above "
            f"these: {', '.join(as_good)}. With these scores its reports contain little information from the image."
        )
