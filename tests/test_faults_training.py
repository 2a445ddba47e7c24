"""What a resumed training may change and what not, one owner of a run folder, and losses that are not finite."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import arguments, log_lines, start, write_studies

from diffrgen import train as train_command
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.finite import MOST_IN_A_ROW, StepGuard
from diffrgen.pipeline.dataset import StudyDataset
from diffrgen.training import trainer
from diffrgen.training.checkpoints import Progress
from diffrgen.training.plan import StepPlan
from diffrgen.training.run_lock import LOCK, locked, no_run_if_refused


@pytest.fixture(scope="module", autouse=True)
def log_every_step():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "LOG_EVERY", 1)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_studies(tmp_path_factory.mktemp("training") / "data")


def refused(run: Path, capsys, *more: str) -> str:
    assert run_command(lambda: train_command.main(["--resume", "--output", str(run), *more])) == 2
    return capsys.readouterr().err


def test_steps_are_laid_out_in_studies():
    plan = StepPlan(studies=50, batch_size=4, accumulate=3, processes=2, epochs=5)
    assert (plan.studies_a_step, plan.steps_an_epoch, plan.planned) == (24, 2, 10)
    # Of the second epoch's 50 studies 24 were taken: one step is left, and this is the third place.
    assert (plan.left(Progress(1, 24, step=3)), plan.place(Progress(1, 24, step=3))) == (1, 3)
    # Taken in steps of 20: 30 studies are left, another step.
    assert (plan.left(Progress(1, 20, step=9)), plan.place(Progress(1, 20, step=9))) == (1, 3)
    assert (plan.left(Progress(4, 48)), plan.place(Progress(4, 48))) == (0, 10)
    with pytest.raises(DataError, match=r"needed 3 batches of 9 training studies for a step, got 2; lower"):
        StepPlan(studies=50, batch_size=9, accumulate=3, processes=2, epochs=5)


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        # Two steps of 4 are behind; 8 studies of the epoch are left, then two epochs of 16.
        (("--optimiser.batch-size", "2"), 2 + 4 + 16),
        (("--optimiser.batch-size", "2", "--optimiser.accumulate", "2"), 2 + 2 + 8),
        # Of the 8 that are left one step of 5 is full, of an epoch three.
        (("--optimiser.batch-size", "5"), 2 + 1 + 6),
    ],
)
def test_another_batch_size_in_the_middle_of_an_epoch_takes_each_study_once(change, steps, data, tmp_path, monkeypatch):
    run, seen = tmp_path / "run", Counter()
    assert start(data, run, "--max-steps", "2") == 0
    before = {line["step"]: line for line in log_lines(run) if line["phase"] == "train"}
    item = StudyDataset.__getitem__

    def noted(self, row):
        if self.settings.transform.train:
            seen[self.epoch, row] += 1
        return item(self, row)

    monkeypatch.setattr(StudyDataset, "__getitem__", noted)
    assert train_command.main(["--resume", "--output", str(run), *change]) == 0
    lines = [line for line in log_lines(run) if line["phase"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    assert lines[0] == before[1]
    assert max(seen.values()) == 1
    # The rest of the first epoch are the studies that its first two steps did not take.
    size = int(change[change.index("--optimiser.batch-size") + 1]) if "--optimiser.batch-size" in change else 4
    assert len([row for epoch, row in seen if epoch == 0]) >= 8 // size * size
    # The cosine ends where the last step ends: the next would be of the rate 0.
    late = steps - 1 - (2 if steps > 12 else 0)
    rates = [line["learning_rate"] for line in lines]
    assert rates[-1] == 0.0
    assert rates[late - 1] >= rates[-1]
    assert lines[-1]["temperature"] == pytest.approx(0.1)
    # A later --resume of the complete training takes no further step.
    assert train_command.main(["--resume", "--output", str(run)]) == 0
    assert len([line for line in log_lines(run) if line["phase"] == "train"]) == steps


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--preset", "paper"), "--preset (was tiny, got paper)"),
        (("--optimiser.learning-rate", "0.5"), "--optimiser.learning-rate (was 0.0012, got 0.5)"),
        (("--optimiser.epochs", "9"), "--optimiser.epochs (was 3, got 9)"),
        (("--labeler", "phantom"), "--labeler (was None, got phantom)"),
        (("--text.rules", "iu"), "--text.rules (was mimic, got iu)"),
        (("--text.max-tokens", "11"), "--text.max-tokens (was 12, got 11)"),
        (("--model.width", "32"), "--model.width (was 16, got 32)"),
        (("--model.no-prior",), "--model.prior (was True, got False)"),
        (("--seed", "1"), "--seed (was 0, got 1)"),
        (("--retriever.neighbours", "2"), "--retriever.neighbours (was 3, got 2)"),
        (("--image.size", "24", "--seed", "2"), "--seed (was 0, got 2), --image.size (was 32, got 24)"),
    ],
)
def test_what_a_training_is_may_not_change_and_is_named(change, named, finished_run, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    stored = (finished_run / "train.json").read_bytes()
    (tmp_path / "run" / "train.json").write_bytes(stored)
    message = refused(tmp_path / "run", capsys, *change)
    assert f"options that change the training cannot be resumed: {named}. Leave them out to resume" in message
    assert (tmp_path / "run" / "train.json").read_bytes() == stored


def test_resume_starts_a_run_where_there_is_none_and_the_same_command_goes_on(data, tmp_path, capsys):
    command = [*arguments(data, tmp_path / "new" / "run", "--max-steps", "1"), "--resume"]
    assert train_command.main(command) == 0
    command[-2] = "2"
    assert train_command.main(command) == 0
    assert [line["step"] for line in log_lines(tmp_path / "new" / "run") if line["phase"] == "train"] == [1, 2]
    assert "needed either --resume or --overwrite, got both" in refused(tmp_path / "x", capsys, "--overwrite")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    assert "holds files other than a run" in refused(tmp_path / "other", capsys)


@pytest.mark.parametrize("existing", [False, True])
def test_a_start_that_is_refused_leaves_no_run_and_the_corrected_command_trains(existing, data, tmp_path, capsys):
    run = tmp_path / "new" / "run"
    if existing:
        run.mkdir(parents=True)
    wrong = arguments(data, run, "--max-steps", "0", "--model.context", "indication")
    assert run_command(lambda: train_command.main(wrong)) == 2
    assert "needed training studies with the field 'indication'" in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == ([run.parent, run] if existing else [])
    if existing:
        assert train_command.main(arguments(data, run, "--max-steps", "0")) == 0


def refused_start(run: Path, *made: str) -> None:
    with locked(run), no_run_if_refused(run, "train.json"):
        for name in ("train.json", *made):
            (run / name).touch()
        raise DataError("refused")


def test_a_refusal_after_something_was_made_keeps_it(tmp_path):
    """What took time stays for --resume; so does a run that was there before, whatever is refused in it."""
    for name, before in (("tokenizer.json", False), ("data-digests.json", True)):
        run = tmp_path / name
        run.mkdir()
        if before:
            (run / "train.json").touch()
        with pytest.raises(DataError):
            refused_start(run, name)
        assert {path.name for path in run.iterdir()} == {"train.json", name, LOCK}


HOLDER = """
import os, sys, time
from pathlib import Path
from diffrgen.lock import exclusive
with exclusive(Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        time.sleep(120)
        os._exit(0)
    print(child, flush=True)
    time.sleep(120)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="forks")
