"""Text handling by protocol: worked by hand from the published code's rules."""

from __future__ import annotations

import pytest

from diffrgen.text import apply_protocol

LONG = " ".join(["word"] * 150)


def test_promptmrg_cuts_references_and_spaces_periods_of_hypotheses():
    said, true = apply_protocol(
        "promptmrg",
        ["No effusion.  Heart large."],
        [
            "1. No EFFUSION, heart/lungs ok.",
        ],
    )
    assert said == ["no effusion . heart large ."]
    assert true == ["no effusion heartlungs ok ."]
    said, true = apply_protocol("promptmrg", [LONG], [LONG])
    assert len(said[0].split()) == 150
    assert len(true[0].split()) == 100


@pytest.mark.parametrize(("protocol", "words", "least"), [("r2gen-iu", 59, 3), ("r2gen-mimic", 99, 10)])
def test_r2gen_cuts_references_and_forgets_rare_training_words(protocol, words, least):
    training = ["The common word."] * least + ["a rare word"] * (least - 1)
    said, true = apply_protocol(protocol, ["A RARE common word."], ["A rare, common word."], training=training)
    assert said == ["a rare common word ."]
    assert true == ["<unk> <unk> common word ."]
    _, true = apply_protocol(protocol, [LONG], [LONG], training=training)
    assert len(true[0].split()) == words


def test_raw_touches_white_space_only():
    assert apply_protocol("raw", [" A\n b."], ["C,  d"]) == (["A b."], ["C, d"])


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match=r"expected a protocol out of promptmrg, .* got 'coco'"):
        apply_protocol("coco", ["a"], ["b"])
    with pytest.raises(ValueError, match="'r2gen-iu' needs the training reports"):
        apply_protocol("r2gen-iu", ["a"], ["b"])
