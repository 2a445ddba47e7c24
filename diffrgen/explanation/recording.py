"""Records the inputs and outputs of modules during one pass, without changing them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import nn


class Call(NamedTuple):
    """One call of a module."""

    inputs: tuple[Any, ...]
    output: Any


@contextmanager
def recorded(*modules: nn.Module) -> Iterator[Sequence[list[Call]]]:
    """Give one list a module; while the block runs, every call of the module adds what it took and returned.

    Calls that other threads make of the same modules are left out, so that one network can explain for several at once.
    """
    mine, calls = threading.get_ident(), [list[Call]() for _ in modules]

    def record(into: list[Call], inputs: tuple[Any, ...], output: Any) -> None:
        if threading.get_ident() == mine:
            into.append(Call(inputs, output))

    with ExitStack() as stack:
        for module, into in zip(modules, calls, strict=True):
            hook = module.register_forward_hook(lambda _, inputs, output, into=into: record(into, inputs, output))
            stack.callback(hook.remove)
        yield calls