@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_a_run_folder_has_one_owner_and_a_killed_one_leaves_no_lock(option, data, tmp_path, capsys):
    import os

    run = tmp_path / "run"
    assert start(data, run, "--max-steps", "1") == 0
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(run / LOCK)], stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != LOCK}
    try:
        assert run_command(lambda: train_command.main([*arguments(data, run, "--max-steps", "2"), option])) == 2
        assert f"{run}: process {holder.pid} on " in capsys.readouterr().err
        assert files == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != LOCK}
        holder.kill()
        holder.wait()
        # A worker that outlives its main process for a while does not hold the lock.
        assert train_command.main([*arguments(data, run, "--max-steps", "2"), option]) == 0
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)


def not_finite(folder: Path) -> list[str]:
    """Name each tensor of a run's weights and checkpoints that holds NaN or infinity."""
    return [
        f"{path.name}: {name}"
        for path in folder.rglob("*.safetensors")
        for name, tensor in load_file(path).items()
        if not torch.isfinite(tensor).all()
    ]


def test_a_learning_rate_that_is_too_high_ends_in_words_and_saves_nothing_that_is_not_finite(data, tmp_path, capsys):
    run = tmp_path / "run"
    more = ("--optimiser.learning-rate", "1e30", "--optimiser.epochs", "9", "--checkpoint-every", "1")
    assert run_command(lambda: train_command.main(arguments(data, run, *more))) == 2
    message = capsys.readouterr().err
    assert "the learning rate 1e+30 is too high; lower --optimiser.learning-rate, and start anew" in message
    assert not not_finite(run)


