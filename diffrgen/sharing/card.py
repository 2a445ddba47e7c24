"""The model card of a run: README.md, written from the run's own files alone and never over a person's own words."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from diffrgen.pipeline.options import PHANTOM
from diffrgen.sharing.facts import EvaluationFacts, RunFacts
from diffrgen.sharing.limits import limits
from diffrgen.staging import replace_file

CARD = "README.md"
TAGS = ["radiology", "chest-x-ray", "report-generation", "retrieval", "diffrgen"]
METRICS = {"bleu_1": "BLEU-1", "bleu_4": "BLEU-4", "meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr"}
SEAL = re.compile(
    rb"\n<!-- written by diffrgen; a card with other text above than sha256 (?P<sum>[0-9a-f]{64}) "
    rb"is taken as yours and left alone -->\n$"
)


def write_card(run: Path) -> bool:
    """Write README.md of the run in the folder `run` and return True; False where one is there that a person has edited.

    An unedited card is written anew, so that it holds the newest evaluations. Raises DataError for a folder that is not
    that of a finished run.
    """
    path = run / CARD
    if path.exists() and not is_untouched(path.read_bytes()):
        return False
    text = str(make_card(RunFacts.read(run))).encode()
    replace_file(path, text + _seal(text))
    return True


def card_message(run: Path) -> str:
    """Write the card unless a person has edited it, and print which was the case."""
    if write_card(run):
        return f"model card: {run / CARD}"
    return f"model card: {run / CARD} has been edited and is left as it is; move it away for a new one"


def is_untouched(card: bytes) -> bool:
    """Return whether `card` is word for word what `write_card` wrote."""
    found = SEAL.search(card)
    return found is not None and hashlib.sha256(card[: found.start()]).hexdigest().encode() == found["sum"]


def _seal(text: bytes) -> bytes:
    """Return the last line, which identifies an unedited card."""
    digest = hashlib.sha256(text).hexdigest()
    return (
        f"\n<!-- written by diffrgen; a card with other text above than sha256 {digest} "
        "is taken as yours and left alone -->\n"
    ).encode()


def make_card(facts: RunFacts) -> ModelCard:
    """Return the card of a run with these facts, its metadata in the hub's form."""
    template = files("diffrgen.sharing").joinpath("card.md.jinja").read_text(encoding="utf-8")
    return ModelCard.from_template(
        _metadata(facts),
        template_str=template,
        facts=facts,
        limits=limits(facts),
        phantom=facts.settings.data.data == PHANTOM,
    )


def _metadata(facts: RunFacts) -> ModelCardData:
    """Return what the hub shows and searches: licence, tags, and each score of the model that has a value."""
    own = facts.settings.data.data == PHANTOM
    # The latest evaluation of each split; other data sets have no name on the hub.
    newest = {one.record.split: one for one in reversed(facts.evaluations) if one.record.data is None}
    results = [result for evaluation in newest.values() for result in _results(facts, evaluation)]
    return ModelCardData(
        language="en",
        library_name="diffrgen",
        pipeline_tag="image-to-text",
        tags=TAGS,
        license="mit" if own else "other",
        license_name=None if own else "terms-of-the-training-data",
        model_name="DiffRGenNet" if results else None,
        eval_results=results or None,
    )


def _results(facts: RunFacts, evaluation: EvaluationFacts) -> list[EvalResult]:
    scores = evaluation.model
    values = {("clinical_f1", "micro-F1 over 13 diseases"): scores["clinical_13"]["micro"]["f1"]}
    values |= {("clinical_f1", f"{n} (example-based, 14 findings)"): v for n, v in _example(evaluation).items()}
    values |= {(key.split("_")[0], METRICS[key]): scores["nlg"].get(key) for key in METRICS}
    return [
        EvalResult(
            task_type="image-to-text",
            task_name="radiology report generation",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", facts.data.name.lower()),
            dataset_name=facts.data.name,
            dataset_split=evaluation.record.split,
            metric_type=kind,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for (kind, name), value in values.items()
        if value is not None
    ]


def _example(evaluation: EvaluationFacts) -> dict[str, float | None]:
    example = evaluation.model["clinical_14"]["example"]
    return {name: example[name] for name in ("precision", "recall", "f1")}
