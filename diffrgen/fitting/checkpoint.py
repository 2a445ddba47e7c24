"""The state of an interrupted fit in one file, written atomically and verified before use."""

from __future__ import annotations

import hashlib
import io
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from diffrgen.staging import replace_file

SECONDS_BETWEEN = 600.0
DIGEST_LENGTH = 64


class FitStopped(Exception):
    """The fit of `what` was stopped after `step` of `steps`, and has saved its state."""

    def __init__(self, step: int, steps: int, what: str) -> None:
        super().__init__(f"the {what} is fitted to step {step} of {steps}")
        self.step, self.steps = step, steps


@dataclass
class FitCheckpoint:
    """The file of a fit's state, saved every ten minutes and when `stop()` returns True after a step; removed at the end.

    The file holds the SHA-256 of the rest as 64 hexadecimal digits, then tensors and numbers as torch saves them.
    """

    path: Path
    stop: Callable[[], bool] = lambda: False
    what: str = "retriever"
    saved: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Return whether ten minutes have passed since the last one."""
        return time.monotonic() - self.saved >= SECONDS_BETWEEN

    def save(self, state: dict[str, Any]) -> None:
        """Write the state; interrupted, it leaves the earlier one."""
        stream = io.BytesIO()
        torch.save(state, stream)
        content = stream.getvalue()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.path, hashlib.sha256(content).hexdigest().encode() + content)
        self.saved = time.monotonic()

    def load(self, key: str) -> dict[str, Any] | None:
        """Return the state saved for a fit of the same `key`; None, with a warning where one is there, if none can be used."""
        if not self.path.is_file():
            return None
        content = self.path.read_bytes()
        digest, content = content[:DIGEST_LENGTH], content[DIGEST_LENGTH:]
        reason = "it is damaged"
        if digest == hashlib.sha256(content).hexdigest().encode():
            try:
                # Tensors and numbers only: nothing that is pickled besides is loaded.
                state = torch.load(io.BytesIO(content), weights_only=True)
            except (UnpicklingError, RuntimeError, EOFError) as error:
                reason = str(error)
            else:
                if isinstance(state, dict) and state.get("key") == key:
                    return state
                reason = "it is of another fit"
        warnings.warn(f"{self.path}: not used, so the {self.what} is fitted from the start: {reason}", stacklevel=2)
        return None

    def discard(self) -> None:
        """Remove the file of a fit that is done."""
        self.path.unlink(missing_ok=True)


def random_state() -> list[torch.Tensor]:
    """Return the state of the generator of this process and, where there are GPUs, of theirs."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def set_random_state(state: list[torch.Tensor]) -> None:
    """Go on from what `random_state` returned; generators of GPUs where there are as many."""
    processor, *cuda = state
    torch.set_rng_state(processor)
    if cuda and torch.cuda.device_count() == len(cuda):
        torch.cuda.set_rng_state_all(cuda)
