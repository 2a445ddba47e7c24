"""A run by its hub name: fetched over HTTP from a hub on this machine, it is the run that was shared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_hub import Repository, used_hub

from diffrgen import evaluate as evaluate_command
from diffrgen import generate as generate_command
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.pipeline.hub import HubName, meant_as_hub_name
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.reporting.reporter import Reporter

pytestmark = pytest.mark.usefixtures("no_java")


@pytest.fixture(scope="module")
def hub(finished_run, tmp_path_factory):
    """A hub with the whole finished run, checkpoints and all, as me/run."""
    with used_hub(str(tmp_path_factory.mktemp("hub"))) as hub:
        files = {p.relative_to(finished_run).as_posix(): p.read_bytes() for p in finished_run.rglob("*") if p.is_file()}
        hub.repositories["me/run"] = Repository(private=False, files=files)
        hub.repositories["me/other"] = Repository(private=False, files={"config.json": b"{}", "README.md": b"a model"})
        yield hub


@pytest.fixture
def elsewhere(hub, tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def image_of(run: Path) -> str:
    return str(run.parent / "data" / "0.png")


def test_what_is_a_hub_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert meant_as_hub_name("me/run") == meant_as_hub_name(Path("me/run")) == HubName("me/run")
    assert meant_as_hub_name(Path("me/run@v1.0")) == HubName("me/run", "v1.0")
    assert str(HubName("me/run", "v1.0")) == "me/run@v1.0"
    # A mistyped path below a folder that is there is a path, as are these.
    paths = ("runs/tiny", "runs", "run", "/me/run", "../me/run", "a/b/c", "me/run@", "me run/x", tmp_path)
    assert [path for path in paths if meant_as_hub_name(path)] == []


def test_only_what_a_run_needs_is_fetched(hub, finished_run, elsewhere, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(elsewhere / "fresh"))
    before = len(hub.requests)
    folder = RunFolder.open("me/run").path
    fetched = files_below(folder)
    assert {"config.json", "model.safetensors", "run.json", "index/studies.json", "retriever/config.json"} <= fetched
    assert {name.split("/")[0] for name in fetched} & {"checkpoints", "tensorboard", "evaluation"} == set()
    assert not [name for name in fetched if name.endswith((".pkl", ".pt", ".bin", ".npz"))]
    assert all((folder / name).read_bytes() == (finished_run / name).read_bytes() for name in fetched)
    assert not [request for request in hub.requests[before:] if "checkpoints" in request or "tensorboard" in request]


def test_reporter_by_name_writes_what_it_writes_by_folder(hub, finished_run, elsewhere):
    options = GenerationOptions(beams=1)
    image = image_of(finished_run)
    reports = [next(Reporter(run).write([image], options)) for run in (finished_run, "me/run", "me/run@main")]
    assert reports[0] == reports[1] == reports[2]


def test_commands_take_the_name(hub, finished_run, elsewhere, capsys):
    image = image_of(finished_run)
    printed = []
    for run in (str(finished_run), "me/run"):
        assert generate_command.main([run, image, "--json"]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert printed[0] == printed[1]


def test_evaluating_by_name_writes_below_the_working_directory_only(hub, finished_run, elsewhere):
    folder = RunFolder.open("me/run").path
    before = files_below(folder)
    for again in ("val", "val-2"):
        assert evaluate_command.main(["me/run", "--split", "val", "--generation.beams", "1"]) == 0
        lines = [
            (place / "predictions.jsonl").read_text()
            for place in (elsewhere / "evaluation" / "me" / "run" / again, finished_run / "evaluation" / "val")
        ]
        assert lines[0] == lines[1]
    assert files_below(folder) == before


def test_the_network_alone_by_name_and_by_folder(hub, finished_run):
    by_name = DiffRGenForReportGeneration.from_pretrained("me/run")
    by_folder = DiffRGenForReportGeneration.from_pretrained(finished_run)
    assert by_name.config.to_dict() == by_folder.config.to_dict() | {"_name_or_path": by_name.config._name_or_path}
    states = by_name.state_dict(), by_folder.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_automatic_classes_load_a_run_once_they_are_told_to(finished_run):
    """In a process of its own, for what is registered stays."""
    code = f"""
import diffrgen.model
from transformers import AutoConfig, AutoModel
try:
    AutoConfig.from_pretrained({str(finished_run)!r})
except ValueError as error:
    assert "diffrgen" in str(error), error
else:
    raise AssertionError("importing has registered the network")
for _ in range(2):
    diffrgen.model.register_auto_classes()
config = AutoConfig.from_pretrained({str(finished_run)!r})
assert type(config) is diffrgen.model.DiffRGenConfig and config.width == 16
assert type(AutoModel.from_pretrained({str(finished_run)!r})) is diffrgen.model.DiffRGenForReportGeneration
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_what_was_fetched_is_used_without_a_network(hub, elsewhere, monkeypatch):
    folder = RunFolder.open("me/run").path
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = len(hub.requests)
    assert RunFolder.open("me/run").path == folder
    assert len(hub.requests) == before
    with pytest.raises(DataError, match=r"me/new: there is no such folder, and the Hugging Face hub could not be reached"):
        RunFolder.open("me/new")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("me/none", "needed the folder of a run or a model on the Hugging Face hub, found neither"),
        ("me/run@v9", "the repository has no revision 'v9'"),
        ("me/other", "needed a run as diffrgen.share uploads it, but the repository holds no run.json"),
        ("me/a--b", r"needed the folder of a run or a hub name owner/name\[@revision\]"),
    ],
)
def test_what_cannot_be_fetched_is_an_error(hub, elsewhere, name, message):
    with pytest.raises(DataError, match=f"{name}: {message}"):
        RunFolder.open(name)


def test_unreachable_hub_is_an_error(elsewhere, finished_run, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert run_command(lambda: generate_command.main(["me/never", image_of(finished_run)])) == 2
    message = capsys.readouterr().err
    assert "could not be reached" in message
    assert "Traceback" not in message


def test_a_damaged_download_is_a_message(hub, elsewhere, finished_run, capsys):
    files = {name: data for name, data in hub.repositories["me/run"].files.items() if "checkpoints" not in name}
    hub.repositories["me/damaged"] = Repository(files={**files, "run.json": b"{}"})
    assert run_command(lambda: generate_command.main(["me/damaged", image_of(finished_run)])) == 2
    assert "run.json: data: needed a value, got none" in capsys.readouterr().err
