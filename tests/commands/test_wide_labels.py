"""18-wide labels, as PromptMRG's annotation of MIMIC-CXR has them: loaded, trained on, prompted with, evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from chexbert_files import write_chexbert
from safetensors.torch import load_file

from diffrgen import evaluate as evaluate_command
from diffrgen import train as train_command
from diffrgen.errors import DataError
from diffrgen.labels import FINDINGS, RuleLabeler, base_frequencies
from diffrgen.labels.chexbert import CheXbertLabeler
from diffrgen.model.disease import adapted_class_prior, initial_class_prior
from diffrgen.phantom import PhantomOptions, write_phantom
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.records import read_annotation
from diffrgen.training.run import train

pytestmark = pytest.mark.usefixtures("no_java")

# The names that PromptMRG's author gives for the four beyond CheXbert's, in their order.
MORE = ("aorta abnormal", "bone/spine abnormal", "hemidiaphragm abnormal", "lung volume abnormal")
SMALL = [
    *("--image.size", "64", "--image.resize", "68", "--retriever.max-steps", "2", "--retriever.batch-size", "8"),
    *("--retriever.neighbours", "3", "--optimiser.batch-size", "8", "--text.max-tokens", "24"),
    *("--generation.beams", "1", "--max-steps", "2", "--optimiser.epochs", "1"),
]


def extra_states(number: int) -> list[int]:
    return [number % 2, 0, 3 * (number % 3 == 0), 1]


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """The phantom's annotation with four states more in every record."""
    path = write_phantom(tmp_path_factory.mktemp("wide"), PhantomOptions(studies=30, size=64))
    content = json.loads(path.read_text())
    for records in content.values():
        for number, record in enumerate(records):
            record["labels"] += extra_states(number)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def run(wide, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "wide"
    train(train_command.parse_options(["--data", str(wide), "--output", str(output), *SMALL]))
    return output


def read_metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())["DiffRGenNet"]


def test_the_network_has_a_state_and_a_prompt_token_for_each_of_18(run, wide):
    model = RunFolder(run).model()
    assert model.config.findings == 18
    assert load_file(run / "model.safetensors")["classifier.head.weight"].shape[0] == 4 * 18
    # A different state of the last auxiliary finding is a different prompt, and so another loss.
    studies = read_annotation(wide)["train"][:2]
    torch.manual_seed(0)
    batch = {
        "pixel_values": torch.rand(2, model.config.encoder.num_channels, 64, 64),
        "retrieved": torch.rand(2, 3, model.config.retrieved_width),
        "retrieved_mask": torch.ones(2, 3, dtype=torch.bool),
        "states": torch.tensor([study.labels for study in studies]),
        "labels": torch.full((2, 4), 7),
    }
    with torch.no_grad():
        first = model(**batch)
        batch["states"][:, 17] = 2
        second = model(**batch)
    assert first.disease_logits.shape == (2, 4, 18)
    # Eq. 9 by hand: the mean cross-entropy over all 18.
    log_share = first.disease_logits.double().log_softmax(1)
    states = torch.tensor([study.labels for study in studies])
    expected = -log_share.gather(1, states[:, None]).mean()
    assert first.disease_loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert first.language_loss.item() != second.language_loss.item()


def test_predictions_name_all_18_and_metrics_count_14(run, wide):
    folder = run / "evaluation" / "test"
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    for line in lines:
        assert tuple(line["states"]) == tuple(line["positive_probability"]) == FINDINGS + MORE
    metrics = read_metrics(folder)
    assert [row["finding"] for row in metrics["clinical_14"]["per_finding"]] == list(FINDINGS)
    truth = np.array([study.labels for study in read_annotation(wide)["test"]])
    assert [row["support"] for row in metrics["clinical_14"]["per_finding"]] == (truth[:, :14] == 1).sum(0).tolist()
    assert (metrics["labeler"], metrics["truth"]) == ("rule", "data")


