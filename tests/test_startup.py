"""What a command imports before it knows what to do: nothing that takes seconds."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import diffrgen
from diffrgen.__main__ import COMMANDS
from diffrgen.lazy import on_first_use

# NumPy and tqdm take a tenth of a second; all other libraries that are imported serve the options themselves.
OPTIONS = {"tyro", "docstring_parser", "typeguard", "typing_extensions", "shtab", "rich", "annotated_types"}
ALLOWED = {"diffrgen", "numpy", "tqdm", *OPTIONS}
ROOT = Path(diffrgen.__file__).parent
LAZY = sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if "on_first_use" in path.read_text())


def libraries_after(code: str, shown: str = "") -> set[str]:
    """The top-level packages outside of the standard library that are imported once `code` has run; it prints `shown`."""
    ask = f"""
import json, sys
before = set(sys.modules)
try:
    {code}
except SystemExit as end:
    assert end.code in (0, None), end.code
names = {{name.split(".")[0] for name in set(sys.modules) - before}}
print("\\n" + json.dumps(sorted(names - set(sys.stdlib_module_names))))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    return {name for name in json.loads(done.stdout.splitlines()[-1]) if not name.startswith("_")}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_what_the_options_need_and_nothing_else(command):
    """Not torch, not transformers, no image, page or hub library. The help names the command that it is of."""
    main = ".__main__" if (ROOT / command).is_dir() else ""
    run = f"import diffrgen.{command}{main} as command; sys.argv[1:] = ['--help']; command.main()"
    assert libraries_after(run, f"usage: python -m diffrgen.{command} ") - ALLOWED == set()


def test_importing_the_command_that_generates_imports_no_network():
    assert libraries_after("import diffrgen, diffrgen.generate, diffrgen.serving.options") - ALLOWED == set()


@pytest.mark.parametrize("room", LAZY)
def test_lazy_packages_give_each_name_that_they_list(room):
    package = importlib.import_module(f"diffrgen.{room}")
    for name in package.__all__:
        assert getattr(package, name) is not None
    block = next(node for node in ast.parse(Path(package.__file__).read_text()).body if isinstance(node, ast.If))
    listed = {alias.name for node in block.body for alias in node.names}
    assert listed <= set(package.__all__)
    with pytest.raises(AttributeError, match=rf"module 'diffrgen.{room}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_several_packages_are_lazy():
    assert {"images", "model", "retrieval", "text"} <= set(LAZY)


def test_a_name_that_is_a_submodule_cannot_be_lazy(tmp_path):
    (tmp_path / "reader.py").touch()
    init = tmp_path / "__init__.py"
    init.write_text("if TYPE_CHECKING:\n    from package.other import reader\n")
    with pytest.raises(ValueError, match="reader is a name and a submodule"):
        on_first_use("package", str(init))
