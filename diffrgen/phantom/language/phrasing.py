"""Fill wordings: slots to words, articles, verbs and number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from diffrgen.phantom.language.wordings import (
    PLACE_SLOTS,
    SEVERITY_SLOTS,
    SIDE_SLOTS,
    VERBS,
    Template,
    Wordings,
    parse_template,
)
from diffrgen.phantom.patients.states import FindingState

T = TypeVar("T")
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")


@dataclass(frozen=True, slots=True)
class NounPhrase:
    """A finding as a noun phrase; `text` has its article, `bare` is without."""

    text: str
    plural: bool = False

    @property
    def bare(self) -> str:
        """Return the phrase without a leading article."""
        return re.sub(r"^an? ", "", self.text)


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """Return one of `options`."""
    return options[int(rng.integers(len(options)))]


def choose_template(wordings: list[str], state: FindingState | None, rng: np.random.Generator) -> Template:
    """Return a wording that can express this finding's severity."""
    templates = [parse_template(wording) for wording in wordings]
    severity = state.severity if state else None
    fitting = [template for template in templates if template.severity in (None, severity)]
    return fitting[int(rng.integers(len(fitting)))]


def fill(template: Template, state: FindingState | None, words: Wordings, rng: np.random.Generator) -> str:
    """Return `template` with every slot filled from `state`."""
    bilateral = state is not None and state.side == "bilateral"

    def replace(match: re.Match[str]) -> str:
        slot = match.group(1)
        if slot.startswith(tuple(VERBS)):
            singular, plural = next(forms for verb, forms in VERBS.items() if slot.startswith(verb))
            return plural if bilateral else singular
        if state is None:
            raise ValueError(f"the wording {template.text!r} has the slot {slot!r} but tells no finding")
        return pick(words.slots[slot][slot_value(slot, state)], rng)

    text = template.text.replace("[s]", "s" if bilateral else "")
    if bilateral and "[s]" in template.text:
        text = re.sub(r"^[Aa]n? ", "", text)
    return _SLOT.sub(replace, text)


def slot_value(slot: str, state: FindingState) -> str:
    """Return the value of `slot` that `state` has, as `slots.json` keys it."""
    if slot in SEVERITY_SLOTS and state.severity:
        return state.severity
    if slot in SIDE_SLOTS and state.side:
        return state.side
    if slot in PLACE_SLOTS and state.side and state.zone:
        return f"{state.side} {state.zone}"
    raise ValueError(f"expected a finding with what slot {slot!r} tells, got {state}")


def noun_phrase(state: FindingState, words: Wordings, rng: np.random.Generator) -> NounPhrase:
    """Return the finding as a noun phrase, with severity when positive, without when uncertain."""
    group = "full" if state.severity else "plain"
    template = choose_template(words.findings[state.finding][group], state, rng)
    plural = template.plural or ("[s]" in template.text and state.side == "bilateral")
    return NounPhrase(fill(template, state, words, rng), plural)


def fill_frame(frame: str, first: NounPhrase, second: NounPhrase | None = None) -> str:
    """Return `frame` about one or two noun phrases."""
    filled = frame.replace("{np}", first.text).replace("{np0}", first.bare)
    if second is not None:
        filled = filled.replace("{np2}", second.text).replace("{np02}", second.bare)
    filled = filled.replace("{is}", "are" if first.plural else "is")
    return filled.replace("{has}", "have" if first.plural else "has")


def join_list(items: list[str]) -> str:
    """Return "a, b or c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} or {items[-1]}"


def finish(sentence: str) -> str:
    """Return `sentence` with articles that fit, a capital and a full stop."""
    fitted = _ARTICLE.sub(r"\1n ", sentence.strip())
    return fitted[0].upper() + fitted[1:] + "."