def test_a_retriever_that_diverges_is_named(data, tmp_path, capsys):
    more = ("--retriever.learning-rate", "1e30", "--retriever.max-steps", "20")
    assert run_command(lambda: train_command.main(arguments(data, tmp_path / "run", *more))) == 2
    message = capsys.readouterr().err
    assert "lower --retriever.learning-rate" in message
    assert not not_finite(tmp_path / "run")


def test_one_step_that_is_not_finite_changes_nothing_and_is_counted(data, tmp_path, monkeypatch, capsys):
    """A broken image makes the forward pass NaN, through batch normalisation's running means too."""
    take, states = trainer.Trainer._step, {}

    def broken(self, group, temperature):
        step = self.progress.step + 1
        if step == 2:
            group[0]["pixel_values"][0] = math.nan
            states["before"] = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        losses = take(self, group, temperature)
        if step == 2:
            states["after"] = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        return losses

    monkeypatch.setattr(trainer.Trainer, "_step", broken)
    run = tmp_path / "run"
    assert start(data, run, "--max-steps", "5") == 0
    assert "step 2: skipped, for its loss (nan) or gradient (norm nan) is not finite; 1 so far" in capsys.readouterr().err
    changed = [name for name, value in states["before"].items() if not torch.equal(value, states["after"][name])]
    # It follows from the number of the step.
    assert changed == ["fam.temperature"]
    assert json.loads((run / "training.json").read_text())["skipped"] == 1
    assert [line["loss"] is None for line in log_lines(run) if line["phase"] == "train"] == [False, True, False, False, False]
    assert not not_finite(run)


def test_several_skipped_steps_in_a_row_end_training_with_the_broken_input(data, tmp_path, monkeypatch, capsys):
    take = trainer.Trainer._step

    def broken(self, group, temperature):
        group[0]["pixel_values"][0] = math.nan
        return take(self, group, temperature)

    monkeypatch.setattr(trainer.Trainer, "_step", broken)
    assert run_command(lambda: start(data, tmp_path / "run")) == 2
    message = capsys.readouterr().err
    assert f"step {MOST_IN_A_ROW}: the loss or its gradient was not finite in {MOST_IN_A_ROW} steps in a row" in message
    assert "Likely cause: the batch's pixel_values is not finite; look for broken images" in message


def test_weights_that_overflow_are_never_saved(data, tmp_path, monkeypatch, capsys):
    take = trainer.Trainer._step

    def overflow(self, group, temperature):
        losses = take(self, group, temperature)
        if self.progress.step == 4:
            # A word that no report of the batch holds: the loss does not see it.
            self.network.get_input_embeddings().weight.data[-1] = math.inf
        return losses

    monkeypatch.setattr(trainer.Trainer, "_step", overflow)
    run = tmp_path / "run"
    assert run_command(lambda: start(data, run, "--checkpoint-every", "1", "--max-steps", "8")) == 2
    assert "step 5: decoder.bert.embeddings.word_embeddings.weight is not finite, so nothing is saved" in capsys.readouterr().err
    assert not not_finite(run)
    assert [path.name for path in sorted((run / "checkpoints").iterdir())][-1] == "step-00000004-validated"


def test_a_validation_that_is_not_finite_is_never_called_best(data, tmp_path, monkeypatch, capsys):
    measure = trainer.validate

    def not_a_number(*arguments, **options):
        found = measure(*arguments, **options)
        found.scores["loss"] = math.nan
        found.positive_probability[:] = math.nan
        return found

    monkeypatch.setattr(trainer, "validate", not_a_number)
    run = tmp_path / "run"
    assert run_command(lambda: start(data, run, "--max-steps", "4")) == 2
    assert "needed a validation whose loss is finite, got none in 4 steps" in capsys.readouterr().err
    assert not (run / "model.safetensors").exists()
    assert not not_finite(run)


def test_the_guard_puts_buffers_back_and_counts_in_a_row():
    network = torch.nn.BatchNorm1d(2)
    guard = StepGuard(network)
    for number in range(1, MOST_IN_A_ROW):
        guard.keep()
        network(torch.full((3, 2), math.nan))
        guard.skip(number, loss=math.nan, norm=math.inf, cause="x")
        assert network.running_mean.tolist() == [0.0, 0.0]
        assert network.num_batches_tracked == 0
    guard.passed()
    for number in range(MOST_IN_A_ROW - 1):
        guard.skip(number, loss=math.nan, norm=math.inf, cause="x")
    with pytest.raises(DataError, match=r"step 9: .* in 5 steps in a row \(loss nan, norm of the gradient inf\).*cause: x"):
        guard.skip(9, loss=math.nan, norm=math.inf, cause="x")
    assert guard.skipped == 2 * MOST_IN_A_ROW - 1
