"""Report cleaning: R2Gen's rules for MIMIC-CXR and IU X-Ray, which published scores are computed after."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Literal, get_args

Rules = Literal["mimic", "iu", "plain"]
RULES: tuple[Rules, ...] = get_args(Rules)

# Characters removed from a sentence. R2Gen's character class has a range from ':' to '[', so it keeps the hyphen.
DROPPED = str.maketrans("", "", ".,?;*!%^&_+():<=>@[]{}\"'/\\")
ENUMERATORS = "2345"
PLACEHOLDERS = ("___", "XXXX")
MARK = re.compile(r"\b[xX]{4,}\b|_{2,}")
SAMPLE = 1000


def clean_report(text: str, *, rules: Rules) -> str:
    """Return `text` by `rules`; words are single-spaced, and a text without a word gives "".

    "mimic", "iu": lower case; runs of dots become one; the enumeration marks "1. " to "5. " go; sentences end
    where a dot and a space stand and are joined by " . " with a final " ."; within them these vanish: . , ? ;
    * ! % ^ & _ + ( ) : < = > @ [ ] { } " ' / and backslash. The hyphen stays. "mimic" first makes line breaks
    and runs of spaces single spaces. Both are idempotent. "plain": white space normalised, nothing else.

    >>> clean_report("FINDINGS: 1. Heart size is normal. 2. No x-ray sign of effusion/edema.", rules="mimic")
    'findings heart size is normal . no x-ray sign of effusionedema .'

    NOTE: the quirks are R2Gen's and kept, so that scores compare with published ones, token for token:
    "3.5 cm" becomes "35 cm", "L1. Next" loses its "1. ", a dot with no space after it joins two words,
    "a. , . b" leaves an empty sentence.

    Source: modules/tokenizers.py of R2Gen (Chen et al., EMNLP 2020); PromptMRG uses the MIMIC rules for every
    data set.
    """
    if rules not in RULES:
        raise ValueError(f"expected rules out of {', '.join(RULES)}, got {rules!r}")
    if rules == "plain":
        return " ".join(text.split())
    if rules == "mimic":
        text = re.sub(r" {2,}", " ", re.sub(r"_{2,}", "_", text.replace("\n", " ")))
    sentences = _without_enumeration(re.sub(r"\.{2,}", ".", text)).strip().lower().split(". ")
    cleaned = " . ".join(sentence.translate(DROPPED) for sentence in sentences)
    words = f"{cleaned} .".split()
    return " ".join(words) if any(word != "." for word in words) else ""


def choose_rules(rules: Rules | Literal["auto"], reports: Iterable[str]) -> Rules:
    """Return `rules`, or for "auto" those that the placeholder for removed names in the first reports
    implies.

    "XXXX" implies "iu", "___" and no placeholder "mimic".
    """
    if rules != "auto":
        if rules not in RULES:
            raise ValueError(f"expected rules out of auto, {', '.join(RULES)}, got {rules!r}")
        return rules
    counts = dict.fromkeys(PLACEHOLDERS, 0)
    for report in islice(reports, SAMPLE):
        for placeholder in PLACEHOLDERS:
            counts[placeholder] += placeholder in report
    return "iu" if counts["XXXX"] > counts["___"] else "mimic"


def _without_enumeration(text: str) -> str:
    """Remove "1. " anywhere and "2. " to "5. " as words of their own, in R2Gen's order."""
    text = text.replace("1. ", "")
    for before in (". ", " "):
        for number in ENUMERATORS:
            text = text.replace(f"{before}{number}. ", ". ")
    return text


def has_marks(text: str) -> bool:
    """Return whether `text` holds a de-identification mark, XXXX (in any case) or ___."""
    return MARK.search(text) is not None


def without_marks(text: str) -> str:
    """Return `text` without de-identification marks, its other words apart by one blank.

    >>> without_marks("stable xxxx sternotomy ___ .")
    'stable sternotomy .'
    """
    return " ".join(MARK.sub(" ", text).split())
