"""Every reader and writer of report texts with texts that a careless pattern or loop takes quadratic time for.

`python growth.py LENGTH` reads them once, for a process with a limit on its processor time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from diffrgen.labels import RuleLabeler
from diffrgen.labels.sentences import split_sentences
from diffrgen.page.words import prose
from diffrgen.phantom.language import parser
from diffrgen.phantom.language.parser import GrammarParser
from diffrgen.preparation.sections import choose_text
from diffrgen.text.cleaning import clean_report
from diffrgen.text.sentences import report_sentences

RULES, GRAMMAR = RuleLabeler(remember=0), GrammarParser()
BLANKS = (" ", "\n", "\t \n", "_", ".", ",", "-", "1. ", "?", ":", "12.", "\u2028", "\n\n", "A")
WORDS = (
    *("a", "(", "impression: ", "IMPRESSION:\n", "FINDINGS ", "FINDINGS:\n", "Findings and ", "ABC\n", "__________\n"),
    *("ADDENDUM:\nHISTORY:\n", "WET READ: x\n", "FINAL REPORT\n", "HISTORY:\n", "ADDENDUM: ", "HEART:\n", "LUNGS: x\n"),
    *("no ", "opacity ", "no edema or effusion and ", "heart size is normal and ", "the lungs are clear "),
    *("edema or ", "without , ", "there is no pneumothorax or ", "possible "),
)
# What a run of one blank stands between: a pattern may look through it from every place for what is not there.
FRAMES = ("{}", "x{}x", "FINAL REPORT{}x", "FINDINGS:{}x", "no{}.", "FINDINGS AND{}x")
READERS: dict[str, Callable[[str], object]] = {
    "rules": lambda text: RULES([text]),
    "split_sentences": split_sentences,
    "sections": lambda text: choose_text(text, "both", last_paragraph=True),
    "mimic": lambda text: clean_report(text, rules="mimic"),
    "iu": lambda text: clean_report(text, rules="iu"),
    "plain": lambda text: clean_report(text, rules="plain"),
    "report_sentences": report_sentences,
    "prose": prose,
    "grammar": lambda text: GRAMMAR([text]),
}


def run(piece: str, length: int, frame: str = "{}") -> str:
    """A text of about `length` characters."""
    return frame.format(piece * (length // len(piece)))


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


def read(reader: str, piece: str, frame: str, length: int) -> None:
    """Read one text; the last line that is printed says what took too long."""
    print(reader, repr(piece), repr(frame), flush=True)
    parser._read.cache_clear()
    READERS[reader](run(piece, length, frame))


def main(length: int) -> None:
    """Read a run of each piece, and of each blank in each frame; the grammar's parser works in Python, and gets a tenth."""
    for piece in (*BLANKS, *WORDS):
        for reader in READERS:
            read(reader, piece, "{}", length // 10 if reader == "grammar" else length)
    for piece in BLANKS:
        for frame in FRAMES[1:]:
            for reader in READERS.keys() - {"rules", "grammar"}:
                read(reader, piece, frame, length)
    print("done")


if __name__ == "__main__":
    main(int(sys.argv[1]))
