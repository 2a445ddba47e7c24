"""`diffrgen COMMAND`, or `python -m diffrgen COMMAND`: every command under one name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType, ModuleType

from diffrgen.command import run_command

# Modules of this package with a `main(arguments)`, in the order in which a user meets them.
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "train": "fit the retriever, train the network, evaluate it",
        "evaluate": "generate and score the reports of a split",
        "score": "score the reports of any system from a file",
        "rexrank": "generate a report for every study of a ReXrank file",
        "calibrate": "calibrate the sentence probabilities of a run",
        "generate": "generate and explain reports of radiographs",
        "serve": "serve a run as a web page",
        "prepare": "create an annotation file from the archives of a data set",
        "experiments": "run a study of the paper",
        "mechanisms": "measure which inputs a trained network uses",
        "phantom": "generate the phantom's radiographs and reports",
        "reinforce": "fine-tune a run on scores of its sampled reports",
        "share": "upload a run to the Hugging Face hub",
        "index": "build the index of a run shared without its reports",
    }
)


def usage() -> str:
    """Return the text of `--help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(["usage: diffrgen COMMAND [OPTIONS]", "", *lines, "", "diffrgen COMMAND --help lists the options."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; 2 with the list of commands where none of them is named."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name in {"-h", "--help"}:
        print(usage())
        return 0
    if name == "--version":
        from diffrgen.release import __version__

        print(f"diffrgen {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"error: expected a command, got {name or 'none'}\n{usage()}", file=sys.stderr)
        return 2
    return run_command(lambda: module_of(name).main(rest))


def module_of(name: str) -> ModuleType:
    """Return the module of the command `name`, which has `main(arguments)`."""
    module = import_module(f"diffrgen.{name}")
    return import_module(f"diffrgen.{name}.__main__") if hasattr(module, "__path__") else module


if __name__ == "__main__":
    sys.exit(main())
