"""Training the image encoder on labels, before the retriever and the network see it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_training
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from diffrgen import train as train_command
from diffrgen.errors import DataError
from diffrgen.fitting.checkpoint import FitCheckpoint, FitStopped
from diffrgen.images import ImageTransform
from diffrgen.images.encoder import PatchEncoder, encoder_config
from diffrgen.images.resized import read_resized
from diffrgen.labels import DISEASES, State
from diffrgen.pretraining import LabelledImage, PretrainOptions, label_trained_encoder, read_labelled
from diffrgen.pretraining.fit import FitSettings, LabelClassifier, LabelledImages, _Fit, fit_on_labels, known_loss
from diffrgen.pretraining.labelled import UNKNOWN, studies_as_labelled
from diffrgen.records import Study
from diffrgen.training.options import TrainOptions

BRIGHT = DISEASES.index("pleural effusion")
TRANSFORM = ImageTransform(size=32, resize=36)
OPTIONS = PretrainOptions(epochs=2, batch_size=4, learning_rate=1e-3)


@pytest.fixture
def images(tmp_path: Path) -> list[LabelledImage]:
    """Twelve images, of which the bright ones show an effusion."""
    made = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        shown = number % 2
        Image.fromarray(np.full((40, 40), 60 + 120 * shown, np.uint8)).save(path)
        truth = [0] * len(DISEASES)
        truth[BRIGHT], truth[0] = shown, UNKNOWN
        made.append(LabelledImage(path, tuple(truth)))
    return made


def tiny_encoder() -> PatchEncoder:
    torch.manual_seed(0)
    return PatchEncoder(encoder_config("tiny"))


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in module.state_dict().values()])


def test_loss_is_that_of_the_known_labels_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0]])
    # -log sigmoid(2) and -log(1 - sigmoid(-1)); the first is unknown.
    expected = (math.log1p(math.exp(-2.0)) + math.log1p(math.exp(-1.0))) / 2
    assert known_loss(logits, torch.tensor([[UNKNOWN, 1, 0]])).item() == pytest.approx(expected, rel=1e-6)
    assert known_loss(logits, torch.full((1, 3), UNKNOWN)).item() == 0.0


def test_encoder_learns_what_an_image_shows_and_is_kept(images: list[LabelledImage], tmp_path: Path) -> None:
    encoder = tiny_encoder()
    before = weights(encoder)
    record = label_trained_encoder(
        tmp_path / "encoder",
        encoder,
        images,
        images,
        FitSettings(PretrainOptions(epochs=30, batch_size=4, learning_rate=1e-3), progress=False),
        transform=TRANSFORM,
        read=read_resized,
    )
    kept = PatchEncoder.from_pretrained(tmp_path / "encoder")
    assert record["auroc"] == {"pleural effusion": 1.0}
    assert record["steps"] == 90
    assert record["images"] == 12
    assert json.loads((tmp_path / "encoder" / "pretraining.json").read_text())["auroc"] == record["auroc"]
    assert not torch.equal(weights(kept), before)


def test_fit_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    images: list[LabelledImage], tmp_path: Path
) -> None:
    def fitted(checkpoint: FitCheckpoint | None) -> torch.Tensor:
        torch.manual_seed(1)
        data = LabelledImages(images, TRANSFORM, read=read_resized)
        return weights(fit_on_labels(tiny_encoder(), data, FitSettings(OPTIONS, progress=False, checkpoint=checkpoint))[0])

    whole = fitted(None)
    with pytest.raises(FitStopped, match="image encoder is fitted to step 1 of 6"):
        fitted(FitCheckpoint(tmp_path / "fit.state", stop=lambda: True, what="image encoder"))
    torch.testing.assert_close(fitted(FitCheckpoint(tmp_path / "fit.state")), whole, rtol=0, atol=0)


def test_rates_of_the_fit_rise_and_fall_as_its_options_say(images: list[LabelledImage]) -> None:
    """Thirty steps, three of warm-up; the classifier's rate is five times that of the encoder."""
    options = PretrainOptions(epochs=10, batch_size=4, learning_rate=1e-3)
    model = LabelClassifier(tiny_encoder(), dropout=0.0, prevalence=torch.full((len(DISEASES),), 0.5))
    fit = _Fit(model, LabelledImages(images, TRANSFORM, read=read_resized), FitSettings(options))
    rates = []
    for _ in range(fit.steps):
        rates.append(sorted({group["lr"] for group in fit.optimiser.param_groups}))
        fit.optimiser.step()
        fit.schedule.step()
    shares = [0.0, 1 / 3, 2 / 3, *((1 + math.cos(math.pi * step / 27)) / 2 for step in range(27))]
    assert rates[0] == [0.0]
    for found, share in zip(rates[1:], shares[1:], strict=True):
        assert found == pytest.approx([1e-3 * share, 5e-3 * share], abs=1e-9)


def test_a_learning_rate_that_diverges_is_named(images: list[LabelledImage]) -> None:
    data = LabelledImages(images, TRANSFORM, read=read_resized)
    options = PretrainOptions(epochs=20, batch_size=4, learning_rate=1e30)
    with pytest.raises(DataError, match=r"--pretrain\.learning-rate"):
        fit_on_labels(tiny_encoder(), data, FitSettings(options, progress=False))


