"""A command that writes one file checks before its work that the file is new and that its folder exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from diffrgen import rexrank, score
from diffrgen.command import run_command
from diffrgen.mechanisms import __main__ as mechanisms
from diffrgen.phantom import __main__ as phantom
from diffrgen.staging import cache_root

Main = Callable[[Sequence[str]], int]
# None of the inputs exists: an error that names the output comes before any of them is read.
WRITERS: dict[str, tuple[Main, tuple[str, ...]]] = {
    "score": (score.main, ("absent.csv", "--output")),
    "compare": (score.main, ("absent.csv", "--against", "other.csv", "--output")),
    "rexrank": (rexrank.main, ("absent", "--input-json", "absent.json", "--img-root", "absent", "--save-json")),
    "mechanisms": (mechanisms.main, ("absent", "--output")),
}


def error_of(main: Main, arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run_command(lambda: main(arguments)) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("main", "arguments"), WRITERS.values(), ids=WRITERS)
def test_an_existing_file_is_kept(main, arguments, tmp_path, capsys):
    file = tmp_path / "results.json"
    file.write_text("earlier results")
    message = error_of(main, (*arguments, str(file)), capsys)
    assert message == f"error: {file}: needed a new file, got one that exists; choose another\n"
    assert file.read_text() == "earlier results"


@pytest.mark.parametrize(("main", "arguments"), WRITERS.values(), ids=WRITERS)
def test_a_missing_folder_is_named_before_any_work(main, arguments, tmp_path, capsys):
    file = tmp_path / "absent" / "results.json"
    message = error_of(main, (*arguments, str(file)), capsys)
    assert message == f"error: {file}: needed a folder that exists and may be written, got {file.parent}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_contact_sheet_replaces_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sheet.png"
    file.write_bytes(b"a picture")
    message = error_of(phantom.main, ("--contact-sheet", str(file)), capsys)
    assert message == f"error: {file}: needed a new file, got one that exists; choose another\n"
    assert file.read_bytes() == b"a picture"
    assert "needed --folder, --contact-sheet or both" in error_of(phantom.main, (), capsys)


def test_an_empty_cache_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFRGEN_CACHE", "")
    assert cache_root() == Path.home() / ".cache" / "diffrgen"
