"""What `import diffrgen` and the console script offer."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from warm_process import run_warm

import diffrgen
from diffrgen import Explainer, GenerationOptions, PriorStudy, Reporter, corpus_scores
from diffrgen.__main__ import COMMANDS, main, module_of

ROOT = Path(diffrgen.__file__).parent


def test_options_may_be_left_out(tiny_run):
    """The defaults are those of the commands."""
    reporter, images = Reporter(tiny_run), [tiny_run.parent / "studies" / "0.png"]
    (generated,) = reporter.write(images)
    (same,) = reporter.write(images, GenerationOptions())
    assert generated.report == same.report
    (explained,) = Explainer(reporter).explain(images)
    assert explained.written.report == generated.report
    (other,) = reporter.write(images, replace(GenerationOptions(), beams=1), [PriorStudy(report="The heart is large.")])
    assert isinstance(other.report, str)


def test_corpus_scores_of_equal_texts(no_java_once):
    with pytest.warns(RuntimeWarning, match="METEOR"):
        scores = corpus_scores(["the heart is normal in size ."], ["the heart is normal in size ."])
    assert scores["bleu_4"] == pytest.approx(1.0)


def test_every_command_is_listed_and_none_that_is_not_there():
    files = {path.stem for path in ROOT.glob("*.py") if "def main(arguments" in path.read_text()} - {"__main__"}
    rooms = {path.parent.name for path in ROOT.glob("*/__main__.py")}
    assert files | rooms == set(COMMANDS)


@pytest.mark.parametrize("name", ["generate", "phantom"])
def test_a_command_gives_its_own_help(name, capsys):
    """A command that is a file and one that is a room; test_startup.py looks at the help of each."""
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"python -m diffrgen.{name}" in capsys.readouterr().out


def test_the_list_of_commands(capsys):
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"diffrgen {diffrgen.__version__}\n"
    for arguments, named in (([], "got none"), (["trian"], "got trian")):
        assert main(arguments) == 2
        assert named in capsys.readouterr().err


def test_arguments_and_errors_reach_the_command(tmp_path):
    command = [sys.executable, "-m", "diffrgen", "generate", str(tmp_path), "nothing.png"]
    done = run_warm(command, timeout=600)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "nothing.png" in done.stderr


def test_every_command_takes_its_arguments():
    for name in COMMANDS:
        module = module_of(name)
        assert module.__name__.removesuffix(".__main__") == f"diffrgen.{name}"
        assert callable(module.main)
