"""A training that starts from a finished run: what is taken, what is new, what is refused, and the reports of zero steps."""

from __future__ import annotations

import io
import json
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import promptmrg_files
import pytest
import tiny_training
import torch
from fake_hub import Repository, used_hub
from safetensors.torch import load_file, save_file

from diffrgen import train
from diffrgen.command import run_command
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.reporting.reporter import Reporter

pytestmark = pytest.mark.usefixtures("no_java")


def command(start: str | Path, data: Path, output: Path, *more: str) -> list[str]:
    return ["--init", str(start), "--data", str(data), "--images", str(data.parent), "--output", str(output), *more]


def error_of(arguments: list[str], capsys) -> str:
    """Run the command, which is to fail by a DataError, and return its message."""
    assert run_command(lambda: train.main(arguments)) == 2
    return capsys.readouterr().err


def reports(run: Path, data: Path) -> list[tuple[str, list]]:
    images = sorted(data.parent.glob("*.png"))[:6]
    written = Reporter(str(run)).write(images, GenerationOptions(beams=2, batch_size=3))
    return [(one.report, [neighbour.id for neighbour in one.neighbours]) for one in written]


@pytest.fixture(scope="module")
def data(finished_run) -> Path:
    return finished_run.parent / "data" / "annotation.json"


@pytest.fixture(scope="module")
def same(finished_run, data, tmp_path_factory) -> Path:
    """A run of zero steps on the finished run's own data."""
    run = tmp_path_factory.mktemp("same") / "run"
    assert train.main(command(finished_run, data, run, "--max-steps", "0")) == 0
    return run


@pytest.fixture(scope="module")
def other_data(tmp_path_factory) -> Path:
    """Data with a lateral view beside every second image, half as many studies, and reports of other words."""
    path = tiny_training.write_studies(tmp_path_factory.mktemp("other") / "data", views=("LATERAL",))
    splits = json.loads(path.read_text())
    splits["train"] = [{**one, "report": f"chronic {one['report']}"} for one in splits["train"][:12]]
    path.write_text(json.dumps(splits))
    return path


def test_zero_steps_write_the_reports_of_the_start_to_the_letter(finished_run, same, data):
    assert reports(same, data) == reports(finished_run, data)
    mine, theirs = (load_file(run / "model.safetensors") for run in (same, finished_run))
    assert mine.keys() == theirs.keys()
    # The prior of Eq. 9 is that of the training labels again: the start's was adapted after its epochs.
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] in ([], ["classifier.class_prior"])
    assert (same / "tokenizer.json").read_bytes() == (finished_run / "tokenizer.json").read_bytes()


def test_what_was_taken_is_in_the_record_and_in_the_card(finished_run, same):
    record = json.loads((same / "initialisation.json").read_text())
    weights = load_file(finished_run / "model.safetensors")
    # Two names of one tied tensor are in the network and one is in the file.
    assert sum(record["taken"].values()) == len(weights) - 1 + 2
    assert (record["start"], record["new"], record["unused"]) == (finished_run.name, [], [])
    card = (same / "README.md").read_text()
    assert "### Start" in card
    assert "index, prior of Eq. 9" in card


@pytest.fixture(scope="module")
def moved(finished_run, other_data, tmp_path_factory) -> tuple[Path, str]:
    """A run of two steps on other data and what it printed."""
    run, said = tmp_path_factory.mktemp("moved") / "run", io.StringIO()
    with redirect_stdout(said):
        assert train.main(command(finished_run, other_data, run, "--max-steps", "2", "--model.finding-queries")) == 0
    return run, said.getvalue()


def test_on_other_data_the_index_is_new_and_so_are_the_marks_of_views(finished_run, moved):
    run, said = moved
    record = json.loads((run / "initialisation.json").read_text())
    new = {one["part"]: one for one in record["new"]}
    assert set(new) == {"view_marks", "finding_queries"}
    assert new["view_marks"]["names"][0] == "view_marks.kind"
    assert {one["reason"] for one in record["new"]} == {"absent"}
    assert re.search(r"^new: view_marks \(view_marks.kind.*\): absent$", said, re.MULTILINE)
    studies = json.loads((run / "index" / "studies.json").read_text())
    assert len(studies["ids"]) == 12
    assert (run / "tokenizer.json").read_bytes() == (finished_run / "tokenizer.json").read_bytes()
    retrievers = [load_file(folder / "retriever" / "model.safetensors") for folder in (run, finished_run)]
    assert all(torch.equal(retrievers[0][name], tensor) for name, tensor in retrievers[1].items())
    # The weights before the first step were scored as well.
    assert [line["step"] for line in tiny_training.log_lines(run) if line["phase"] == "val"] == [0, 2]


