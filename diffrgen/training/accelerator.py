"""The accelerator of a training: devices, processes and precision."""

from __future__ import annotations

from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, InitProcessGroupKwargs, ProjectConfiguration, parse_flag_from_env

from diffrgen.errors import DataError
from diffrgen.training.options import TrainOptions
from diffrgen.training.tracking import FOLDER, check_trackers

PATIENCE = timedelta(days=1)


def make_accelerator(options: TrainOptions) -> Accelerator:
    """Return the accelerator of these options; DataError for a precision that the device lacks, for FSDP, and for a tracker
    that is not installed.
    """
    if options.precision == "fp16" and not torch.cuda.is_available():
        raise DataError("precision fp16 needs a GPU and none is visible; use --precision bf16 or fp32 on a CPU")
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        raise DataError(
            "accelerate is configured to shard the weights (FSDP), but a run is not written from shards; "
            "start every process with a complete copy: torchrun --nproc-per-node N -m diffrgen.train"
        )
    check_trackers(options.track)
    return Accelerator(
        log_with=list(options.track) or None,
        project_config=ProjectConfiguration(logging_dir=str(options.output / FOLDER)) if options.track else None,
        # Without a GPU accelerate ignores other processes unless the CPU is requested.
        cpu=not torch.accelerator.is_available(),
        mixed_precision={"fp32": "no"}.get(options.precision, options.precision),
        dynamo_backend="inductor" if options.compile else None,
        step_scheduler_with_optimizer=False,
        dataloader_config=DataLoaderConfiguration(non_blocking=True),
        # The other processes wait while the first one fits the retriever; the default timeout is ten minutes.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
