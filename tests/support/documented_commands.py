"""The commands that a page of the documentation shows, and whether this checkout's commands would take them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import tyro

from diffrgen.calibrate import parse_options as parse_calibrate_options
from diffrgen.evaluation.dump import ScoreOptions
from diffrgen.evaluation.options import EvaluateOptions
from diffrgen.experiments.__main__ import parse_options as parse_experiment_options
from diffrgen.generate import GenerateOptions
from diffrgen.index import parse_options as parse_index_options
from diffrgen.mechanisms.__main__ import parse_options as parse_mechanism_options
from diffrgen.prepare import parse_options as parse_prepare_options
from diffrgen.reinforce import parse_options as parse_reinforce_options
from diffrgen.rexrank import parse_options as parse_rexrank_options
from diffrgen.score import parse_options as parse_score_options
from diffrgen.share import parse_options as parse_share_options
from diffrgen.train import parse_options as parse_train_options
from diffrgen.training.options import TrainOptions
from diffrgen.training.presets import preset_options

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"(?:python|torchrun(?: -\S+(?: \d+)?)*) -m diffrgen\.([\w.]+)(.*)", re.DOTALL)


@dataclass(frozen=True)
class ShownCommand:
    """`python -m diffrgen.<module> <arguments>`, or the same behind torchrun."""

    module: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join([self.module, *self.arguments])

    def parse(self) -> object:
        """Return the options; SystemExit where the command would not take them."""
        return (PARSERS | SCRIPTS)[self.module](list(self.arguments))


def bash_blocks(page: Path) -> list[str]:
    """Return the bash blocks of a Markdown page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def shown_commands(page: Path) -> list[ShownCommand]:
    """Return this project's commands in the bash blocks of `page`, in order, comments left out."""
    lines = [line for block in bash_blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for part in (part.strip() for line in lines for part in line.split("&&")):
        words = shlex.split(part, comments=True)
        command = COMMAND.fullmatch(shlex.join(words))
        if command:
            found.append(ShownCommand(command[1], tuple(shlex.split(command[2]))))
    return found


def _evaluate(arguments: list[str]) -> object:
    if "--predictions" in arguments:
        return tyro.cli(ScoreOptions, args=arguments)  # the option --predictions, as `diffrgen.evaluate` forwards it
    return tyro.cli(EvaluateOptions, args=arguments, config=(tyro.conf.PositionalRequiredArgs,))


def _serve(arguments: list[str]) -> object:
    from diffrgen.serving import ServeOptions

    return tyro.cli(ServeOptions, args=arguments)


def _train(arguments: list[str]) -> object:
    if "--init" in arguments:  # whose run is not here to take options from
        return tyro.cli(TrainOptions, args=arguments, default=preset_options("tiny"))
    return parse_train_options(arguments)


def _poll(arguments: list[str]) -> object:
    from diffrgen.clinical.poll import PollOptions

    return tyro.cli(PollOptions, args=arguments)


PARSERS = {
    "train": _train,
    "calibrate": parse_calibrate_options,
    "evaluate": _evaluate,
    "score": parse_score_options,
    "rexrank": parse_rexrank_options,
    "reinforce": parse_reinforce_options,
    "generate": lambda arguments: tyro.cli(GenerateOptions, args=arguments),
    "prepare": parse_prepare_options,
    "share": parse_share_options,
    "index": parse_index_options,
    "serve": _serve,
    "experiments": parse_experiment_options,
    "mechanisms": parse_mechanism_options,
}
# What is no command of the package, and shown on a page of its own.
SCRIPTS = {"clinical.poll": _poll}
