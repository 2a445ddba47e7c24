"""Which options a resumed training may change: those of its execution, not those of the training itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from diffrgen.errors import DataError
from diffrgen.training.options import TrainOptions

# The first word of a group stands for all of its options. The data may have moved: their contents are compared by digests.
MAY_CHANGE = (
    *("output", "resume", "overwrite", "max_steps", "checkpoint_every", "workers", "retriever.workers", "retriever.seed"),
    *("fused_kernels", "precision", "compile", "activation_checkpointing", "data", "decoded", "generation"),
    *("labeler.chexbert", "labeler.chexbert_vocabulary", "optimiser.batch_size", "optimiser.accumulate"),
)
# Groups whose options have no prefix on the command line.
WITHOUT_PREFIX = ("data", "decoded", "labeler")


def check_resumable(stored: TrainOptions, asked: TrainOptions) -> None:
    """Raise DataError that names every option of `asked` that may not differ from `stored`, with both values."""
    found = [
        f"{option_flag(name)} (was {before}, got {now})"
        for name, before, now in option_differences(stored, asked)
        if not any(name == free or name.startswith(f"{free}.") for free in MAY_CHANGE)
    ]
    if (stored.precision == "fp16") != (asked.precision == "fp16"):
        # A checkpoint holds the scale of the loss in fp16 only.
        found.append(f"--precision (was {stored.precision}, got {asked.precision}; fp16 stays fp16)")
    if found:
        raise DataError(
            f"{asked.output}: options that change the training cannot be resumed: {', '.join(found)}. Leave them out to resume, "
            "or start another run with another --output"
        )


def option_differences(stored: object, asked: object, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield the dotted name of each option that differs, and both values."""
    for one in fields(stored):  # type: ignore[arg-type]
        before, now = getattr(stored, one.name), getattr(asked, one.name)
        if is_dataclass(before):
            yield from option_differences(before, now, f"{prefix}{one.name}.")
        elif before != now:
            yield f"{prefix}{one.name}", before, now


def option_flag(name: str) -> str:
    """Return the command-line option for the dotted name of a field of `TrainOptions`."""
    first, _, rest = name.partition(".")
    return "--" + (rest if first in WITHOUT_PREFIX else name).replace("_", "-")
