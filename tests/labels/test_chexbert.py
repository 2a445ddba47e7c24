"""CheXbertLabeler on a tiny network of the published file format, against BERT itself in float64, text by text."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest
import torch
from chexbert_files import HEADS, VOCABULARY, WORDS, checkpoint_content, tiny_bert, tiny_heads, write_chexbert

from diffrgen.errors import DataError
from diffrgen.evaluate import main
from diffrgen.labels import FINDINGS, State
from diffrgen.labels.chexbert import CheXbertLabeler
from diffrgen.pipeline.labeler import LabelerOptions, make_labeler

# stanfordmlgroup/CheXbert, src/constants.py: the order of the heads, and the classes of each.
CONDITIONS = (
    *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation"),
    *("Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    *("Support Devices", "No Finding"),
)
CLASSES = {0: "Blank", 1: "Positive", 2: "Negative", 3: "Uncertain"}
CLS, SEP, UNK = (VOCABULARY[token] for token in ("[CLS]", "[SEP]", "[UNK]"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_chexbert(tmp_path_factory.mktemp("chexbert"))


@pytest.fixture(scope="module")
def labeler(files):
    return CheXbertLabeler(*files, progress=False, device="cpu")


@pytest.fixture(scope="module")
def texts():
    draw = random.Random(1)
    words = [word for word in WORDS if not word.startswith("##")]
    return [" ".join(draw.choices(words, k=draw.randint(1, 30))) for _ in range(40)]


def token_ids(text: str) -> list[int]:
    """The tokens of a text of whole words, as the release takes them."""
    return [CLS, *(VOCABULARY.get(word, UNK) for word in text.split()[:510]), SEP]


def reference_logits(ids: list[int]) -> list[torch.Tensor]:
    """The logits of one text without padding, in float64."""
    with torch.no_grad():
        first = tiny_bert().double()(torch.tensor([ids])).last_hidden_state[0, 0]
        return [weight.double() @ first + bias.double() for weight, bias in tiny_heads()]


def test_findings_and_states_are_those_of_the_release():
    assert tuple(name.lower() for name in CONDITIONS) == FINDINGS
    assert {int(state): state.name.capitalize() for state in State} == CLASSES


def test_states_are_those_of_bert_in_float64(labeler, texts):
    expected = [[int(logits.argmax()) for logits in reference_logits(token_ids(text))] for text in texts]
    got = labeler(texts)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, expected)
    assert set(np.unique(got[:, :13])) == {0, 1, 2, 3}
    assert set(np.unique(got[:, 13])) == {0, 1}


def test_logits_are_those_of_bert_in_float64(labeler, texts):
    with torch.inference_mode():
        for text in texts[:5]:
            ids = token_ids(text)
            # Padding is masked out.
            padded = torch.tensor([ids + [0] * 9])
            mask = torch.tensor([[1] * len(ids) + [0] * 9])
            got = labeler.network(padded, mask)
            for logits, expected in zip(got, reference_logits(ids), strict=True):
                torch.testing.assert_close(logits[0].double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batches_do_not_matter(files, labeler, texts, batch_size):
    other = CheXbertLabeler(*files, batch_size=batch_size, progress=False, device="cpu")
    np.testing.assert_array_equal(other(texts), labeler(texts))


def test_text_is_cleaned_and_cut_as_in_the_release(labeler):
    # BERT's own normaliser would drop the form feed and join the words round it.
    text = "  Heart is\n\nLARGE.\tNo   effusion ,\x0clungs\x0cclear zebra "
    plain = "heart is large . no effusion , lung ##s clear zebra"
    np.testing.assert_array_equal(labeler([text]), labeler([plain.replace(" ##s", "s")]))
    assert labeler(["heart\x0cis\x0clarge"]).tolist() == labeler(["heart is large"]).tolist()
    assert labeler(["heart\x0cis\x0clarge"]).tolist() != labeler(["heartislarge"]).tolist()
    assert labeler.tokenizer.encode(" ".join(text.split())).ids == token_ids(plain)
    long = " ".join(WORDS[row * row % 11] for row in range(700))
    assert len(token_ids(long)) == 512
    assert labeler.tokenizer.encode(long).ids == token_ids(long)
    assert labeler([long]).tolist() == [[int(logits.argmax()) for logits in reference_logits(token_ids(long))]]


def test_empty_texts_go_through_the_network(labeler):
    expected = [int(logits.argmax()) for logits in reference_logits([CLS, SEP])]
    assert labeler(["", "heart", " \n "])[[0, 2]].tolist() == [expected, expected]
    assert labeler([]).shape == (0, 14)
    with pytest.raises(ValueError, match="got one string"):
        labeler("heart")


def test_head_of_a_finding_gives_its_column(files, tmp_path):
    content = checkpoint_content(prefix="")
    states = [row % width for row, width in enumerate(HEADS)]
    for number, state in enumerate(states):
        content["model_state_dict"][f"linear_heads.{number}.bias"][state] = 1e4
    # The older of torch's formats, and names without "module.".
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    labeler = CheXbertLabeler(tmp_path / "old.pth", files[1] / "vocab.txt", progress=False, device="cpu")
    assert labeler(["heart", ""]).tolist() == [states, states]


QUERY = "module.bert.encoder.layer.1.attention.self.query.weight"
FAULTS = {
    "missing": (lambda w: w.pop(QUERY), rf"{QUERY}: expected \(128, 128\), got no such tensor"),
    "words": (
        lambda w: w.pop("module.bert.embeddings.word_embeddings.weight"),
        "word_embeddings.weight: expected a matrix, got no such tensor",
    ),
    "extra": (lambda w: w.update({"module.bert.more": torch.ones(2)}), r"more: expected no such tensor, got \(2,\)"),
    "shape": (lambda w: w.update({QUERY: torch.ones(128, 3)}), rf"{QUERY}: expected \(128, 128\), got \(128, 3\)"),
    "heads": (
        lambda w: w.update({"module.linear_heads.13.bias": torch.ones(4)}),
        r"linear_heads.13.bias: expected \(2,\), got \(4,\)",
    ),
    "no tensor": (lambda w: w.update({QUERY: "weights"}), "query.weight: expected a tensor, got str"),
    "width": (
        lambda w: w.update({"module.bert.embeddings.word_embeddings.weight": torch.ones(len(VOCABULARY), 100)}),
        "a width that 64 divides, got width 100",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_tensors_that_do_not_fit_are_named(files, tmp_path, name):
    damage, message = FAULTS[name]
    content = checkpoint_content()
    damage(content["model_state_dict"])
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(DataError, match=message):
        CheXbertLabeler(tmp_path / "bad.pth", files[1])


class Payload:
    """An object that would run code if it were unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the pickle was loaded",))


