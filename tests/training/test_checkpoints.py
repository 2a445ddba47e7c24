"""Training loses nothing: broken checkpoints, signals, a full disk and kills, each followed by a resume."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import EPOCH, arguments, differences, log_lines, start, write_studies
from warm_process import run_warm

from diffrgen import train as train_command
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.pipeline.settings import load_json, save_json
from diffrgen.staging import discard, file_digest, publish, replace_file, staged
from diffrgen.training import checkpoints, trainer
from diffrgen.training.checkpoints import (
    MANIFEST,
    Checkpoints,
    Manifest,
    Progress,
    find_fault,
    list_checkpoints,
    no_longer_kept,
)
from diffrgen.training.interruption import StopRequest
from diffrgen.training.log import TrainingLog
from diffrgen.training.options import TrainOptions

STEPS = 3 * EPOCH


@pytest.fixture(scope="module", autouse=True)
def log_every_step():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "LOG_EVERY", 1)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_studies(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="module")
def unbroken(data) -> Path:
    run = data.parent / "unbroken"
    assert start(data, run, "--checkpoint-every", "3") == 0
    return run


@pytest.fixture
def stopped(unbroken, tmp_path) -> Path:
    """A copy of the finished run: its checkpoints are those of steps 11 and 12, the second after its validation."""
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    return run


def names(run: Path) -> list[str]:
    return [path.name for path in list_checkpoints(run / "checkpoints")]


def before_step(monkeypatch, number: int, action) -> None:
    """Have `action` called when step `number` begins."""
    step = trainer.Trainer._step

    def counted(self, batch, temperature):
        if self.progress.step == number - 1:
            action()
        return step(self, batch, temperature)

    monkeypatch.setattr(trainer.Trainer, "_step", counted)


def test_the_newest_checkpoints_stay_and_the_validated_one_of_a_step(unbroken):
    assert names(unbroken) == ["step-00000009", "step-00000012-validated"]
    manifest = load_json(Manifest, list_checkpoints(unbroken / "checkpoints")[-1] / MANIFEST)
    # The third epoch is over and its validation done.
    assert (manifest.progress.epoch, manifest.progress.studies, manifest.progress.validated) == (3, 0, 12)


@pytest.mark.parametrize(
    ("kept", "removed"),
    [
        (1, ["step-08", "step-04", "step-06"]),
        (2, ["step-08", "step-04"]),
        (3, ["step-08"]),
        (4, ["step-08"]),
    ],
)
def test_as_many_checkpoints_are_kept_as_are_asked_for(kept, removed):
    """The newest is the validated one of step 8; two of earlier steps lie beside it, and a later one of another run."""
    found = [Path(name) for name in ("step-04", "step-06", "step-08", "step-08-validated", "step-10")]
    assert no_longer_kept(found, found[3], kept=kept) == [Path(name) for name in removed]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_an_epoch_saves_and_the_resumed_run_equals_the_unbroken(
    number, data, unbroken, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        before_step(patch, 6, lambda: os.kill(os.getpid(), number))
        assert start(data, run, "--checkpoint-every", "3") == 128 + number
    assert (
        f"step 6 of {STEPS}, which is saved; continue with: python -m diffrgen.train --resume" in capsys.readouterr().err
    )
    assert names(run)[-1] == "step-00000006"
    assert start(data, run) == 0
    assert not differences(run, unbroken)


def test_a_signal_during_validation_leaves_at_once_and_nothing_is_lost(data, unbroken, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "validate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        assert start(data, run, "--checkpoint-every", "3") == 143
    assert names(run) == ["step-00000003", "step-00000004"]
    assert start(data, run) == 0
    assert not differences(run, unbroken)


def test_a_second_ctrl_c_meets_the_default_handler():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_outside_the_steps_ends_in_a_line_and_status_130(capsys):
    # A shell starts what runs in the background with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run_command(lambda: os.kill(os.getpid(), signal.SIGINT)) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "interrupted\n"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("name", ["optimizer.bin", "random_states_0.pkl"])
def test_a_broken_checkpoint_is_named(damage, name, stopped):
    newest = list_checkpoints(stopped / "checkpoints")[-1]
    assert find_fault(newest) is None
    damage(newest / name)
    assert name in find_fault(newest)


def test_the_next_older_checkpoint_is_taken_where_the_newest_is_broken(data, stopped, unbroken):
    truncate(list_checkpoints(stopped / "checkpoints")[-1] / "model.safetensors")
    with pytest.warns(UserWarning, match=r"step-00000012-validated: this checkpoint is damaged and skipped: model"):
        assert start(data, stopped) == 0
    assert names(stopped) == ["step-00000009", "step-00000012-validated"]
    assert not differences(stopped, unbroken)


def test_no_whole_checkpoint_is_an_error_and_nothing_is_trained_again(stopped, capsys):
    for path in list_checkpoints(stopped / "checkpoints"):
        truncate(path / MANIFEST)
    assert run_command(lambda: start(stopped, stopped)) == 2
    message = capsys.readouterr().err
    assert "step-00000009: this checkpoint is damaged and skipped" in message
    assert "needed a complete checkpoint to resume, got 2 damaged" in message


def test_a_checkpoint_is_due_after_so_many_steps_or_ten_minutes(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: 1000.0)
    by_steps, by_time = (Checkpoints(None, tmp_path, every=every) for every in (3, None))
    assert [by_steps.due(step) for step in (1, 2, 3, 4, 6)] == [False, False, True, False, True]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: 1599.0)
    assert not by_time.due(3)
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: 1600.0)
    assert by_time.due(4)
    with pytest.raises(DataError, match="--checkpoint-every: expected a whole number of at least 1 or none, got 0"):
        TrainOptions(checkpoint_every=0)


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil",))


@pytest.mark.parametrize("name", ["optimizer.bin", "scheduler.bin", "random_states_0.pkl"])
def test_no_code_of_a_checkpoint_is_run(name, data, stopped, monkeypatch, capsys):
    newest = list_checkpoints(stopped / "checkpoints")[-1]
    torch.save({"state": Evil()}, newest / name, pickle_module=pickle)
    manifest = load_json(Manifest, newest / MANIFEST)
    digests = {**manifest.files, name: file_digest(newest / name)}
    save_json(replace(manifest, files=digests), newest / MANIFEST)
    monkeypatch.chdir(stopped)
    assert run_command(lambda: start(data, stopped)) == 2
    assert "needed tensors and numbers only" in capsys.readouterr().err
    assert not (stopped / "evil").exists()


def test_a_checkpoint_of_more_processes_is_refused(data, stopped, capsys):
    path = list_checkpoints(stopped / "checkpoints")[-1] / MANIFEST
    manifest = load_json(Manifest, path)
    save_json(replace(manifest, processes=2), path)
    assert run_command(lambda: start(data, stopped)) == 2
    assert "needed the 2 process(es) that wrote this checkpoint, got 1" in capsys.readouterr().err


@pytest.mark.parametrize("room", [1_000, 2_000_000, 15_000_000])
def test_a_full_disk_is_named_and_the_earlier_checkpoint_is_whole(room, data, unbroken, tmp_path, monkeypatch, capsys):
    """From the second checkpoint on the system refuses larger files, as a full disk does.

    The log is the first to be refused, then the weights (10 MB), then the optimiser (21 MB): each fails in its own way.
    """
    run = tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        before_step(patch, 5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1])))
        try:
            status = run_command(lambda: start(data, run, "--checkpoint-every", "3"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 2
    message = capsys.readouterr().err
    assert f"{run}: needed room to write to" in message
    assert (
        "Written completely before: step-00000003, step-00000004-validated. Make room, then go on with --resume" in message
    )
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == names(run)
    assert start(data, run) == 0
    assert not differences(run, unbroken)


def test_partial_folders_of_a_killed_run_are_removed(data, stopped):
    left = [stopped / "checkpoints" / ".step-00000015.partial", stopped.with_name(".run.partial")]
    for path in left:
        path.mkdir()
    assert start(data, stopped) == 0
    assert not any(path.exists() for path in left)


def test_the_log_goes_on_where_the_checkpoint_stands(tmp_path):
    records = [("train", 1), ("train", 2), ("val", 2), ("train", 3)]
    lines = [json.dumps({"phase": phase, "step": step}) + "\n" for phase, step in records]
    for progress, kept in (
        (Progress(step=2), 2),
        (Progress(step=2, validated=2), 3),
        (Progress(step=3, validated=2), 4),
    ):
        (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"phase": "tr')
        with TrainingLog(tmp_path, progress):
            assert (tmp_path / "metrics.jsonl").read_text() == "".join(lines[:kept])
    with TrainingLog(tmp_path, Progress()) as log:
        log.write("train", 1, {"loss": 0.5})
    assert log_lines(tmp_path) == [{"phase": "train", "step": 1, "loss": 0.5}]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    replace_file(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            replace_file(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"old"


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    sync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda file: (events.append(os.readlink(f"/proc/self/fd/{file}")), sync(file)))
    monkeypatch.setattr(os, "rename", lambda *paths: (events.append("rename"), rename(*paths)))
    with staged(tmp_path / "whole") as stage:
        (stage / "inner").mkdir()
        (stage / "inner" / "a").write_text("x")
    written = [str(stage / name) for name in ("", "inner", "inner/a")]
    assert sorted(events[:3]) == sorted(path.rstrip("/") for path in written)
    assert events[3:] == ["rename", str(tmp_path)]


def test_a_folder_that_is_removed_loses_its_name_first(tmp_path, monkeypatch):
    folder, new = tmp_path / "step-1", tmp_path / ".step-1.partial"
    for path in (folder, new):
        path.mkdir()
        (path / "a").write_text(path.name)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            discard(folder)
    assert not folder.exists()
    discard(folder)
    publish(new, folder)
    assert (folder / "a").read_text() == ".step-1.partial"
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_killed_at_random_moments_training_loses_no_checkpoint_and_ends_the_same():
    script = Path(__file__).parents[1] / "support" / "kill_training.py"
    done = run_warm([sys.executable, str(script), "--kills", "4"], timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kills" in done.stdout


def test_every_option_of_the_command_is_kept_for_the_resume(data, tmp_path):
    options = train_command.parse_options(arguments(data, tmp_path / "run", "--checkpoint-every", "7"))
    (tmp_path / "run").mkdir()
    save_json(options, tmp_path / "run" / "train.json")
    assert train_command.parse_options(["--resume", "--output", str(tmp_path / "run")]).checkpoint_every == 7