def test_a_resumed_training_does_not_read_the_start_again(finished_run, other_data, moved, tmp_path):
    start, stopped = tmp_path / "start", tmp_path / "stopped"
    shutil.copytree(finished_run, start)
    assert train.main(command(start, other_data, stopped, "--max-steps", "0", "--model.finding-queries")) == 0
    shutil.rmtree(start)
    assert train.main(["--resume", "--output", str(stopped), "--max-steps", "2"]) == 0
    runs = (stopped, moved[0])
    weights = [load_file(sorted((run / "checkpoints").iterdir())[-1] / "model.safetensors") for run in runs]
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (["--text.rules", "plain"], "--text.rules (start: mimic, got plain)"),
        (["--model.width", "32"], "--model.width (start: 16, got 32)"),
        (["--model.encoder", "paper"], "--model.encoder (start: tiny, got paper)"),
        (["--image.size", "33"], "--image.size (start: 32, got 33)"),
        (["--retriever.epochs", "3"], "--retriever.epochs (start: 8, got 3)"),
        (["--text.max-tokens", "400"], "--text.max-tokens: needed at most 113"),
    ],
)
def test_an_option_that_contradicts_the_start_is_named(finished_run, data, tmp_path, capsys, option, named):
    assert named in error_of(command(finished_run, data, tmp_path / "run", *option), capsys)


def test_an_option_that_agrees_with_the_start_may_be_given(finished_run, data, tmp_path):
    options = train.parse_options(
        command(finished_run, data, tmp_path / "run", "--text.rules", "mimic", "--model.dropout", "0.3", "--preset", "paper")
    )
    assert (options.model.width, options.model.dropout, options.optimiser.epochs) == (16, 0.3, 10)
    assert (options.image.size, options.retriever.neighbours, options.preset) == (32, 3, "paper")


def test_a_start_with_other_findings_is_refused(finished_run, data, tmp_path, capsys):
    splits = json.loads(data.read_text())
    for study in (*splits["train"], *splits["val"]):
        study["labels"] = [*study["labels"], 0, 0, 0, 0]
    wide = data.parent / "wide.json"
    wide.write_text(json.dumps(splits))
    said = error_of(command(finished_run, wide, tmp_path / "run"), capsys)
    assert "needed data with the 14 findings of the initial run, got labels of 18" in said


def test_what_is_no_run_is_refused_and_so_are_broken_weights(own_run, data, tmp_path, capsys):
    output = tmp_path / "run"
    assert "needed the folder of a run" in error_of(command(tmp_path / "nothing", data, output), capsys)
    assert "needed the folder of a run" in error_of(command(data.parent, data, output), capsys)
    with pytest.raises(SystemExit) as ended:
        train.main(command(own_run, data, own_run, "--overwrite"))
    assert ended.value.code == 2
    assert "is also the --output" in " ".join("".join(capsys.readouterr()).replace("│", " ").split())
    assert (own_run / "model.safetensors").is_file()
    weights = load_file(own_run / "model.safetensors")
    weights["classifier.head.bias"][3] = torch.nan
    save_file(weights, own_run / "model.safetensors", metadata={"format": "pt"})
    assert "classifier.head.bias: needed numbers, got NaN" in error_of(command(own_run, data, output), capsys)


def test_freezing_needs_a_retriever_that_reads_the_same_features(finished_run, data, tmp_path, capsys):
    said = error_of(command(finished_run, data, tmp_path / "run", "--freeze", "encoder"), capsys)
    assert "needed a start that was trained with --freeze encoder" in said


