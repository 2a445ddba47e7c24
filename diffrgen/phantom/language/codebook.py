"""Every wording compiled to a skeleton: what a sentence, a frame or a noun phrase means."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from diffrgen.labels.findings import State
from diffrgen.phantom.language.devices import device_wordings
from diffrgen.phantom.language.lexicon import (
    LIST_MARK,
    PHRASE_MARK,
    SEVERITY_MARK,
    SlotReader,
    Trie,
    template_tokens,
    tokenise,
)
from diffrgen.phantom.language.near import near_wordings
from diffrgen.phantom.language.wordings import Wordings, load_wordings, parse_template
from diffrgen.phantom.patients.states import SUPPORT_DEVICES, Change

Tokens = tuple[str, ...]
WHOLE_STATES = {"positive": State.POSITIVE, "uncertain": State.UNCERTAIN, "negative": State.NEGATIVE}
CHANGES: tuple[Change, ...] = ("unchanged", "increased", "decreased", "new")


@dataclass(frozen=True, slots=True)
class Sense:
    """The states of `findings` in a complete sentence; a neutral sentence mentions none."""

    findings: tuple[str, ...] = ()
    state: State = State.BLANK
    change: Change | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """The state that a sentence gives to the noun phrases in it."""

    state: State
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Codebook:
    """`sentences` and `frames` by skeleton, `phrases` as a trie, `cues` by meaning.

    `near` holds the sentences less one word each; `tails` are sorted from the longest on.
    """

    reader: SlotReader
    sentences: dict[Tokens, Sense] = field(default_factory=dict)
    frames: dict[Tokens, Frame] = field(default_factory=dict)
    phrases: Trie[str] = field(default_factory=Trie)
    tails: list[tuple[Tokens, Change]] = field(default_factory=list)
    cues: dict[str, list[Tokens]] = field(default_factory=dict)
    near: dict[Tokens, Sense] = field(default_factory=dict)


@cache
def load_codebook() -> Codebook:
    """Return the compiled wordings that ship with the package."""
    words = load_wordings()
    book = Codebook(SlotReader(words))
    _add_findings(book, words)
    _add_devices(book, words)
    _add_frames(book, words)
    _add_ungraded(book, words)
    for wordings in words.normals.values():
        for wording in wordings:
            for days in ("1 day", "2 days"):
                _add(book, wording.replace("{days} days", days), Sense())
    for joint in words.joint:
        _add(book, joint["text"], Sense(tuple(joint["negative"]), State.NEGATIVE))
    book.tails.sort(key=lambda tail: -len(tail[0]))
    book.near.update(near_wordings(book.sentences))
    return book


def _add(book: Codebook, text: str, sense: Sense) -> None:
    for tokens in template_tokens(text, book.reader):
        known = book.sentences.setdefault(tokens, sense)
        if known != sense:
            raise ValueError(f"the wording {text!r} means {sense} but reads like one that means {known}")


def _add_findings(book: Codebook, words: Wordings) -> None:
    for finding, entry in words.findings.items():
        for group in ("full", "plain", "bare"):
            for wording in entry.get(group, ()):
                for tokens in template_tokens(parse_template(wording).text, book.reader):
                    book.phrases.add(tokens, finding)
        for group, state in WHOLE_STATES.items():
            for wording in entry.get(group, ()):
                _add(book, parse_template(wording).text, Sense((finding,), state))


def _add_ungraded(book: Codebook, words: Wordings) -> None:
    """Let every wording also be read without its severity, as a language model may write it."""
    for tokens, sense in list(book.sentences.items()):
        if SEVERITY_MARK in tokens:
            book.sentences.setdefault(_ungraded(tokens), sense)
    for finding, entry in words.findings.items():
        for wording in entry.get("full", ()):
            for tokens in template_tokens(parse_template(wording).text, book.reader):
                book.phrases.add(_ungraded(tokens), finding)


def _ungraded(tokens: Tokens) -> Tokens:
    return tuple(token for token in tokens if token != SEVERITY_MARK)


def _add_devices(book: Codebook, words: Wordings) -> None:
    for kind, wording, present in device_wordings(words):
        state, change = (State.POSITIVE, None) if present else (State.NEGATIVE, "resolved")
        _add(book, wording, Sense((SUPPORT_DEVICES,), state, change, kind))  # type: ignore[arg-type]
    for entry in (words.devices["tails"], words.frames["tails"], words.frames["pair_tails"]):
        for change, wordings in entry.items():
            book.tails.extend((book.reader(tokenise(wording)).tokens, change) for wording in wordings)


def _add_frames(book: Codebook, words: Wordings) -> None:
    groups: list[tuple[str, Frame]] = [
        ("positive", Frame(State.POSITIVE)),
        ("pair", Frame(State.POSITIVE)),
        ("uncertain", Frame(State.UNCERTAIN)),
        ("negative", Frame(State.NEGATIVE)),
        ("resolved", Frame(State.NEGATIVE, "resolved")),
        *((change, Frame(State.POSITIVE, change)) for change in CHANGES),
    ]
    for name, frame in groups:
        for wording in words.frames[name]:
            text = wording
            for slot in ("{np}", "{np0}", "{np2}", "{np02}", "{bare}"):
                text = text.replace(slot, PHRASE_MARK)
            for mark in (PHRASE_MARK, LIST_MARK) if "{list}" in text else (PHRASE_MARK,):
                for tokens in template_tokens(text.replace("{list}", mark), book.reader):
                    known = book.frames.setdefault(tokens, frame)
                    if known != frame:
                        raise ValueError(f"the frame {wording!r} means {frame} but reads like one that means {known}")
    for meaning, cues in words.frames["cues"].items():
        book.cues[meaning] = sorted({tuple(tokenise(cue)) for cue in cues}, key=len, reverse=True)
