"""Classes of words: disjoint, complete for the phantom's wordings, and found among a tokenizer's tokens."""

from __future__ import annotations

import itertools
import re

from diffrgen.labels import CLASSES, OTHER, WORDS, word_class
from diffrgen.phantom.language.wordings import PLACE_SLOTS, SEVERITY_SLOTS, load_wordings
from diffrgen.pipeline.word_tokens import finding_tokens, token_classes
from diffrgen.text import train_tokenizer

# Parts of the phantom's wordings that say nothing themselves: "small-sized", "the left lower lobe of both lungs".
EMPTY = {"sized", "grade", "the", "lobe", "lobes", "lung", "lungs", "zone", "zones"}


def test_no_word_is_in_two_classes():
    for one, other in itertools.combinations(WORDS.values(), 2):
        assert not set(one) & set(other)
    assert CLASSES == ("severity", "side", "zone", "change", OTHER)


def test_every_word_of_the_phantoms_slots_has_its_class():
    slots = load_wordings().slots
    for slot in SEVERITY_SLOTS:
        words = {word for phrases in slots[slot].values() for phrase in phrases for word in re.findall(r"\w+", phrase)}
        assert {word_class(word) for word in words - EMPTY} == {"severity"}
    for slot in PLACE_SLOTS:
        words = {word for phrases in slots[slot].values() for phrase in phrases for word in re.findall(r"\w+", phrase)}
        assert {word_class(word) for word in words - EMPTY} <= {"side", "zone"}
    for change in ("new", "increased", "decreased", "unchanged", "resolved"):
        for frame in load_wordings().frames[change]:
            words = re.findall(r"\w+", frame.lower())
            assert "change" in map(word_class, words) or re.search("change|no longer", frame), frame


def test_tokens_that_are_whole_words_have_a_class():
    texts = ["there is a moderate left pleural effusion , increased", "bibasilar atelectasis is unchanged"] * 4
    tokenizer = train_tokenizer(texts, vocab_size=400, min_frequency=1)
    classes = token_classes(tokenizer)
    assert len(classes) == len(tokenizer)
    for word, expected in {"moderate": "severity", "left": "side", "increased": "change", "effusion": "other"}.items():
        assert CLASSES[classes[tokenizer.convert_tokens_to_ids(word)]] == expected
    told = tokenizer.convert_ids_to_tokens(list(finding_tokens(tokenizer)))
    assert set(told) == {"moderate", "left", "increased", "bibasilar", "unchanged"}
