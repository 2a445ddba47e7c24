"""Two processes train as one with the whole batch does, stop together, resume to the bit and validate in shares."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from gradients_of_two_processes import batch, gradients, training_network
from safetensors.torch import load_file
from tiny_training import differences, log_lines
from two_trainings import STEPS
from warm_process import run_warm

from diffrgen.errors import DataError
from diffrgen.model.processes import gather, own_rows, weight_of
from diffrgen.train import parse_options
from diffrgen.training.accelerator import make_accelerator
from diffrgen.training.checkpoints import MANIFEST, list_checkpoints
from diffrgen.training.validation import own_batches


def run_script(name: str, folder: Path) -> None:
    """Run a script of this folder in a process that has computed nothing yet, so that it can be forked."""
    done = run_warm([sys.executable, str(Path(__file__).parents[1] / "support" / name), str(folder)], timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def computed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gradients")
    run_script("gradients_of_two_processes.py", folder)
    return folder


def test_sharded_weights_take_the_steps_of_whole_copies(computed):
    for rank in (0, 1):
        losses = load_file(computed / f"steps-{rank}.safetensors")
        torch.testing.assert_close(losses["sharded"], losses["copied"], rtol=1e-5, atol=0)
        assert losses["copied"][0] != losses["copied"][1]


def test_loss_and_gradients_of_two_processes_are_those_of_one_with_the_whole_batch(computed):
    halves = [load_file(computed / f"{rank}.safetensors") for rank in (0, 1)]
    whole = gradients(training_network(), batch())
    assert len(whole) > 100
    assert set(whole) == set(halves[0])
    # The reports of the first half have more tokens: the mean of the halves' means would be another loss.
    assert abs(halves[0]["language_loss"] - halves[1]["language_loss"]) > 1
    for name, expected in whole.items():
        mine, other = (half[name] for half in halves)
        if name.endswith("loss"):
            mine = other = (mine + other) / 2
        scale = max(1.0, expected.abs().max().item())
        assert (mine - expected).abs().max() < 1e-5 * scale, name
        assert torch.equal(mine, other), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run_script("two_trainings.py", folder)
    return folder


def test_a_process_that_is_told_to_stop_stops_both_and_the_resumed_run_equals_the_unbroken(folder):
    assert not differences(folder / "unbroken", folder / "stopped")


def test_one_process_writes_the_log_and_each_its_random_state(folder):
    lines = [(line["phase"], line["step"]) for line in log_lines(folder / "unbroken")]
    steps = [("train", step) for step in range(1, STEPS + 1)]
    assert lines == [*steps[:4], ("val", 4), *steps[4:], ("val", 5)]
    newest = list_checkpoints(folder / "unbroken" / "checkpoints")[-1]
    states = [(newest / f"random_states_{rank}.pkl").read_bytes() for rank in (0, 1)]
    assert states[0] != states[1]
    assert json.loads((newest / MANIFEST).read_text())["processes"] == 2


def test_validation_in_shares_is_the_validation_in_one_process(folder):
    one, two = (json.loads((folder / f"validation-{count}.json").read_text()) for count in (1, 2))
    assert one["micro_f1"] > 0
    assert one == two


def test_batches_are_dealt_out_in_turn_and_evened_out():
    assert own_batches(10, batch_size=4, process=0, processes=2) == [range(0, 4), range(8, 10)]
    assert own_batches(10, batch_size=4, process=1, processes=2) == [range(4, 8), range(0, 4)]
    assert own_batches(10, batch_size=4, process=0, processes=1) == [range(0, 4), range(4, 8), range(8, 10)]
    assert own_batches(3, batch_size=4, process=2, processes=3) == [range(0, 3)]
    assert own_batches(0, batch_size=4, process=0, processes=2) == []


def test_one_process_gathers_and_weighs_nothing():
    features = torch.arange(6.0).view(3, 2)
    assert gather(features) is features
    assert own_rows(features).tolist() == [0, 1, 2]
    assert weight_of(torch.tensor(7)) == 1
    assert weight_of(torch.tensor(0)) == 0


def test_sharded_weights_are_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(DataError, match="configured to shard the weights"):
        make_accelerator(parse_options([]))
