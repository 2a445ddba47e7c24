"""`diffrgen.reinforce` on a tiny run of the phantom: the new run, its log, resuming, refusals."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from safetensors.torch import load_file

from diffrgen import reinforce as command
from diffrgen import train
from diffrgen.command import run_command
from diffrgen.pipeline.run_check import weights_digest
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.reinforcement.trainer import PolicyTrainer
from diffrgen.sharing.card import make_card
from diffrgen.sharing.facts import RunFacts
from diffrgen.staging import file_digest

REWARDS = ["--rewards", "states=0.5", "change=0.3", "bleu_4=0.2"]
OPTIONS = ["--batch-size", "4", "--learning-rate", "0.01", "--validation-studies", "3"]


def run(*arguments: object) -> int:
    return run_command(partial(command.main, [str(one) for one in arguments]))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, no_java: None) -> Path:
    """Return a run of a few steps on 24 phantom studies."""
    folder = tmp_path_factory.mktemp("reinforced") / "start"
    phantom = ["--data", "phantom", "--phantom.studies", "24", "--phantom.size", "64"]
    options = [*tiny_training.OPTIONS, *phantom, "--model.prior", "--max-steps", "4", "--output", str(folder)]
    assert train.main(options) == 0
    return folder


@pytest.fixture(scope="module")
def reinforced(start: Path) -> Path:
    """Return what the start became by an epoch of five batches."""
    output = start.parent / "reinforced"
    before = {path: file_digest(path) for path in start.rglob("*") if path.is_file()}
    assert run(start, "--output", output, *REWARDS, *OPTIONS) == 0
    after = {path: file_digest(path) for path in start.rglob("*") if path.is_file()}
    assert {path: digest for path, digest in after.items() if path in before} == before
    return output


def newest(run: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((run / "checkpoints").iterdir())[-1] / "model.safetensors")


def test_the_decoder_alone_is_trained_and_the_new_run_is_complete(start: Path, reinforced: Path) -> None:
    before, after = load_file(start / "model.safetensors"), newest(reinforced)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)
    settings = RunFolder(reinforced).settings()
    assert settings == RunFolder(start).settings()
    assert not (reinforced / "evaluation").exists()
    lineage = json.loads((reinforced / "lineage.json").read_text())
    assert lineage["start_weights"] == weights_digest(start)
    assert lineage["weights"] == {"states": 0.5, "change": 0.3, "bleu_4": 0.2}
    assert lineage["batches"] == 5
    card = str(make_card(RunFacts.read(reinforced)))
    assert "rewards: states 0.5, change 0.3, bleu_4 0.2" in card
    assert "5 batches of samples" in card
    assert "The initial weights are those of the best validation micro-F1" in card


def test_the_log_shows_what_is_gained_and_how(reinforced: Path) -> None:
    lines = tiny_training.log_lines(reinforced)
    assert [(line["phase"], line["step"]) for line in lines] == [
        *[("val", 0), ("val_shuffled", 0)],
        *[("train", step) for step in range(1, 6)],
        *[("val", 5), ("val_shuffled", 5)],
    ]
    for line in lines:
        parts = {name.removeprefix("reward_"): value for name, value in line.items() if name.startswith("reward_")}
        assert line["reward"] == pytest.approx(0.5 * parts["states"] + 0.3 * parts["change"] + 0.2 * parts["bleu_4"], abs=3e-6)
        if line["phase"] == "train":
            assert line["kl"] >= 0
            assert 0 <= line["clip_fraction"] <= 1
            assert 0.25 <= line["distinct"] <= 1
        else:
            assert {"micro_f1", "corpus_bleu_4", "distinct", "words"} <= set(line)
    # At the first step of the first batch the policy is the start; after two steps at such a rate it is not.
    assert lines[2]["kl"] > 0
    best = max(line["reward"] for line in lines if line["phase"] == "val")
    lineage = json.loads((reinforced / "lineage.json").read_text())
    assert lineage["reward"] == pytest.approx([lines[0]["reward"], best], abs=1e-6)


def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    start: Path, reinforced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = PolicyTrainer._step

    def stopped(self: PolicyTrainer, *arguments: Any) -> torch.Tensor:
        if self.progress.step == 1:
            self.stop.number = 15
        return step(self, *arguments)

    output = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(PolicyTrainer, "_step", stopped)
        assert run(start, "--output", output, *REWARDS, *OPTIONS) == 128 + 15
    assert len(tiny_training.log_lines(output)) == 4
    # The start may be gone by then.
    assert run("nowhere", "--resume", "--output", output) == 0
    assert tiny_training.differences(output, reinforced) == []


@pytest.mark.parametrize("keep", ["micro_f1", "last"])
def test_the_weights_kept_are_the_best_by_the_score_asked_for(
    keep: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The reward falls; micro-F1 is best after the first of two epochs. Every other row is that of shuffled images.
    rows = [(0.5, 0.1), (0.0, 0.0), (0.4, 0.3), (0.9, 0.9), (0.3, 0.2), (0.0, 0.0)]

    def scores(self: PolicyTrainer, _: Any) -> dict[str, float]:
        reward, found = rows.pop(0)
        return {"reward": reward, "micro_f1": found, "corpus_bleu_4": 0.0, "distinct": 1.0}

    monkeypatch.setattr(PolicyTrainer, "_scores", scores)
    output = tmp_path / keep
    options = ["--rewards", "bleu_4=1", "--epochs", "2", "--learning-rate", "1e-2", *OPTIONS]
    assert run(start, "--output", output, "--keep", keep, *options) == 0
    step = {"micro_f1": 5, "last": 10}[keep]
    weights = load_file(next((output / "checkpoints").glob(f"step-{step:08d}*")) / "model.safetensors")
    kept = load_file(output / "model.safetensors")
    assert all(torch.equal(kept[name], weights[name]) for name in kept)
    lineage = json.loads((output / "lineage.json").read_text())
    assert (lineage["keep"], lineage["reward"]) == (keep, [0.5, {"micro_f1": 0.4, "last": 0.3}[keep]])
    assert f"{'last weights' if keep == 'last' else 'best validation micro_f1'}" in str(make_card(RunFacts.read(output)))


def test_self_critical_training_compares_with_the_greedy_report(start: Path, tmp_path: Path) -> None:
    output = tmp_path / "scst"
    assert run(start, "--output", output, "--method", "scst", *OPTIONS, "--max-steps", "1", "--group", "1") == 0
    (line,) = [line for line in tiny_training.log_lines(output) if line["phase"] == "train"]
    assert line["reward"] == line["reward_cider"]
    # One step on each batch: nothing is clipped, and the policy is the start's yet.
    assert (line["clip_fraction"], line["kl"]) == (0.0, 0.0)
    lineage = json.loads((output / "lineage.json").read_text())
    assert (lineage["method"], lineage["kl_weight"]) == ("scst", 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rewards", "meteor=1"], "expected NAME=WEIGHT with a name out of states, change"),
        (["--rewards", "states"], "expected a weight of at least 0"),
        (["--rewards", "states=-1"], "expected a weight of at least 0"),
        (["--rewards", "states=0", "bleu_4=0"], "expected a weight above 0"),
        (["--rewards", "states=1", "states=2"], "expected each reward once"),
        (["--group", "1"], "at least 2 for grpo"),
        (["--method", "scst", "--iterations", "2"], "expected 1 for scst"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main([str(tmp_path), "--output", str(tmp_path / "new"), *options])
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "new").exists()


def test_folders_and_data_that_do_not_fit_are_refused(
    start: Path, finished_run: Path, reinforced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: file_digest(path) for path in reinforced.rglob("*") if path.is_file()}
    for folder, message in ((reinforced, "pass --resume"), (finished_run, "needed a new or empty folder")):
        assert run(start, "--output", folder) == 2
        assert message in capsys.readouterr().err
    assert run("--resume", "--output", reinforced, "--clip", "0.3") == 2
    assert "--clip (was 0.2, got 0.3)" in capsys.readouterr().err
    assert {path: file_digest(path) for path in reinforced.rglob("*") if path.is_file()} == before
    assert run(finished_run, "--output", tmp_path / "new", *REWARDS) == 2
    assert "expected no reward `change`" in capsys.readouterr().err
    assert run(tmp_path / "absent", "--output", tmp_path / "new") == 2
    broken = shutil.copytree(start, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"")
    assert run(broken, "--output", tmp_path / "new") == 2
    assert "broken" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert run_command(partial(train.main, ["--resume", "--output", str(reinforced)])) == 2
    assert "holds a run of diffrgen.reinforce" in capsys.readouterr().err
