"""Less memory for the same step: accumulated batches, and activations computed again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_network import random_batch, tiny_network
from tiny_training import arguments, log_lines, write_studies

from diffrgen import train as train_command
from diffrgen.errors import DataError
from diffrgen.training import trainer
from diffrgen.training.run import train


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_studies(tmp_path_factory.mktemp("memory") / "data")


def gradients(network: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def test_accumulated_gradient_is_the_mean_of_the_batches_own(data, tmp_path, monkeypatch) -> None:
    """16 training studies in batches of 3, of which the fifth is left over: two steps of two batches each."""
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    take, seen = trainer.Trainer._step, []

    def step(self: trainer.Trainer, group: list, temperature: float) -> torch.Tensor:
        network, states = self.network, {name: x.clone() for name, x in self.network.state_dict().items()}
        network.set_temperature(temperature)
        torch.manual_seed(len(seen))
        own, losses = [], []
        for batch in group:
            network.zero_grad()
            output = network(**batch)
            output.loss.backward()
            own.append(gradients(network))
            losses.append(output.language_loss.item())
        network.zero_grad()
        network.load_state_dict(states)
        monkeypatch.setattr(self.accelerator, "clip_grad_norm_", lambda *_: seen.append(gradients(network)) or torch.ones(()))
        torch.manual_seed(len(seen))
        means = take(self, group, temperature)
        for found, *parts in zip(seen[-1], *own, strict=True):
            torch.testing.assert_close(found, torch.stack(parts).mean(0), rtol=1e-5, atol=1e-7)
        assert means[trainer.LOSSES.index("language_loss")].item() == pytest.approx(sum(losses) / len(losses))
        return means

    monkeypatch.setattr(trainer.Trainer, "_step", step)
    more = ["--optimiser.batch-size", "3", "--optimiser.accumulate", "2", "--optimiser.epochs", "1"]
    assert train_command.main(arguments(data, tmp_path / "run", *more)) == 0
    assert len(seen) == 2
    assert [line["step"] for line in log_lines(tmp_path / "run") if line["phase"] == "train"] == [1, 2]


def test_more_batches_a_step_than_there_are_is_refused(data, tmp_path) -> None:
    options = arguments(data, tmp_path / "run", "--optimiser.accumulate", "5")
    with pytest.raises(DataError, match="needed 5 batches of 4 training studies for a step, got 4"):
        train(train_command.parse_options(options))


def test_activations_computed_again_give_the_same_gradient() -> None:
    found, calls = [], []
    for again in (False, True):
        network = tiny_network(dropout=0.1).train()
        network.decoder.config.hidden_dropout_prob = 0.1
        if again:
            network.decoder.gradient_checkpointing_enable({"use_reentrant": False})
        count: list[int] = []
        network.decoder.bert.encoder.layer[0].attention.self.query.register_forward_hook(
            lambda *_, count=count: count.append(1)
        )
        torch.manual_seed(3)
        network(**random_batch()).loss.backward()
        found.append(gradients(network))
        calls.append(len(count))
    assert calls == [1, 2]
    for kept, computed in zip(*found, strict=True):
        assert torch.equal(kept, computed)


def test_the_option_reaches_the_decoder(data, tmp_path, monkeypatch) -> None:
    class Reached(Exception):
        """Carries the trainer that was about to fit."""

    def fit(self: trainer.Trainer) -> None:
        raise Reached(self)

    monkeypatch.setattr(trainer.Trainer, "fit", fit)
    options = train_command.parse_options(arguments(data, tmp_path / "run", "--activation-checkpointing"))
    with pytest.raises(Reached) as reached:
        train(options)
    assert reached.value.args[0].network.decoder.bert.encoder.layer[0].gradient_checkpointing