def test_files_that_are_no_checkpoint_are_refused(files, tmp_path):
    path = tmp_path / "file.pth"
    for content, message in (
        ({"model_state_dict": {"module.bert": Payload()}}, "needed a PyTorch checkpoint of tensors alone"),
        ({"state_dict": {}}, "needed a dictionary with 'model_state_dict', got the keys 'state_dict'"),
        (torch.ones(2), "needed a dictionary with 'model_state_dict', got <class 'torch.Tensor'>"),
    ):
        torch.save(content, path)
        with pytest.raises(DataError, match=message):
            CheXbertLabeler(path, files[1])
    for content in (b"", b"this is a report", b"PK\x03\x04 no archive"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=re.escape(f"{path}: needed a PyTorch checkpoint")):
            CheXbertLabeler(path, files[1])
    with pytest.raises(DataError, match="No such file"):
        CheXbertLabeler(tmp_path / "none.pth", files[1])


def test_vocabulary_of_another_network_is_refused(files, tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    with pytest.raises(DataError, match=re.escape(f"{vocabulary}: needed the vocab.txt")):
        CheXbertLabeler(files[0], tmp_path)
    vocabulary.write_text("[PAD]\nheart\n")
    with pytest.raises(DataError, match=re.escape(f"{vocabulary}: needed the vocab.txt")):
        CheXbertLabeler(files[0], tmp_path)
    vocabulary.write_text("\n".join([*VOCABULARY, "more"]))
    with pytest.raises(DataError, match=rf"needed the {len(VOCABULARY)} tokens .* got {len(VOCABULARY) + 1}"):
        CheXbertLabeler(files[0], vocabulary)


def test_options_name_the_labeler(files):
    checkpoint, vocabulary = files
    labeler = make_labeler(LabelerOptions("chexbert", checkpoint, vocabulary), default="rule")
    assert isinstance(labeler.read, CheXbertLabeler)
    assert (labeler.name, make_labeler(LabelerOptions(), default="rule").name) == ("chexbert", "rule")
    with pytest.raises(DataError, match=r"got no --chexbert-vocabulary$"):
        make_labeler(LabelerOptions("chexbert", checkpoint), default="rule")
    with pytest.raises(DataError, match="for the labeler rule; add --labeler chexbert"):
        make_labeler(LabelerOptions(chexbert=checkpoint), default="rule")


def test_predictions_are_scored_with_chexbert(no_java_once, files, labeler, tmp_path, capsys):
    pairs = [("heart is large .", "no effusion ."), ("clear lungs .", "small left effusion , edema .")]
    path, output = tmp_path / "dump.json", tmp_path / "scores.json"
    path.write_text(json.dumps([{"hypothesis": said, "reference": true} for said, true in pairs]))
    flags = ["--labeler", "chexbert", "--chexbert", str(files[0]), "--chexbert-vocabulary", str(files[1])]
    assert main(["--predictions", str(path), "--output", str(output), *flags]) == 0
    assert "labeler: chexbert" in " ".join(capsys.readouterr().out.split())
    scores = json.loads(output.read_text())
    assert (scores["labeler"], scores["truth"]) == ("chexbert", "chexbert")
    said, true = (labeler(list(texts)) == State.POSITIVE for texts in zip(*pairs, strict=True))
    assert scores["clinical_14"]["micro"]["recall"] == pytest.approx((said & true).sum() / true.sum())
    assert [f["support"] for f in scores["clinical_14"]["per_finding"]] == true.sum(0).tolist()
