"""Write the report of a study: findings, negatives, devices, changes, what else is visible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from diffrgen.labels.findings import FINDINGS, NO_FINDING, State
from diffrgen.phantom.language.devices import device_sentence
from diffrgen.phantom.language.incidentals import optional_sentences
from diffrgen.phantom.language.phrasing import choose_template, fill, fill_frame, finish, join_list, noun_phrase, pick
from diffrgen.phantom.language.wordings import Wordings, load_wordings
from diffrgen.phantom.patients.anatomy import Anatomy
from diffrgen.phantom.patients.states import (
    PARENCHYMAL,
    SUPPORT_DEVICES,
    FindingState,
    Grade,
    StudyState,
)

# How often a report negates a finding that is absent.
NEGATED: Mapping[str, float] = MappingProxyType(
    {
        "enlarged cardiomediastinum": 0.38,
        "cardiomegaly": 0.45,
        "lung opacity": 0.45,
        "lung lesion": 0.05,
        "edema": 0.25,
        "consolidation": 0.4,
        "pneumonia": 0.14,
        "atelectasis": 0.03,
        "pneumothorax": 0.6,
        "pleural effusion": 0.58,
        "pleural other": 0.03,
        "fracture": 0.14,
        SUPPORT_DEVICES: 0.03,
    }
)
PAIRS = (
    ("pleural effusion", "atelectasis"),
    ("cardiomegaly", "edema"),
    ("edema", "pleural effusion"),
    ("consolidation", "pleural effusion"),
    ("lung opacity", "atelectasis"),
    ("pneumothorax", "fracture"),
)
LUNG, PLEURA, HEART, BONE, TUBES = "lung", "pleura", "heart", "bone", "tubes"
TOPIC: Mapping[str, str] = MappingProxyType(
    {
        "enlarged cardiomediastinum": HEART,
        "cardiomegaly": HEART,
        "pneumothorax": PLEURA,
        "pleural effusion": PLEURA,
        "pleural other": PLEURA,
        "fracture": BONE,
        SUPPORT_DEVICES: TUBES,
        **dict.fromkeys(PARENCHYMAL, LUNG),
    }
)
# NOTE: topics and findings come in one order, so that the text so far and the states determine the next finding. A sentence
# gives severity and side before the finding: in a random order, the decoder cannot know which finding they belong to.
TOPICS = (HEART, LUNG, PLEURA, BONE, TUBES)
# A topic and a sentence about it.
TopicSentence = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Report:
    """A report and its states, one per finding in the order of `FINDINGS`."""

    text: str
    labels: tuple[int, ...]


def write_report(anatomy: Anatomy, study: StudyState, rng: np.random.Generator, *, variety: float = 1.0) -> Report:
    """Write the report of `study`: each positive or uncertain finding is mentioned, some absent ones are negated.

    `variety` is the share of all wordings that reports are written with.
    """
    words = load_wordings(variety)
    negated = _choose_negated(study, rng)
    by_topic = [
        *_finding_sentences(study, words, rng),
        *_negative_sentences(negated, words, rng),
        *((TUBES, device_sentence(device, words, rng)) for device in study.devices),
    ]
    labels = report_labels(study, negated)
    body = [sentence for topic in TOPICS for _, sentence in _of_topic(by_topic, topic)]
    length = sum(len(sentence.split()) for sentence in body)
    extra = optional_sentences(anatomy, study, words, rng, length=length, healthy=bool(labels[NO_FINDING]))
    sentences = [*extra.opening, *body, *extra.closing]
    return Report(" ".join(finish(sentence) for sentence in sentences), labels)


def _of_topic(by_topic: list[TopicSentence], topic: str) -> list[TopicSentence]:
    return [entry for entry in by_topic if entry[0] == topic]


def report_labels(study: StudyState, negated: Iterable[str]) -> tuple[int, ...]:
    """Return the 14 states of a report; no finding is 1 iff none is present but devices."""
    labels = dict.fromkeys(FINDINGS, State.BLANK)
    labels.update(dict.fromkeys(negated, State.NEGATIVE))
    labels.update({name: state.state for name, state in study.findings.items()})
    if study.devices:
        labels[SUPPORT_DEVICES] = study.device_state
    if not study.present:
        labels[FINDINGS[NO_FINDING]] = State.POSITIVE
    return tuple(int(labels[name]) for name in FINDINGS)


def _choose_negated(study: StudyState, rng: np.random.Generator) -> list[str]:
    negated = []
    for name, chance in NEGATED.items():
        draw = rng.random()
        absent = name not in study.findings if name != SUPPORT_DEVICES else not study.devices
        if name == "lung opacity" and any(study.grade(other) for other in PARENCHYMAL):
            absent = False
        if absent and draw < chance:
            negated.append(name)
    return negated


def _finding_sentences(study: StudyState, words: Wordings, rng: np.random.Generator) -> list[TopicSentence]:
    waiting = dict(study.findings)
    sentences: list[TopicSentence] = []
    for first, second in PAIRS:
        if rng.random() < 0.45 and _can_pair(waiting.get(first), waiting.get(second)):
            sentences.append((TOPIC[first], _pair(waiting.pop(first), waiting.pop(second), words, rng)))
    names = [name for name in FINDINGS if name in waiting]
    sentences += [(TOPIC[name], finding_sentence(waiting[name], words, rng)) for name in names]
    return sentences


def _can_pair(first: FindingState | None, second: FindingState | None) -> bool:
    if first is None or second is None or first.change != second.change:
        return False
    return first.severity is not None and second.severity is not None


def _pair(first: FindingState, second: FindingState, words: Wordings, rng: np.random.Generator) -> str:
    frame = pick(words.frames["pair"], rng)
    text = fill_frame(frame, noun_phrase(first, words, rng), noun_phrase(second, words, rng))
    return text + (pick(words.frames["pair_tails"][first.change], rng) if first.change else "")


def finding_sentence(state: FindingState, words: Wordings, rng: np.random.Generator) -> str:
    """Return one sentence that expresses `state`, with its change if it has one."""
    entry = words.findings[state.finding]
    if state.grade == Grade.ABSENT:
        return pick(words.frames["resolved"], rng).replace("{bare}", pick(entry["bare"], rng))
    kind = "positive" if state.severity else "uncertain"
    if kind == "positive" and state.change and rng.random() < 0.6:
        return fill_frame(pick(words.frames[state.change], rng), noun_phrase(state, words, rng))
    if rng.random() < 0.4:
        text = fill(choose_template(entry[kind], state, rng), state, words, rng)
    else:
        text = fill_frame(pick(words.frames[kind], rng), noun_phrase(state, words, rng))
    return text + (pick(words.frames["tails"][state.change], rng) if state.change else "")


def _negative_sentences(negated: list[str], words: Wordings, rng: np.random.Generator) -> list[TopicSentence]:
    waiting = list(negated)
    sentences: list[TopicSentence] = []
    joints = list(words.joint)
    rng.shuffle(joints)  # type: ignore[arg-type]
    for joint in joints:
        if set(joint["negative"]) <= set(waiting) and rng.random() < 0.25:
            sentences.append((TOPIC[joint["negative"][0]], joint["text"]))
            waiting = [name for name in waiting if name not in joint["negative"]]
    listed = [
        name for name in waiting if TOPIC[name] in (LUNG, PLEURA) and name != "lung opacity" and rng.random() < 0.75
    ]
    while listed:
        count = int(rng.integers(1, 4))
        group, listed = listed[:count], listed[count:]
        nouns = [pick(words.findings[name]["bare"], rng) for name in group]
        frame = pick(words.frames["negative"], rng)
        sentences.append((TOPIC[group[0]], frame.replace("{list}", join_list(nouns))))
        waiting = [name for name in waiting if name not in group]
    for name in waiting:
        sentences.append((TOPIC[name], pick(words.findings[name]["negative"], rng)))
    return sentences
