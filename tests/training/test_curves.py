"""The picture of a training: what is read out of the log, and that it shows it."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from PIL import Image
from tiny_training import arguments, log_lines, write_studies

from diffrgen import train as train_command
from diffrgen.training.curves import draw_curves, read_curves
from diffrgen.training.trainer import Trainer


def write_log(path, *records, ending="\n"):
    path.write_text("\n".join(map(json.dumps, records)) + ending)


def test_curves_are_those_of_the_log_in_order_each_step_once(tmp_path):
    write_log(
        tmp_path / "metrics.jsonl",
        {"phase": "train", "step": 10, "loss": 3.0, "temperature": 9.0},
        {"phase": "val", "step": 10, "micro_f1": 0.25},
        {"phase": "train", "step": 30, "loss": 9.0},
        {"phase": "train", "step": 20, "loss": 2.0},
        {"phase": "train", "step": 30, "loss": 1.0},
    )
    assert read_curves(tmp_path / "metrics.jsonl", "train").points == {
        "loss": [(10, 3.0), (20, 2.0), (30, 1.0)],
        "temperature": [(10, 9.0)],
    }
    assert read_curves(tmp_path / "metrics.jsonl", "val").points == {"micro_f1": [(10, 0.25)]}


def test_a_torn_last_line_is_passed_over(tmp_path):
    write_log(tmp_path / "metrics.jsonl", {"phase": "train", "step": 10, "loss": 3.0}, ending="\n{\"phase\": \"tr")
    assert read_curves(tmp_path / "metrics.jsonl", "train").points == {"loss": [(10, 3.0)]}


def test_without_a_log_there_is_no_picture(tmp_path):
    assert draw_curves(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_each_logged_value_changes_the_picture(finished_run, tmp_path):
    """Every curve that the log holds is in the picture: another value draws another picture."""
    lines = log_lines(finished_run)

    def picture(records):
        write_log(tmp_path / "metrics.jsonl", *records)
        return np.asarray(Image.open(draw_curves(tmp_path)))

    first = picture(lines)
    assert np.array_equal(first, np.asarray(Image.open(finished_run / "curves.png")))
    drawn = {"loss", "language_loss", "disease_loss", "contrast_loss", "learning_rate", "temperature", "micro_f1"}
    for phase in ("train", "val"):
        last = max(row for row, line in enumerate(lines) if line["phase"] == phase)
        for name in drawn & set(lines[last]):
            changed = [{**line, name: line[name] + 0.5} if row == last else line for row, line in enumerate(lines)]
            assert not np.array_equal(picture(changed), first), (phase, name)


def test_a_stopped_training_and_the_resumed_one_have_a_picture(tmp_path, monkeypatch):
    data, run = write_studies(tmp_path / "data"), tmp_path / "run"
    step = Trainer._step

    def step_and_ctrl_c(trainer, *given):
        losses = step(trainer, *given)
        if trainer.progress.step == 4:
            signal.raise_signal(signal.SIGINT)
        return losses

    monkeypatch.setattr(Trainer, "_step", step_and_ctrl_c)
    assert train_command.main(arguments(data, run, "--max-steps", "12")) == 130
    stopped = (run / "curves.png").read_bytes()
    assert not (run / "README.md").exists()
    monkeypatch.setattr(Trainer, "_step", step)
    assert train_command.main(["--resume", "--output", str(run), "--max-steps", "12"]) == 0
    assert (run / "curves.png").read_bytes() != stopped
    steps = [step for step, _ in read_curves(run / "metrics.jsonl", "val").points["micro_f1"]]
    assert steps == sorted(set(steps)) == [4, 8, 12]


@pytest.mark.parametrize("phase", ["train", "val"])
def test_one_phase_alone_is_drawn(tmp_path, phase):
    write_log(tmp_path / "metrics.jsonl", {"phase": phase, "step": 10, "loss": 3.0, "micro_f1": 0.0})
    assert Image.open(draw_curves(tmp_path)).size == (1500, 990)
