"""Experiment trackers get what the training log gets, and a missing one is refused before any work."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path

import pytest
import tiny_training
from accelerate.tracking import MLflowTracker
from accelerate.utils import is_mlflow_available, is_wandb_available
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffrgen import train as train_command
from diffrgen.command import run_command
from diffrgen.training.tracking import PROJECT, RUN_NAME


def test_tensorboard_as_a_tracker_holds_the_log_and_the_options(tmp_path: Path) -> None:
    data, run = tiny_training.write_studies(tmp_path / "data"), tmp_path / "run"
    assert tiny_training.start(data, run, "--max-steps", "4", "--track", "tensorboard") == 0
    events = EventAccumulator(str(run / "trackers" / PROJECT))
    events.Reload()
    lines = tiny_training.log_lines(run)
    assert {line["phase"] for line in lines} == {"train", "val"}
    for line in lines:
        for name in set(line) - {"phase", "step"}:
            found = {event.step: event.value for event in events.Scalars(f"{line['phase']}/{name}")}
            assert found[line["step"]] == pytest.approx(line[name], abs=1e-5)
    options = (run / "trackers" / PROJECT).rglob("hparams.yml")
    text = next(options).read_text()
    assert "optimiser.batch_size: 4" in text
    # The folders of the machine are nobody's business.
    assert str(tmp_path) not in text


@pytest.mark.parametrize(("name", "installed"), [("wandb", is_wandb_available), ("mlflow", is_mlflow_available)])
def test_a_tracker_that_is_not_installed_is_refused_first(
    tmp_path: Path, name: str, installed: object, capsys: pytest.CaptureFixture[str]
) -> None:
    if callable(installed) and installed():
        pytest.skip(f"{name} is installed here")
    arguments = ["--output", str(tmp_path / "run"), "--track", name]
    assert run_command(partial(train_command.main, arguments)) == 2
    assert f'--track {name}: the package {name} is not installed; pip install "diffrgen[track]"' in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_runs_are_named_by_an_argument_that_the_tracker_has() -> None:
    assert RUN_NAME["mlflow"] in inspect.signature(MLflowTracker.__init__).parameters
