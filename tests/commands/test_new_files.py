"""Commands name an output that cannot be made before their work, and an input that is missing; no file is replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from diffrgen import prepare, rexrank, score
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.mechanisms import __main__ as mechanisms
from diffrgen.phantom import __main__ as phantom
from diffrgen.staging import cache_root
from diffrgen.training.run import check_run_folder

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


def test_a_missing_input_is_named_once_and_without_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "absent.csv"
    message = error_of(score.main, (str(file),), capsys)
    assert message.endswith("got No such file or directory\n")
    assert message.count(str(file)) == 1


def test_a_file_in_the_place_of_a_run_folder_is_called_one(tmp_path: Path) -> None:
    file = tmp_path / "run"
    file.write_text("notes")
    with pytest.raises(DataError, match="run: needed a folder for the run, got a file; choose another --output"):
        check_run_folder(file, resume=False, overwrite=False)
    assert file.read_text() == "notes"


def test_a_preparation_that_fails_leaves_no_new_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = tmp_path / "input.json"
    records.write_text("[1]")
    (tmp_path / "there").mkdir()
    for out in ("there", "new/out"):
        assert "expected '{', got '['" in error_of(prepare.main, ("rexrank", str(records), str(tmp_path / out)), capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input.json", "there"]
