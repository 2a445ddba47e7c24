"""Learning rates and temperature over a training: by hand, and as a run logs them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from diffrgen.fitting.optimiser import make_adamw
from diffrgen.training.options import OptimiserOptions
from diffrgen.training.schedule import go_to, gumbel_temperature, make_scheduler

PEAK, STEPS = 0.1, 8


def network() -> nn.Module:
    return nn.ModuleDict({"encoder": nn.Linear(2, 3), "head": nn.Linear(3, 1)})


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        # From 0 to the peak in two steps; then half a cosine over the six that are left.
        (0.25, [0.0, 0.05, 0.1, *(0.05 * (1 + math.cos(math.pi * step / 6)) for step in range(1, 6)), 0.0]),
        (0.0, [0.05 * (1 + math.cos(math.pi * step / 8)) for step in range(9)]),
    ],
)
def test_rates_rise_in_the_warm_up_and_fall_along_a_cosine(warmup: float, expected: list[float]) -> None:
    options = OptimiserOptions(learning_rate=PEAK, warmup=warmup)
    optimiser = make_adamw(network(), learning_rate=options.learning_rate, weight_decay=0.0)
    scheduler = make_scheduler(optimiser, options, STEPS)
    rates = []
    for _ in range(STEPS + 1):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    assert rates == pytest.approx(expected, abs=1e-12)
    for step, rate in enumerate(expected):
        go_to(scheduler, step)
        assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([rate] * 2, abs=1e-12)


def test_a_slower_part_has_its_own_rate_and_vectors_do_not_decay() -> None:
    model = network()
    optimiser = make_adamw(
        model, learning_rate=PEAK, weight_decay=0.3, slower=model["encoder"], slower_rate=PEAK / 4
    )
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    assert {name: found[id(parameter)] for name, parameter in model.named_parameters()} == {
        "encoder.weight": (PEAK / 4, 0.3),
        "encoder.bias": (PEAK / 4, 0.0),
        "head.weight": (PEAK, 0.3),
        "head.bias": (PEAK, 0.0),
    }


def test_first_step_moves_each_weight_by_its_rate() -> None:
    """AdamW's first step is the rate along the sign of the gradient."""
    model = network()
    optimiser = make_adamw(model, learning_rate=PEAK, weight_decay=0.0, slower=model["encoder"], slower_rate=PEAK / 4)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimiser.step()
    for name, parameter in model.named_parameters():
        rate = PEAK / 4 if name.startswith("encoder") else PEAK
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, rate))


def test_temperature_falls_by_one_factor_a_step() -> None:
    options = OptimiserOptions(temperature=(8.0, 0.5))
    assert [gumbel_temperature(options, step, 5) for step in range(5)] == pytest.approx([8.0, 4.0, 2.0, 1.0, 0.5])
    assert gumbel_temperature(options, 0, 1) == 8.0


def test_a_run_trains_at_the_rates_of_its_options(finished_run: Path) -> None:
    """Six of twelve planned steps; one of them is the warm-up of 0.05, and the peak is the preset's 1.2e-3."""
    lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["learning_rate"] for line in lines if line["phase"] == "train"}
    # Logged after a step is the rate of the next, to three digits.
    expected = {step: 6e-4 * (1 + math.cos(math.pi * (step - 1) / 11)) for step in rates}
    assert 6 in rates
    assert rates == pytest.approx(expected, rel=1e-3)
