"""The place of this process among those that `accelerate launch` or `torchrun` started; one alone is the first."""

import os
import socket
import time

from restormer_cli.errors import UserError


def rank() -> int:
    """Its number among all processes, on however many machines."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """How many there are, on however many machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether it is the one that tells and writes what is told and written once."""
    return rank() == 0


def is_launched() -> bool:
    """Whether a launcher started it."""
    return "LOCAL_RANK" in os.environ


def local_place() -> tuple[int, int]:
    """(rank, processes) on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


JOINING = 600.0
"""Seconds that a process waits for the first one to appear."""


def check() -> None:
    """Raises UserError where a launcher's variables are only partly there: to go on would be to wait for nobody."""
    needed = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if name not in os.environ]
    if processes() > 1 and missing:
        raise UserError(
            f"WORLD_SIZE is {processes()}, but {', '.join(missing)} not set: start processes by torchrun or "
            "accelerate launch, or unset WORLD_SIZE"
        )


def wait_for_first(seconds: float = JOINING) -> None:
    """Wait for the first process, in short steps that signals end. Raises UserError after so many seconds."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    end = time.monotonic() + seconds
    while not is_first():
        try:
            socket.create_connection((host, port), timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"the first process cannot be reached at {host}:{port} ({error.strerror or error}) after "
                    f"{seconds / 60:.0f} minutes: start it, or correct MASTER_ADDR and MASTER_PORT"
                ) from None
        time.sleep(0.5)