def test_studies_give_each_of_their_images_the_states(tmp_path: Path) -> None:
    states = [int(State.BLANK)] * 14
    states[1], states[2], states[3] = State.POSITIVE, State.UNCERTAIN, State.NEGATIVE
    paths = (tmp_path / "a.png", tmp_path / "b.png")
    study = Study(id="s", patient_id="p", images=paths, report="r", split="train", labels=tuple(states))
    expected = (0, 1, UNKNOWN, 0, *[0] * 9)
    assert studies_as_labelled([study]) == [LabelledImage(path, expected) for path in paths]


def table(folder: Path, text: str) -> Path:
    (folder / "a.png").touch()
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"


def truth_of(folder: Path, text: str) -> dict[str, int]:
    (row,) = read_labelled(table(folder, text), folder)
    return dict(zip(DISEASES, row.truth, strict=True))


def test_labels_of_nih(tmp_path: Path) -> None:
    truth = truth_of(tmp_path, "Image Index,Finding Labels\na.png,Effusion|Mass|Hernia\n")
    assert [name for name, value in truth.items() if value == 1] == ["lung lesion", "pleural effusion"]
    unknown = {"enlarged cardiomediastinum", "fracture", "support devices", "lung opacity"}
    assert {name for name, value in truth.items() if value == UNKNOWN} == unknown
    normal = truth_of(tmp_path, "Image Index,Finding Labels\na.png,No Finding\n")
    assert normal["lung opacity"] == 0
    assert 1 not in normal.values()


def test_labels_of_chexpert(tmp_path: Path) -> None:
    truth = truth_of(tmp_path, "Path,Cardiomegaly,Edema,Fracture,Age\na.png,1.0,-1.0,,63\n")
    assert truth == dict.fromkeys(DISEASES, UNKNOWN) | {"cardiomegaly": 1, "fracture": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a column path or filename"),
        ("path,age\na.png,3\n", "expected a column path or filename"),
        ("path,edema\n", "expected at least one image"),
        ("path,edema\nb.png,1\n", r"line 2: expected an image below .*'b\.png'"),
        ("path,edema\n../a.png,1\n", "which is not there"),
        ("path,edema\na.png,yes\n", "line 2: edema: expected 1, 0, -1 or nothing, got 'yes'"),
        ("path,edema\na.png,1,2\n", "line 2: expected 2 fields, got 3"),
        ("image,Finding Labels\na.png,Edema|Gout\n", "line 2: .*got 'gout'"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_labelled(table(tmp_path, text), tmp_path)


def test_options_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(DataError, match="must be given together"):
        TrainOptions(extra_labelled=Path("labels.csv"))
    with pytest.raises(DataError, match=r"requires --pretrain\.epochs of at least 1"):
        TrainOptions(extra_labelled=Path("labels.csv"), extra_images=Path("images"))
    with pytest.raises(DataError, match=r"expected either --pretrain\.epochs or --init"):
        TrainOptions(init="runs/a", pretrain=PretrainOptions(epochs=1))
    with pytest.raises(DataError, match=r"--pretrain\.epochs"):
        TrainOptions(freeze="encoder")
    with pytest.raises(DataError, match=r"--pretrain\.batch-size"):
        PretrainOptions(batch_size=0)


def test_a_run_trains_its_encoder_first_and_keeps_it(tmp_path: Path) -> None:
    data, run = tiny_training.write_studies(tmp_path / "data"), tmp_path / "run"
    table(data.parent, "path,edema\n0.png,1\n1.png,0\n")
    extra = ("--extra-labelled", str(data.parent / "labels.csv"), "--extra-images", str(data.parent))
    asked = ("--freeze", "encoder", "--pretrain.epochs", "2", "--pretrain.batch-size", "6", *extra)
    assert tiny_training.start(data, run, *asked, "--max-steps", "2") == 0
    record = json.loads((run / "encoder" / "pretraining.json").read_text())
    assert record["images"] == tiny_training.TRAINING + 2
    assert record["steps"] == 2 * 3

    first = load_file(run / "encoder" / "model.safetensors")
    network = load_file(run / "model.safetensors")
    assert all(torch.equal(network[f"image_encoder.model.{name}"], value) for name, value in first.items())

    changed = (run / "encoder" / "model.safetensors").stat().st_mtime_ns
    assert tiny_training.start(data, run, *asked, "--max-steps", "3") == 0
    assert (run / "encoder" / "model.safetensors").stat().st_mtime_ns == changed
    assert not (run / "encoder-fit.state").exists()

    other = tmp_path / "other"
    small = ("--workers", "0", "--validation-studies", "2", "--optimiser.batch-size", "4", "--max-steps", "0")
    given = ("--data", str(data), "--images", str(data.parent), "--output", str(other), *small)
    assert train_command.main(["--init", str(run), *given]) == 0
    assert not (other / "encoder").exists()
    started = load_file(other / "model.safetensors")
    assert all(torch.equal(started[name], value) for name, value in load_file(run / "model.safetensors").items())
