"""What a run cannot do, as its own scores say it: the sentences of the model card's limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diffrgen.evaluation.run import SHUFFLED_ROW
from diffrgen.pipeline.options import PHANTOM
from diffrgen.sharing.facts import EvaluationFacts, RunFacts

# Half of the studies that have the finding; and fewer studies than these tell little.
OFTEN_MISSED, FEW = 0.5, 10


def limits(facts: RunFacts) -> list[str]:
    """Return one sentence for each limit that the figures of the run show."""
    found = list(_of_data(facts))
    own = next((one for one in facts.evaluations if one.record.data is None), None)
    if own is None:
        return [*found, "Its reports have not been scored: nothing is known about how often they are right."]
    return found + list(_of_scores(own))


def _of_data(facts: RunFacts) -> Iterator[str]:
    train = facts.data.splits["train"]
    if facts.settings.data.data == PHANTOM:
        yield "The phantom is drawn by a program. A model trained on it cannot read the X-ray of a person."
    else:
        yield (
            f"It knows {train.studies:,} training studies of one collection ({facts.data.name}) and no other: images of "
            "other machines, projections, ages and hospitals may be read wrongly without a sign of it."
        )
    if not facts.options.model.prior:
        yield "It was trained without the patients' earlier studies: it sees no change, and what it says of change is a guess."
    elif not train.followed:
        yield "No training study had an earlier one of its patient: it has learned nothing about change."
    yield (
        "A retrieved report is another person's: what the model copies from it need not be true of the image. The disease "
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
        yield f"It never wrote these findings, although studies had them: {'; '.join(never)}."
    if missed:
        yield f"It missed these in more than half of the studies that had them: {'; '.join(missed)}."
    if absent:
        yield f"Nothing is known about {', '.join(absent)}: no study of the split had them."
    if few:
        yield f"Fewer than {FEW} studies of the split had these, so that their scores say little: {'; '.join(few)}."
    yield from _beside_baselines(evaluation)


def _named(finding: Mapping[str, Any]) -> str:
    return f"{finding['finding']} (of {finding['support']})"


def _beside_baselines(evaluation: EvaluationFacts) -> Iterator[str]:
    """Name the blind baselines, and the control with shuffled images, that the model's micro-F1 is not clearly above."""
    own = evaluation.model["clinical_13"]
    score, lowest = own["micro"]["f1"] or 0.0, (own["micro_f1_interval"] or [0.0])[0]
    reached = {
        "its own on other patients' images" if name == SHUFFLED_ROW else name: scores["clinical_13"]["micro"]["f1"] or 0.0
        for name, scores in evaluation.others.items()
    }
    as_good = [f"{name} ({other:.2f})" for name, other in reached.items() if other >= lowest]
    if as_good:
        yield (
            f"Its micro-F1 over the 13 diseases ({score:.2f}, lower end of the interval {lowest:.2f}) is not clearly above "
            f"these: {', '.join(as_good)}. At such figures its reports say little about the image."
        )
