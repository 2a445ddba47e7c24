"""The tokenizer: ids by hand, round trips, the same vocabulary in every process, loading from folders."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from diffrgen.errors import DataError
from diffrgen.text import PROMPT_TOKENS, clean_report, decode_report, load_tokenizer, train_tokenizer
from diffrgen.text.vocabulary import ALL_PROMPT_TOKENS

TEXTS = [
    "the heart size is normal . no x-ray sign of effusion .",
    "the lungs are clear . there is a well-defined 35 cm opacity in the left mid-lung .",
    "follow-up of the xxxx . the heart is enlarged . t8-t9 endplate change .",
] * 3
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ALL_PROMPT_TOKENS]
BERT_PIECES = ["heart", "clear", "lungs", "the", "are", "x", "ray", "-", ".", ",", "(", ")", "35", "##s", "lung"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS)


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    """A folder as a local BERT checkpoint has it: one token a line, the prompt tokens unknown."""
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL[:5], *BERT_PIECES]) + "\n", encoding="utf-8")
    return tmp_path


def round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    return decode_report(tokenizer, tokenizer(text).input_ids)


def test_special_tokens_have_fixed_ids_and_frame_a_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_ids_to_tokens(list(range(25))) == SPECIAL
    ids = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert (*ids, tokenizer.mask_token_id) == (0, 1, 2, 3, 4)
    framed = tokenizer.convert_ids_to_tokens(tokenizer("the heart .").input_ids)
    assert framed == ["[CLS]", "the", "heart", ".", "[SEP]"]
    assert tokenizer("[POS] [BLA] [UNC] [NEG] heart", add_special_tokens=False).input_ids[:4] == [6, 5, 8, 7]
    assert set(tokenizer.all_special_ids) == set(range(25))


def test_frequent_words_are_whole_and_others_are_spelled(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("xxxx effusion x-ray") == ["xxxx", "effusion", "x-ray"]
    spelled = tokenizer.tokenize("quiz")
    assert "".join(piece.removeprefix("##") for piece in spelled) == "quiz"
    assert tokenizer.unk_token not in spelled


@given(
    words=st.lists(st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", min_size=1, max_size=12), min_size=1, max_size=12)
)
@settings(max_examples=300, deadline=None)
def test_every_word_of_letters_digits_hyphens_and_dots_comes_back(
    tokenizer: PreTrainedTokenizerFast, words: list[str]
) -> None:
    text = " ".join(words)
    assert round_trip(tokenizer, text) == text


@pytest.mark.parametrize("rules", ["mimic", "plain"])
@pytest.mark.parametrize(
    "report",
    [
        "The nodule measures 3.5 cm (was 3 cm).",
        "Patient's follow-up: AP/PA view, left-sided PICC - tip unclear.",
        "Mid- and lower-lung opacities; 1.2 x 3.4-cm, no change.",
    ],
)
def test_hyphens_decimals_slashes_and_parentheses_come_back(report: str, rules: str) -> None:
    cleaned = clean_report(report, rules=rules).lower()
    assert round_trip(train_tokenizer([cleaned, *TEXTS]), cleaned) == cleaned


def test_every_iu_report_comes_back(shared: Path) -> None:
    content = json.loads((shared / "iu_xray" / "annotation.json").read_text(encoding="utf-8"))
    reports = {split: [record["report"] for record in records] for split, records in content.items()}
    for rules in ("iu", "mimic", "plain"):
        cleaned = {k: [clean_report(text, rules=rules).lower() for text in texts] for k, texts in reports.items()}
        trained = train_tokenizer(cleaned["train"])
        every = [text for texts in cleaned.values() for text in texts]
        known = [text for text in every if trained.unk_token_id not in trained(text).input_ids]
        assert len(every) - len(known) <= (3 if rules == "plain" else 0)
        assert [round_trip(trained, text) for text in known] == known
    assert trained.tokenize("xxxx") == ["xxxx"]


def test_decoding_drops_special_tokens_but_not_the_unknown_word(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "[POS] [NEG] no π is clear ."
    ids = [*tokenizer(text).input_ids, tokenizer.pad_token_id, tokenizer.pad_token_id]
    assert decode_report(tokenizer, ids) == "no [UNK] is clear ."
    assert decode_report(tokenizer, torch.tensor(ids)) == "no [UNK] is clear ."
    assert decode_report(tokenizer, []) == ""


def test_the_vocabulary_is_the_same_in_every_process(tokenizer: PreTrainedTokenizerFast) -> None:
    program = (
        "import hashlib, json, sys; from diffrgen.text import train_tokenizer\n"
        "vocabulary = train_tokenizer(json.load(sys.stdin)).get_vocab()\n"
        "print(hashlib.sha256(json.dumps(sorted(vocabulary.items())).encode()).hexdigest())"
    )
    root = Path(__file__).resolve().parents[2]
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        texts = json.dumps(list(reversed(TEXTS)) if seed == "2" else TEXTS)
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, input=texts, capture_output=True, text=True, env=environment, check=True)
        mine = hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()
        assert done.stdout.strip() == mine


def test_the_vocabulary_keeps_to_its_size() -> None:
    smallest = len(SPECIAL) + 2 * 38
    small = train_tokenizer(TEXTS, vocab_size=smallest + 10)
    assert len(small) == smallest + 10
    assert all(round_trip(small, text) == text for text in TEXTS)
    assert len(train_tokenizer(TEXTS, vocab_size=smallest)) == smallest
    with pytest.raises(ValueError, match=rf"vocab-size: expected at least {smallest}, .*, got {smallest - 1}"):
        train_tokenizer(TEXTS, vocab_size=smallest - 1)
    with pytest.raises(ValueError, match="expected texts with words"):
        train_tokenizer(["", " "])


def test_a_saved_tokenizer_loads_as_it_was(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert loaded.get_vocab() == tokenizer.get_vocab()
        assert set(loaded.all_special_ids) == set(range(25))
        assert loaded("[POS] the hearts .").input_ids == tokenizer("[POS] the hearts .").input_ids
        assert decode_report(loaded, [2, 6, *tokenizer("x-ray .").input_ids]) == "x-ray ."


def test_a_bert_vocabulary_gets_the_prompt_tokens_at_its_end(bert_folder: Path) -> None:
    loaded = load_tokenizer(bert_folder)
    assert len(loaded) == 5 + len(BERT_PIECES) + 20
    assert loaded.convert_tokens_to_ids(list(PROMPT_TOKENS)) == [20, 21, 22, 23]
    assert loaded.convert_tokens_to_ids(["[BLA>BLA]", "[NEG>POS]", "[UNC>UNC]"]) == [24, 33, 39]
    text = "[UNC] The hearts, clear (X-ray)."
    pieces = ["[CLS]", "[UNC]", "the", "heart", "##s", ",", "clear", "(", "x", "-", "ray", ")", ".", "[SEP]"]
    assert loaded.convert_ids_to_tokens(loaded(text).input_ids) == pieces
    assert round_trip(loaded, "the x-ray lungs are clear .") == "the x-ray lungs are clear ."
    assert round_trip(loaded, "the mass .") == "the [UNK] ."
    loaded.save_pretrained(bert_folder / "again")
    assert load_tokenizer(bert_folder / "again").get_vocab() == loaded.get_vocab()


def test_truncation_and_padding_left_in_a_file_have_no_effect(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert len(load_tokenizer(tmp_path).backend_tokenizer.encode("the heart is normal .").ids) == 7


def test_special_tokens_may_have_other_names(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["<pad>", "[UNK]", "<s>", "</s>", "<mask>", "heart"]))
    names = {"pad_token": "<pad>", "cls_token": {"content": "<s>"}, "sep_token": "</s>", "mask_token": "<mask>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    loaded = load_tokenizer(tmp_path)
    assert loaded("Heart").input_ids == [2, 5, 3]
    assert round_trip(loaded, "heart") == "heart"


def test_folders_without_a_usable_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json or vocab\.txt, got .*, which has neither"):
        load_tokenizer(tmp_path)
    with pytest.raises(DataError, match="which does not exist"):
        load_tokenizer(tmp_path / "absent")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nheart\n")
    with pytest.raises(DataError, match=r"lacks the special tokens \[CLS\], \[SEP\], \[MASK\]"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"vocab\.txt is not a vocabulary"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(DataError, match=r"tokenizer_config\.json: expected an object, got list"):
        load_tokenizer(tmp_path)