def test_a_run_of_18_is_evaluated_on_data_of_14_or_none_by_chexbert(run, wide, tmp_path):
    """PromptMRG's own setting: trained on MIMIC-CXR (18), tested on IU X-Ray (14)."""
    checkpoint, vocabulary = write_chexbert(tmp_path)
    flags = ["--labeler", "chexbert", "--chexbert", str(checkpoint), "--chexbert-vocabulary", str(vocabulary)]
    records = json.loads(wide.read_text())["test"]
    data = tmp_path / "annotation.json"
    images = ["--images", str(wide.parent / "images"), "--generation.beams", "1"]
    for name, labels, expected in (("data", [0] * 13 + [1], "data"), ("none", None, "chexbert")):
        data.write_text(json.dumps([record | {"labels": labels} for record in records]))
        folder = tmp_path / name
        arguments = [str(run), "--data", str(data), "--output", str(folder), *images, *flags]
        assert evaluate_command.main(arguments) == 0
        metrics = read_metrics(folder)
        assert (metrics["labeler"], metrics["truth"]) == ("chexbert", expected)
    said = CheXbertLabeler(checkpoint, vocabulary, progress=False)([record["report"] for record in records])
    assert [row["support"] for row in metrics["clinical_14"]["per_finding"]] == (said == 1).sum(0).tolist()


def test_training_keeps_chexbert_for_later_evaluations(wide, tmp_path):
    checkpoint, vocabulary = write_chexbert(tmp_path)
    content = json.loads(wide.read_text())
    for record in content["train"] + content["val"] + content["test"][1:]:
        del record["labels"]
    content["test"][0]["labels"] = content["test"][0]["labels"][:14]
    data, output = tmp_path / "annotation.json", tmp_path / "run"
    data.write_text(json.dumps(content))
    arguments = ["--data", str(data), "--images", str(wide.parent / "images"), "--output", str(output), *SMALL]
    flags = ["--labeler", "chexbert", "--chexbert", str(checkpoint)]
    with pytest.raises(DataError, match="got no --chexbert-vocabulary"):
        train(train_command.parse_options([*arguments, *flags]))
    flags += ["--chexbert-vocabulary", str(vocabulary), "--overwrite"]
    _, evaluation = train(train_command.parse_options([*arguments, *flags]))
    count = len(content["test"])
    assert evaluation.model.labeler == "chexbert"
    assert evaluation.model.truth_from == f"data, chexbert for {count - 1} of {count} studies"
    states = CheXbertLabeler(checkpoint, vocabulary, progress=False)([r["report"] for r in content["train"]])
    frequency = (states == 1).mean(0)
    prior = load_file(output / "model.safetensors")["classifier.class_prior"]
    np.testing.assert_allclose(prior, np.maximum(frequency / frequency.max(), 1e-4), rtol=1e-5)
    # Asked for by nobody, it still reads for this run; the rules read where they are asked for.
    for more, name in (([], "chexbert"), (["--labeler", "rule"], "rule")):
        folder = tmp_path / name
        assert evaluate_command.main([str(output), "--output", str(folder), "--generation.beams", "1", *more]) == 0
        assert read_metrics(folder)["labeler"] == name


def test_priors_of_auxiliary_findings_stay_one():
    """As in PromptMRG's release, which appends [1, 1, 1, 1] to the priors of the 14."""
    states = torch.zeros(8, 18, dtype=torch.int64)
    states[:4, 0] = 1
    states[:2, 5] = 1
    states[:, 16] = 1
    expected = torch.tensor([1.0, *[1e-4] * 4, 0.5, *[1e-4] * 8, 1, 1, 1, 1])
    torch.testing.assert_close(initial_class_prior(states), expected)
    positive = torch.full((8, 18), 0.2)
    positive[:, 5], positive[:, 16] = 0.1, 0.9
    torch.testing.assert_close(adapted_class_prior(initial_class_prior(states), positive, states), expected)


def test_base_frequencies_by_hand():
    states = np.array([[1, *[0] * 17], [1, 2, *[3] * 15, 1], [2, 1, *[0] * 16], [0, 1, *[0] * 15, 1]])
    shares = base_frequencies(states)
    assert list(shares) == [*FINDINGS, *MORE]
    assert [shares[name] for name in (FINDINGS[0], FINDINGS[1], FINDINGS[2], MORE[3])] == [0.5, 0.5, 0.0, 0.5]
    assert base_frequencies(RuleLabeler()(["Cardiomegaly.", "Clear."]))["cardiomegaly"] == 0.5
    for wrong in (np.zeros((0, 14)), np.zeros((2, 13)), np.zeros(14)):
        with pytest.raises(ValueError, match="expected states of shape"):
            base_frequencies(wrong)
