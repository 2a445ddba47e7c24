"""The state of each mention of a sentence (negated, uncertain, hypothetical): cues and their scope."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from diffrgen.labels.findings import State
from diffrgen.labels.patterns import Gaps, compile_groups, read_table


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` of a sentence, and the kind of cue there."""

    kind: str
    start: int
    end: int


class ScopeRules:
    """Cues of one sentence and their reach over its mentions.

    The table's kinds: `pseudo` looks like a negation and is none, `neutral` looks like the end of a clause and is none;
    `stop` ends a clause; `void_before` makes what follows it in the clause hypothetical. `unsure_*` and `denied_*` make
    uncertain and negative what follows (`before`: the cue stands before the mention), precedes (`after`), or both
    (`around`); `choice_before` makes what follows one of several. `unsure_before` and `choice_before` end at a comma,
    `unsure_list` does not.
    """

    def __init__(self, *, choice: State = State.UNCERTAIN) -> None:
        """`choice`: the state of a finding that the text offers beside another ("atelectasis or scarring")."""
        self._chosen = choice
        table = read_table("scope")
        self.gaps = Gaps(tuple(table["filler"]), tuple(table["barrier"]))
        self._cues = compile_groups(table["cues"], self.gaps)
        self._choice = compile_groups({"choice": table["choice"]}, self.gaps)

    def cues(self, sentence: str) -> list[Span]:
        """Return the cues of `sentence` from left to right; they do not overlap."""
        return [Span(match.lastgroup or "", match.start(), match.end()) for match in self._cues.finditer(sentence)]

    def states(self, sentence: str, mentions: Iterable[tuple[int, int]]) -> list[State]:
        """Return the state of each mention (start, end); BLANK for a hypothetical one."""
        cues = self.cues(sentence)
        spans = list(mentions)
        states = [self._state(sentence, cues, start, end) for start, end in spans]
        # A pseudo-negation ("no change in effusion or consolidation") leaves both findings positive.
        if any(cue.kind == "pseudo" for cue in cues):
            return states
        return [self._weighed(sentence, spans, states, index) for index in range(len(spans))]

    def _state(self, sentence: str, cues: list[Span], start: int, end: int) -> State:
        # A stop may include the first word of the mention (", cardiomegaly").
        left = max((min(cue.end, start) for cue in cues if cue.kind == "stop" and cue.start < start), default=0)
        right = min((cue.start for cue in cues if cue.kind == "stop" and cue.start >= end), default=len(sentence))
        # A comma ends the reach of a doubt, but not within a choice ("may be edema, atelectasis, or pneumonia").
        comma = -1 if self._listed(sentence, start, end) else sentence.rfind(" , ", left, start)
        # A cue inside the mention ("heart is not enlarged") counts as one before it.
        bounded = ("unsure_before", "choice_before")
        before = {c.kind for c in cues if left <= c.start < end and (c.kind not in bounded or c.start > comma)}
        after = {c.kind for c in cues if end <= c.start < right}
        if "void_before" in before:
            return State.BLANK
        if "unsure_after" in after:
            return State.UNCERTAIN
        if "denied_before" in before or "denied_after" in after or "denied_around" in before | after:
            return State.NEGATIVE
        if before & {"unsure_before", "unsure_list"} or "unsure_around" in before | after:
            return State.UNCERTAIN
        return self._chosen if "choice_before" in before else State.POSITIVE

    def _listed(self, sentence: str, start: int, end: int) -> bool:
        """Return whether a word of choice ("or") is within two words of the mention."""
        before, after = sentence[:start].split()[-2:], sentence[end:].split()[:2]
        return any(self._choice.search(" ".join(words)) for words in (before, after))

    def _weighed(self, sentence: str, spans: list[tuple[int, int]], states: list[State], index: int) -> State:
        """Return the state of a mention; a positive one gets the state of a choice if the text offers an alternative to it."""
        if states[index] is not State.POSITIVE:
            return states[index]
        start, end = spans[index]
        next_start = min((other for other, _ in spans if other >= end), default=end)
        previous_end = max((other for _, other in spans if other <= start), default=start)
        for between in (sentence[end:next_start].strip(), sentence[previous_end:start].strip()):
            if len(between.split()) <= 5 and self._choice.search(between):
                return self._chosen
        return State.POSITIVE
