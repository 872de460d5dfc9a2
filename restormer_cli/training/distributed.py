"""Devices, processes and machines, by way of Accelerate."""

import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import accelerate
import numpy
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    broadcast_object_list,
)

from restormer_cli import __version__, launcher
from restormer_cli.errors import RestormerError, UserError
from restormer_cli.hardware import choose_device, limit_threads
from restormer_cli.training.schedule import Split

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""For collectives: the first comes after data are read and hashed and the run is opened; NCCL's limit is 10 minutes."""
TORCHRUN = "torchrun --nproc-per-node N -m restormer_cli …"


def make_accelerator(device: str, track: str | None, folder: Path, *, one_pass: bool = False) -> Accelerator:
    """One process on `device` (`auto`, `cpu`, `cuda:1` …), or this process of those that a launcher started.

    Precision is ours, not Accelerate's: that one is fixed for the life of the process, and runs may follow runs.
    `one_pass`: every step is one backward pass over all parameters, which spares the exchange of gradients some work.
    Raises UserError for a device of one's own under a launcher, and for a launcher that starts fewer than asked.
    """
    launched = launcher.is_launched()
    if launched and device not in ("auto", "cpu"):
        raise UserError(f"--device {device}: under a launcher every process gets its own; leave it out")
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in os.environ and not launched:
        # It would train alone, with a fraction of what was asked for, and say nothing.
        raise UserError(f"accelerate launch --cpu starts one process only: for more, use {TORCHRUN}")
    launcher.check()
    if launched and launcher.processes() > 1:
        launcher.wait_for_first()
    before = os.environ.get("ACCELERATE_TORCH_DEVICE")
    if device not in ("auto", "cpu"):
        os.environ["ACCELERATE_TORCH_DEVICE"] = device  # Accelerate's only way to choose among several
    try:
        chosen = choose_device(device)
        on_cpu = chosen.type == "cpu"
        if chosen.type == "cuda" and chosen.index is not None:
            torch.cuda.set_device(chosen)  # Triton's kernels go to the current device, wherever their tensors are
        patience = InitProcessGroupKwargs(timeout=PATIENCE)
        limit_threads(launcher.local_place()[1])
        # A static graph with gradients that add up first is an error in PyTorch's DDP.
        exchange = DistributedDataParallelKwargs(static_graph=one_pass)
        accelerator = Accelerator(
            cpu=on_cpu, mixed_precision="no", log_with=track, project_dir=folder, kwargs_handlers=[patience, exchange]
        )
    finally:
        if before is None:
            os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
    if accelerator.num_processes != launcher.processes():
        raise UserError(
            f"{os.environ['WORLD_SIZE']} processes were started, but Accelerate sees {accelerator.num_processes}: "
            f"try {TORCHRUN}"
        )
    return accelerator


def check_sharded(accelerator: Accelerator, splits: Sequence[Split]) -> None:
    """Raises UserError where FSDP's processes would wait for one another for ever: each takes part in every pass."""
    if accelerator.distributed_type == DistributedType.FSDP and not all(split.in_step for split in splits):
        raise UserError(
            "run.uneven: under FSDP every process needs as many micro-batches as the others: "
            "choose stage batches and run.micro_batch that split evenly, or use plain processes"
        )


def is_unsharded_fsdp(accelerator: Accelerator) -> bool:
    """Whether FSDP was asked for but is not done: Accelerate (1.15) silently ignores it on CPUs."""
    asked = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    return asked and accelerator.distributed_type != DistributedType.FSDP


def on_main(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do it in the main process; every process gets the result, or the error."""
    box: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            box[0] = work()
        except RestormerError as error:
            if accelerator.num_processes == 1:
                raise
            box[1] = error
    if accelerator.num_processes > 1:
        broadcast_object_list(box)
    if box[1] is not None:
        raise box[1]
    return box[0]


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """Hardware of a run."""
    device = accelerator.device
    return {
        "restormer_cli": __version__,
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "command": sys.argv,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "processes": accelerator.num_processes,
        "distributed": accelerator.distributed_type.value,
        "threads": torch.get_num_threads(),
        "machine": platform.platform(),
        "host": platform.node(),
    }
