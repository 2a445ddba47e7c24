"""Every way in which a training is stopped, and how it goes on: signals, a closed terminal, kills, a full disk."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import arguments, differences, start, write_studies

from diffrgen import train as train_command
from diffrgen.command import run_command
from diffrgen.fitting.order import PassOrder
from diffrgen.retrieval import fit
from diffrgen.training import trainer

# Three passes of two steps.
FIT = ("--retriever.max-steps", "6", "--max-steps", "2")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_studies(tmp_path_factory.mktemp("resume") / "data")


@pytest.fixture(scope="module")
def unbroken(data) -> Path:
    run = data.parent / "unbroken"
    assert start(data, run, *FIT) == 0
    return run


def retriever_differences(run: Path, other: Path) -> list[str]:
    mine, theirs = (load_file(folder / "retriever" / "model.safetensors") for folder in (run, other))
    return [name for name in mine if not torch.equal(mine[name], theirs[name])]


def test_the_number_of_workers_changes_neither_the_retriever_nor_the_training(data, unbroken, tmp_path):
    assert start(data, tmp_path / "run", *FIT, "--workers", "2") == 0
    assert not retriever_differences(tmp_path / "run", unbroken)
    assert not differences(tmp_path / "run", unbroken)


def test_each_pass_has_an_order_of_its_own_whatever_was_drawn_before():
    order = PassOrder(20, seed=3)
    first = list(order)
    order.epoch = 1
    second = list(order)
    order.start = 15
    assert (sorted(first), sorted(second)) == (list(range(20)),) * 2
    assert first != second
    assert list(order) == second[15:]
    order.epoch, order.start = 0, 0
    torch.rand(7)
    assert list(order) == first


def at_fit_step(monkeypatch, number: int, action) -> None:
    """Have `action` called when step `number` of the retriever's fit is done."""
    take = fit._Fit.take

    def counted(self, batch):
        loss = take(self, batch)
        if self.step == number:
            action()
        return loss

    monkeypatch.setattr(fit._Fit, "take", counted)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_signal_while_the_retriever_is_fitted_saves_it_and_the_fit_goes_on(
    number, data, unbroken, tmp_path, monkeypatch, capsys
):
    run, code = tmp_path / "run", getattr(signal, number)
    with monkeypatch.context() as patch:
        at_fit_step(patch, 3, lambda: os.kill(os.getpid(), code))
        assert start(data, run, *FIT) == 128 + code
    message = capsys.readouterr().err
    assert "the retriever is fitted to step 3 of 6, which is saved; continue with: " in message
    assert f"python -m diffrgen.train --resume --output {run}\n" in message
    steps = []
    with monkeypatch.context() as patch:
        at_fit_step(patch, 4, lambda: steps.append(4))
        at_fit_step(patch, 1, lambda: steps.append(1))
        assert start(data, run, "--max-steps", "2") == 0
    assert steps == [4]
    assert not (run / "retriever-fit.state").exists()
    assert not retriever_differences(run, unbroken)
    assert not differences(run, unbroken)


def test_a_damaged_state_of_the_fit_is_named_and_the_fit_starts_again(data, unbroken, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_fit_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert start(data, run, *FIT) == 143
    state = bytearray((run / "retriever-fit.state").read_bytes())
    state[len(state) // 2] ^= 1
    (run / "retriever-fit.state").write_bytes(state)
    with pytest.warns(UserWarning, match=r"retriever-fit.state: not used, so the retriever is fitted from the start: it is dam"):
        assert start(data, run, "--max-steps", "2") == 0
    assert not retriever_differences(run, unbroken)


def test_a_signal_while_the_index_is_made_leaves_with_words(data, tmp_path, monkeypatch, capsys):
    from diffrgen.retrieval import build

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(build, "write_index", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        assert start(data, run, *FIT) == 143
    assert "stopped while the run was prepared; finished parts are kept. Continue with" in capsys.readouterr().err
    assert (run / "retriever" / "model.safetensors").is_file()
    assert start(data, run, "--max-steps", "2") == 0


IN_A_TERMINAL = """
import sys, time
from diffrgen.training import trainer
from diffrgen import train
step = trainer.Trainer._step
def slowly(self, batch, temperature):
    losses = step(self, batch, temperature)
    if self.progress.step == 1:
        print("STEP", flush=True)
        time.sleep(2)
    return losses
trainer.Trainer._step = slowly
sys.exit(train.main(sys.argv[1:]))
"""


def read_until(terminal: int, words: bytes, seconds: float) -> bytes:
    end, seen = time.monotonic() + seconds, b""
    while words not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 1.0)[0]:
            seen += os.read(terminal, 4096)
    return seen


def test_a_terminal_that_is_closed_ends_training_with_a_checkpoint(data, unbroken, tmp_path):
    pty = pytest.importorskip("pty")
    run = tmp_path / "run"
    process, terminal = pty.fork()
    if process == 0:
        command = [sys.executable, "-c", IN_A_TERMINAL, *arguments(data, run, *FIT, "--max-steps", "3")]
        os.execv(sys.executable, command)
    seen = read_until(terminal, b"STEP", 240)
    assert b"STEP" in seen, seen
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]


def test_under_nohup_a_closed_terminal_changes_nothing(data, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        at_fit_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert start(data, tmp_path / "run", *FIT) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


DRAWING = """
import sys
from pathlib import Path
from diffrgen.phantom import PhantomOptions, write_phantom
if __name__ == "__main__":
    write_phantom(Path(sys.argv[1]), PhantomOptions(studies=4000), workers=2, progress=False)
"""


def children_of(process: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False)
    return [int(child) for child in found.stdout.split()]


def is_alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="processes are looked for in /proc")
def test_the_workers_that_draw_the_phantom_end_with_a_main_process_that_is_killed(tmp_path):
    script = tmp_path / "draw.py"
    script.write_text(DRAWING)
    main = subprocess.Popen([sys.executable, str(script), str(tmp_path / "phantom")])
    try:
        end = time.monotonic() + 240
        while not list(tmp_path.glob("phantom/images/*.png")) and time.monotonic() < end:
            time.sleep(0.1)
        workers = children_of(main.pid)
        assert len(workers) >= 2
    finally:
        main.kill()
        main.wait()
    end = time.monotonic() + 60
    while any(map(is_alive, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [worker for worker in workers if is_alive(worker)]


def test_a_disk_that_is_full_before_the_first_checkpoint_keeps_what_there_is(data, unbroken, tmp_path, monkeypatch, capsys):
    """The retriever is fitted and kept; --overwrite, which would fit it again, is not the advice."""
    run = tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    build = trainer.Trainer.__init__

    def refused(self, *arguments):
        build(self, *arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "__init__", refused)
        try:
            assert run_command(lambda: start(data, run, *FIT, "--checkpoint-every", "1")) == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = capsys.readouterr().err
    assert "Written completely before: no checkpoint. Make room, then go on with --resume." in message
    fitted = (run / "retriever" / "model.safetensors").stat().st_mtime_ns
    assert train_command.main(["--resume", "--output", str(run), "--max-steps", "2"]) == 0
    assert (run / "retriever" / "model.safetensors").stat().st_mtime_ns == fitted
    assert not differences(run, unbroken)
