"""A draft report for hospital software: its current text, the generated text, and the confidence of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diffrgen.reporting.confidence import NotMentioned, not_mentioned_words, probability_words

Section = Literal["findings", "impression"]


@dataclass(frozen=True)
class DraftSentence:
    """One sentence.

    text: as it stands. generated: as the run generated it, where a reader changed it. probability: that the generated
    sentence is true, 0..1, by the run's calibration; None if it has none. doubtful: less probable than the user asks for.
    section: which one it is of, None for a run that writes one text.
    """

    text: str
    generated: str | None = None
    probability: float | None = None
    doubtful: bool = False
    section: Section | None = None

    @property
    def confidence(self) -> str:
        """The confidence of the sentence as text; empty if unknown, as for a sentence that a reader edited."""
        if self.probability is None or self.generated is not None:
            return ""
        return probability_words(self.probability, doubtful=self.doubtful)

    @property
    def marked(self) -> str:
        """The text, marked where it is doubtful.

        >>> DraftSentence("An effusion.", None, 0.31, doubtful=True).marked
        'An effusion. [doubtful: 31% likely to be true]'
        """
        return f"{self.text} [{self.confidence}]" if self.doubtful and self.confidence else self.text


@dataclass(frozen=True)
class DraftReport:
    """The sentences, the findings that they omit, and the number of sentences that a reader has struck."""

    sentences: tuple[DraftSentence, ...]
    not_mentioned: tuple[NotMentioned, ...] = ()
    struck: int = 0

    @classmethod
    def rated(
        cls,
        sentences: Sequence[str],
        probabilities: Sequence[float | None],
        not_mentioned: Sequence[NotMentioned] = (),
        *,
        sections: Sequence[Section | None] | None = None,
        abstain: float | None = None,
    ) -> DraftReport:
        """Return the draft of a generated report; those of its sentences that are less probable than `abstain` are doubtful.

        >>> draft = DraftReport.rated(["Clear lungs.", "An effusion."], [None, 0.31], abstain=0.5)
        >>> [sentence.confidence for sentence in draft.sentences]
        ['', 'doubtful: 31% likely to be true']
        """
        rated = [
            DraftSentence(text, None, sure, sure is not None and abstain is not None and sure < abstain, section)
            for text, sure, section in zip(sentences, probabilities, sections or [None] * len(sentences), strict=True)
        ]
        return cls(tuple(rated), tuple(not_mentioned))

    @classmethod
    def plain(cls, findings: Sequence[str], impression: Sequence[str] | None = None) -> DraftReport:
        """Return the draft of a generated report without confidence; impression: for a run that generates this section."""
        only: Section | None = None if impression is None else "findings"
        concluded: Section = "impression"
        sections = [only] * len(findings) + [concluded] * len(impression or ())
        return cls.rated([*findings, *(impression or ())], [None] * len(sections), sections=sections)

    @property
    def findings(self) -> tuple[DraftSentence, ...]:
        """The sentences of the findings; of a run that writes one text, all of them."""
        return tuple(each for each in self.sentences if each.section != "impression")

    @property
    def impression(self) -> tuple[DraftSentence, ...] | None:
        """The sentences of the impression; None for a run that writes one text."""
        if all(each.section is None for each in self.sentences):
            return None
        return tuple(each for each in self.sentences if each.section == "impression")

    @property
    def conclusion(self) -> str:
        """The impression, of a run that writes one text all of it, with doubtful sentences marked.

        >>> DraftReport.plain(["Clear."], ["No edema."]).conclusion, DraftReport.plain(["Clear.", "No edema."]).conclusion
        ('No edema.', 'Clear. No edema.')
        """
        return " ".join(each.marked for each in (self.sentences if self.impression is None else self.impression))

    @property
    def paragraphs(self) -> list[str]:
        """The sections, with their names where there are two, doubtful sentences marked.

        >>> DraftReport.plain(["Clear."], ["No edema."]).paragraphs
        ['Findings: Clear.', 'Impression: No edema.']
        """
        if self.impression is None:
            return [" ".join(each.marked for each in self.sentences)]
        sections = {"Findings": self.findings, "Impression": self.impression}
        return [f"{name}: {' '.join(each.marked for each in kept)}" for name, kept in sections.items() if kept]

    @property
    def changes(self) -> str:
        """The reader's changes as text; empty if there are none.

        >>> DraftReport((DraftSentence("Clear.", "an effusion ."), DraftSentence("No edema.")), struck=1).changes
        'Edited by an unnamed reader: of 3 generated sentences 1 changed, 1 removed.'
        """
        changed = sum(each.generated is not None for each in self.sentences)
        if not changed and not self.struck:
            return ""
        count = len(self.sentences) + self.struck
        return f"Edited by an unnamed reader: of {count} generated sentences {changed} changed, {self.struck} removed."

    @property
    def left_out(self) -> str:
        """The findings that the report omits, as text; empty if there are none."""
        named = not_mentioned_words(self.not_mentioned)
        return f"Not mentioned, although the classifier is confident: {named}" if named else ""

    @property
    def remarks(self) -> list[str]:
        """The notes beside the sentences, one per line; a sentence is named by its number."""
        lines = [self.changes]
        for number, sentence in enumerate(self.sentences, 1):
            if sentence.generated is not None:
                lines.append(f"Sentence {number}, as generated: {sentence.generated}")
            lines.append(f"Sentence {number}: {sentence.confidence}" if sentence.confidence else "")
        return [line for line in (*lines, self.left_out) if line]
