"""Data, parts and disks that change under a run: named before anything is trained on or scored."""

from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file
from tiny_training import arguments, differences, start, write_studies

from diffrgen import evaluate, train
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.retrieval import neighbours
from diffrgen.staging import SAMPLE, sampled_digest

pytestmark = pytest.mark.usefixtures("no_java")


@pytest.fixture
def moved(own_run, finished_run) -> Path:
    """The run with a copy of its data beside it, at which run.json and train.json point; returns the annotation."""
    data = Path(shutil.copytree(finished_run.parent / "data", own_run.parent / "data"))
    for name in ("run.json", "train.json"):
        path = own_run / name
        path.write_text(path.read_text().replace(str(finished_run.parent / "data"), str(data)))
    return data / "annotation.json"


def edit(annotation: Path, action) -> None:
    splits = json.loads(annotation.read_text())
    action(splits)
    annotation.write_text(json.dumps(splits))


def rewrite_report(splits: dict) -> None:
    splits["train"][3]["report"] += " . new words"


def invert_labels(splits: dict) -> None:
    splits["val"][0]["labels"] = [1 - state for state in splits["val"][0]["labels"]]


def rename(splits: dict) -> None:
    splits["train"][3]["id"] = "renamed"


def move(splits: dict) -> None:
    splits["test"] = [splits["train"].pop(3)]


@pytest.mark.parametrize(
    ("action", "named"),
    [
        (rewrite_report, "report, labels or images changed in train: '3'"),
        (invert_labels, "report, labels or images changed in val: '16'"),
        (rename, "gone from train: '3'; new in train: 'renamed'"),
        (move, "moved from train to test: '3'"),
    ],
)
def test_changed_records_are_named_by_evaluate_and_by_resume(action, named, moved, own_run, capsys):
    edit(moved, action)
    for command in (
        lambda: evaluate.main([str(own_run), "--split", "val"]),
        lambda: train.main(["--resume", "--output", str(own_run), "--max-steps", "6"]),
    ):
        assert run_command(command) == 2
        message = capsys.readouterr().err
        assert f"{own_run}: the data are not those that this run was made from. {named}. Restore them" in message


def test_an_image_that_was_replaced_under_its_name_size_and_time_is_named(moved, own_run, capsys):
    path = moved.parent / "5.png"
    before = path.stat()
    grey = Image.new("L", (34, 34), 90)
    note = PngInfo()
    note.add_text("a", "")
    grey.save(path, pnginfo=note)
    note = PngInfo()
    note.add_text("a", "x" * (before.st_size - path.stat().st_size))
    grey.save(path, pnginfo=note)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert run_command(lambda: evaluate.main([str(own_run), "--split", "val"])) == 2
    assert "report, labels or images changed in train: '5'" in capsys.readouterr().err


def test_data_that_were_moved_and_touched_are_the_same_data(moved, own_run):
    for path in moved.parent.iterdir():
        os.utime(path)
    assert evaluate.main([str(own_run), "--split", "val"]) == 0


def test_a_study_that_was_trained_on_is_never_scored(moved, own_run, capsys):
    """A shared run brings no digests of its data: the index itself tells."""
    (own_run / "data-digests.json").unlink()
    edit(moved, move)
    command = [str(own_run), "--data", str(moved), "--images", str(moved.parent), "--split", "test"]
    assert run_command(lambda: evaluate.main(command)) == 2
    message = capsys.readouterr().err
    assert "1 studies to score were trained on and can be retrieved with their own reports: '3'" in message


def test_neighbours_are_found_anew_for_another_image_of_the_same_size(own_run, tmp_path, monkeypatch):
    from diffrgen.records import Study
    from diffrgen.retrieval import RetrievalIndex, RetrieverOptions

    index = RetrievalIndex.load(own_run / "index")
    path = tmp_path / "a.png"
    keys = []
    for content in (b"a" * 100, b"b" * 100):
        path.write_bytes(content)
        os.utime(path, ns=(0, 0))
        keys.append(neighbours._key(None, index, [Study("a", "x", (path,), "test")], RetrieverOptions()))
    assert keys[0] != keys[1]


@pytest.mark.parametrize("place", [0, 5 * SAMPLE // 2, 5 * SAMPLE - 1])
def test_a_sampled_digest_sees_size_beginning_middle_and_end(place, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(5 * SAMPLE))
    before = sampled_digest(path)
    content = bytearray(5 * SAMPLE)
    content[place] = 1
    path.write_bytes(content)
    assert sampled_digest(path) != before
    path.write_bytes(bytes(5 * SAMPLE + 1))
    assert sampled_digest(path) != before


def test_weights_and_a_tokenizer_of_another_run_are_refused(own_run):
    path = own_run / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    save_file({**tensors, name: tensors[name] + 1}, path, metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"model\.safetensors: is not the file that config\.json was saved with"):
        RunFolder(own_run).model()
    save_file(tensors, path, metadata={"format": "pt"})
    run = RunFolder(own_run)
    model = run.model()
    tokenizer = own_run / "tokenizer.json"
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text())) + "\n")
    with pytest.raises(DataError, match=r"tokenizer\.json: is not of the tokenizer that this run was trained with"):
        run.example_settings(model.config, run.settings())


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    assert start(write_studies(folder / "data"), folder / "unbroken", "--max-steps", "2") == 0
    return folder / "unbroken"


@pytest.mark.parametrize("room", [500, 3_000, 20_000, 1_000_000])
def test_a_disk_that_is_full_at_any_writer_is_named_and_the_same_command_goes_on(room, unbroken, tmp_path, capsys):
    """Options; records and settings; tokenizer and index; the retriever: each is the first that finds no room."""
    command = [*arguments(unbroken.parent / "data" / "annotation.json", tmp_path / "run", "--max-steps", "2"), "--resume"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        assert run_command(lambda: train.main(command)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"error: {tmp_path / 'run'}: needed room to write to" in capsys.readouterr().err
    assert train.main(command) == 0
    assert not differences(tmp_path / "run", unbroken)
