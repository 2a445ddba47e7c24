"""Every reader of report texts with texts that a careless pattern or loop takes quadratic time for.

`python growth.py LENGTH` reads them all once, for a process with a limit on its processor time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from diffrgen.labels import RuleLabeler
from diffrgen.labels.sentences import split_sentences
from diffrgen.phantom.language import parser
from diffrgen.phantom.language.parser import GrammarParser
from diffrgen.preparation.sections import choose_text
from diffrgen.text.cleaning import clean_report
from diffrgen.text.sentences import report_sentences

RULES, GRAMMAR = RuleLabeler(remember=0), GrammarParser()
PIECES = (
    *(" ", "\n", "\t \n", "_", ".", ",", "-", "1. ", "a", "A", "?", ":", "(", "12.", "\u2028"),
    *("impression: ", "IMPRESSION:\n", "FINDINGS ", "FINDINGS:\n", "Findings and ", "ABC\n", "__________\n"),
    *("ADDENDUM:\nHISTORY:\n", "WET READ: x\n", "FINAL REPORT\n", "HISTORY:\n", "ADDENDUM: "),
    *("no ", "opacity ", "no edema or effusion and ", "heart size is normal and ", "the lungs are clear "),
    *("edema or ", "without , ", "there is no pneumothorax or ", "possible "),
)
# What a run of one piece stands between: a pattern may look through it from every place for what is not there.
FRAMES = ("{}", "x{}x", "FINAL REPORT{}x", "FINDINGS:{}x", "no{}.", "FINDINGS AND{}x")
READERS: dict[str, Callable[[str], object]] = {
    "rules": lambda text: RULES([text]),
    "split_sentences": split_sentences,
    "sections": lambda text: choose_text(text, "both", last_paragraph=True),
    "mimic": lambda text: clean_report(text, rules="mimic"),
    "iu": lambda text: clean_report(text, rules="iu"),
    "plain": lambda text: clean_report(text, rules="plain"),
    "report_sentences": report_sentences,
    "grammar": lambda text: GRAMMAR([text]),
}


def texts(length: int, *, frames: tuple[str, ...] = FRAMES) -> dict[tuple[str, str], str]:
    """The texts of about `length` characters by piece and frame."""
    return {(piece, frame): frame.format(piece * (length // len(piece))) for piece in PIECES for frame in frames}


def steps(read: Callable[[str], object], text: str) -> int:
    """Lines and calls of Python that `read(text)` takes."""
    count = 0

    def trace(*_: object) -> Callable[..., object]:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    parser._read.cache_clear()
    sys.settrace(trace)
    try:
        read(text)
    finally:
        sys.settrace(before)
    return count


if __name__ == "__main__":
    for (piece, frame), text in texts(int(sys.argv[1])).items():
        for name, read in READERS.items():
            # The last line says what took too long.
            print(name, repr(piece), repr(frame), flush=True)
            parser._read.cache_clear()
            read(text)
    print("done")
