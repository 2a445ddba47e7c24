"""Run folders that may not be written or were garbled, and who may read what a run writes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_training import arguments, start

from diffrgen import evaluate, generate, train
from diffrgen.command import run_command
from diffrgen.staging import replace_file, staged

pytestmark = pytest.mark.usefixtures("no_java")
NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write anything; within the block this process may write as much as nobody may."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked(finished_run, monkeypatch) -> Iterator[Path]:
    """A folder with a copy of a run and its data that may not be written, and `mine`, which may."""
    folder = Path(tempfile.mkdtemp())
    shutil.copytree(finished_run, folder / "run")
    shutil.copytree(finished_run.parent / "data", folder / "data")
    settings = folder / "run" / "run.json"
    settings.write_text(settings.read_text().replace(str(finished_run.parent), str(folder)))
    (folder / "mine").mkdir()
    monkeypatch.setenv("DIFFRGEN_CACHE", str(folder / "mine" / "cache"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (folder / "mine").chmod(0o777)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def refused(capsys, command, *options: str) -> str:
    """Return what a command says that ends with status 2."""
    with as_nobody():
        assert run_command(lambda: command.main(list(options))) == 2
    return capsys.readouterr().err


def test_a_run_that_may_not_be_written_is_named_before_it_is_resumed(locked, capsys):
    message = refused(capsys, train, "--resume", "--output", str(locked / "run"))
    assert f"{locked / 'run'}: needed files that may be read and written, got: [Errno 13] Permission denied" in message
    assert "See to the permissions or choose another --output" in message


def test_an_output_that_may_not_be_made_is_named(locked, capsys):
    message = refused(capsys, train, *arguments(locked / "data" / "annotation.json", locked / "new"))
    assert f"{locked / 'new'}: needed files that may be read and written" in message


def test_scores_go_elsewhere_where_the_run_may_not_be_written(locked, capsys):
    run = str(locked / "run")
    message = refused(capsys, evaluate, run, "--split", "val")
    assert "needed a folder that may be written" in message
    assert "choose another --output" in message
    with as_nobody():
        assert evaluate.main([run, "--split", "val", "--output", str(locked / "mine" / "scores")]) == 0
    assert (locked / "mine" / "scores" / "metrics.json").is_file()
    assert list((locked / "mine" / "cache" / "references").glob("*/neighbours-val.npz"))


def test_reports_are_generated_with_a_run_that_may_not_be_written(locked, capsys):
    with as_nobody():
        assert generate.main([str(locked / "run"), str(locked / "data" / "0.png"), "--json"]) == 0
    assert '"report"' in capsys.readouterr().out


def test_a_phantom_that_cannot_be_drawn_names_its_folder(locked, capsys, monkeypatch):
    monkeypatch.setenv("DIFFRGEN_CACHE", str(locked / "data"))
    message = refused(capsys, train, "--output", str(locked / "mine" / "run"), "--phantom.studies", "20")
    assert "the phantom cannot be drawn here: Permission denied; set the environment variable DIFFRGEN_CACHE" in message


def test_a_file_that_may_not_be_read_is_named_by_every_command(locked, capsys):
    settings = locked / "run" / "run.json"
    settings.chmod(0)
    images = [str(locked / "data" / "0.png")]
    for command in (evaluate, generate):
        assert str(settings) in refused(capsys, command, str(locked / "run"), *images * (command is generate))


@pytest.mark.parametrize("line", ["{}", "[1]", "loss 0.3", '{"phase": "train", "step": "x"}', '{"phase": 3, "step": 1}'])
def test_a_garbled_log_is_named_by_its_line(line, own_run, capsys):
    log = own_run / "metrics.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:1], line, *lines[1:], ""]))
    assert run_command(lambda: start(own_run, own_run)) == 2
    message = capsys.readouterr().err
    assert f"{log}: line 2: needed phase, step and numbers as JSON" in message
    assert "correct or delete the line" in message


def test_others_may_read_what_the_umask_lets_them(finished_run, tmp_path):
    umask = os.umask(0o022)
    os.umask(umask)
    odd = {
        str(path.relative_to(finished_run)): oct(path.stat().st_mode & 0o777)
        for path in finished_run.rglob("*")
        if path.is_file() and path.stat().st_mode & 0o777 != 0o666 & ~umask
    }
    assert not odd
    old = os.umask(0o027)
    try:
        with staged(tmp_path / "folder") as stage:
            (stage / "inner").mkdir()
            (stage / "inner" / "private").touch(0o600)
        with staged(tmp_path / "folder") as stage:
            (stage / "private").touch(0o600)
        replace_file(tmp_path / "folder" / "file", b"")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "folder").rglob("*")}
    assert modes == {"inner": 0o750, "private": 0o640, "file": 0o640}
