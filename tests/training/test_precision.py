"""The variants of the training step take the same steps within their rounding: bf16, fp16 with its scaler, torch.compile."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tiny_training import differences, log_lines, start, write_studies

from diffrgen.training import run as run_module
from diffrgen.training import trainer
from diffrgen.training.checkpoints import list_checkpoints
from diffrgen.training.options import TrainOptions

STEPS = 10
# bfloat16 has 8 bits: its rounding, 0.4 %, grows from step to step, to 2 % of the loss in the eighth (one thread; by the
# order of sums that the number of threads gives, more or less).
BF16 = 0.06
# Without what is drawn in another way in other types.
OPTIONS = ("--model.dropout", "0", "--max-steps", str(STEPS), "--optimiser.learning-rate", "1e-3")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_studies(tmp_path_factory.mktemp("precision") / "data")


@pytest.fixture(autouse=True)
def _another_accelerator_that_logs_every_step(monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def losses(run: Path) -> np.ndarray:
    """Return the losses of each training step, (steps, terms)."""
    lines = [line for line in log_lines(run) if line["phase"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return np.array([[line[name] for name in trainer.LOSSES] for line in lines])


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory) -> np.ndarray:
    """The losses in float32 with the reference operator, not compiled."""
    run = tmp_path_factory.mktemp("plain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "LOG_EVERY", 1)
        assert start(data, run, *OPTIONS, "--no-fused-kernels") == 0
    return losses(run)


def half_precision(scale: float, _: TrainOptions) -> Accelerator:
    """Return an accelerator as `--precision fp16` makes one on a GPU: accelerate refuses to make it for a CPU."""
    accelerator = Accelerator(cpu=True, mixed_precision="bf16", step_scheduler_with_optimizer=False)
    accelerator.state._mixed_precision = "fp16"
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return accelerator


def test_bf16_steps_as_fp32_does(data, tmp_path, plain):
    assert start(data, tmp_path / "run", *OPTIONS, "--precision", "bf16") == 0
    found = losses(tmp_path / "run")
    assert not np.array_equal(found, plain)
    np.testing.assert_allclose(found[:4], plain[:4], rtol=0.02, atol=0.02)
    np.testing.assert_allclose(found, plain, rtol=BF16, atol=BF16)


def test_fp16_with_its_scaler_steps_as_fp32_does_and_resumes_to_the_bit(data, tmp_path, plain, monkeypatch):
    monkeypatch.setattr(run_module, "make_accelerator", partial(half_precision, 2.0**10))
    assert start(data, tmp_path / "run", *OPTIONS) == 0
    found = losses(tmp_path / "run")
    assert not np.array_equal(found, plain)
    np.testing.assert_allclose(found, plain, rtol=0.02, atol=0.02)
    for steps in ("6", str(STEPS)):
        AcceleratorState._reset_state(reset_partial_state=True)
        assert start(data, tmp_path / "stopped", *OPTIONS, "--max-steps", steps) == 0
    np.testing.assert_array_equal(losses(tmp_path / "stopped"), found)
    # The run that was to end at step 6 was validated there.
    assert differences(tmp_path / "run", tmp_path / "stopped") == ["metrics.jsonl"]


def test_fp16_skips_the_steps_that_overflow_and_keeps_the_scale(data, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "make_accelerator", partial(half_precision, 2.0**40))
    assert start(data, tmp_path / "run", *OPTIONS) == 0
    checkpoints = list_checkpoints(tmp_path / "run" / "checkpoints")
    first, last = (load_file(checkpoint / "model.safetensors") for checkpoint in (checkpoints[0], checkpoints[-1]))
    assert len(checkpoints) > 1
    for name in first:
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked", "prior", "temperature")):
            assert torch.equal(first[name], last[name]), name
    # Halved at each of the skipped steps.
    assert torch.load(checkpoints[-1] / "scaler.pt", weights_only=True)["scale"] == 2.0 ** (40 - STEPS)


@pytest.mark.skipif("DIFFRGEN_FULL_SCALE" not in os.environ, reason="compiling takes minutes: DIFFRGEN_FULL_SCALE=1")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_steps_are_those_of_eager(data, tmp_path, plain, monkeypatch, precision):
    monkeypatch.setattr(torch._inductor.config, "fallback_random", True)
    assert start(data, tmp_path / "run", *OPTIONS, "--compile", "--precision", precision) == 0
    bound = {"fp32": 1e-4, "bf16": BF16}[precision]
    np.testing.assert_allclose(losses(tmp_path / "run"), plain, rtol=bound, atol=bound)