def test_a_start_by_hub_name(finished_run, data, tmp_path_factory, capsys):
    folder = tmp_path_factory.mktemp("hub")
    with used_hub(str(folder / "cache")) as hub:
        files = {p.relative_to(finished_run).as_posix(): p.read_bytes() for p in finished_run.rglob("*") if p.is_file()}
        hub.repositories["me/run"] = Repository(private=False, files={**files, "model.bin": b"a pickle"})
        assert train.main(command("me/run", data, folder / "run", "--max-steps", "0")) == 0
        fetched = [request for request in hub.requests if "/resolve/" in request]
        assert any("model.safetensors" in request for request in fetched)
        assert not [request for request in fetched if "index/" in request or ".bin" in request]
        assert json.loads((folder / "run" / "initialisation.json").read_text())["start"] == "me/run"
        assert "found neither" in error_of(command("me/nothing", data, folder / "other"), capsys)


def test_a_hub_that_is_out_of_reach_is_said(data, tmp_path, monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert "could not be reached" in error_of(command("me/offline", data, tmp_path / "run"), capsys)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint of PromptMRG's format, promptmrg.pth; beside it resnet/ and bert/ of its sizes."""
    return promptmrg_files.write_promptmrg(tmp_path_factory.mktemp("promptmrg"))


def promptmrg_command(checkpoint: Path, data: Path, output: Path, *more: str) -> list[str]:
    """Return the command line of a tiny training that starts from a small PromptMRG."""
    folder = checkpoint.parent
    network = ["--model.encoder", str(folder / "resnet"), "--model.decoder", str(folder / "bert"), "--model.no-warm-start"]
    words = ["--text.tokenizer", str(folder / "bert"), "--model.no-prior"]
    return ["--init", str(checkpoint), *tiny_training.arguments(data, output, *network, *words, *more)]


def test_promptmrgs_checkpoint_becomes_a_run_of_its_variant(checkpoint, data, tmp_path):
    run = tmp_path / "run"
    options = ["--model.variant", "promptmrg", "--max-steps", "0", "--freeze", "encoder", "--stored-crops", "0"]
    assert train.main(promptmrg_command(checkpoint, data, run, *options)) == 0
    saved, theirs = load_file(run / "model.safetensors"), promptmrg_files.random_weights()
    for name, theirs_name in {
        "memory.decoder.layers.1.multihead_attn.in_proj_weight": "memory.decoder.layers.1.multihead_attn.in_proj_weight",
        "decoder.bert.encoder.layer.1.crossattention.self.value.weight": (
            "text_decoder.bert.encoder.layer.1.crossattention.self.value.weight"
        ),
        "image_encoder.model.encoder.stages.3.layers.0.shortcut.normalization.running_var": (
            "visual_encoder.model.7.0.downsample.1.running_var"
        ),
    }.items():
        assert torch.equal(saved[name], theirs[theirs_name].float())
    record = json.loads((run / "initialisation.json").read_text())
    assert (record["start"], record["unused"]) == ("promptmrg.pth", [])
    # The 14 findings of the data out of PromptMRG's 18.
    assert torch.equal(saved["classifier.head.bias"], theirs["cls_head.bias"].float().view(4, 18)[:, :14].flatten())
    tower = load_file(run / "retriever" / "model.safetensors")["image_tower.model.embedder.embedder.convolution.weight"]
    assert torch.equal(tower, theirs["visual_encoder.model.0.weight"].float())
    assert [len(neighbours) for _, neighbours in reports(run, data)] == [3] * 6


def test_what_is_no_checkpoint_of_promptmrg_is_refused(checkpoint, data, tmp_path, capsys):
    broken, output = tmp_path / "other.pth", tmp_path / "run"

    def said(content: object, *more: str) -> str:
        torch.save(content, broken)
        return error_of([*promptmrg_command(checkpoint, data, output, *more, "--overwrite"), "--init", str(broken)], capsys)

    weights = torch.load(checkpoint, weights_only=True)
    assert "needed a PyTorch checkpoint of tensors alone" in said({"model": Path("code")})
    assert "needed a dictionary of tensors" in said({"model": {}})
    without = {name: tensor for name, tensor in weights.items() if name != "cls_head.weight"}
    assert "which has the tensor cls_head.weight" in said(without)
    assert "cls_head.bias: needed numbers, got NaN" in said({**weights, "cls_head.bias": weights["cls_head.bias"] * torch.nan})
