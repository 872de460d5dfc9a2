"""The place of this process among those that `accelerate launch` or `torchrun` started; one alone is the first."""

import os


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
