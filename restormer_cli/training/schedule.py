"""Patch, batch and learning rate as pure functions of the iteration (section 4; counted from 1)."""

import math
from dataclasses import dataclass

from restormer_cli.errors import UserError
from restormer_cli.recipe import Recipe, Stage


@dataclass(frozen=True)
class Split:
    """How a global batch is shared out over devices, and how each takes its share bit by bit."""

    shares: tuple[tuple[range, ...], ...]
    """Device by device, the rows of the global batch in the order of their micro-batches."""

    @property
    def accumulation(self) -> int:
        """Micro-batches per step (of the device that has most)."""
        return max(len(share) for share in self.shares)

    @property
    def even(self) -> bool:
        """Whether all devices have equally many rows."""
        return len({share[-1].stop - share[0].start for share in self.shares}) == 1

    @property
    def in_step(self) -> bool:
        """Whether all devices have equally many micro-batches."""
        return len({len(share) for share in self.shares}) == 1

    def __str__(self) -> str:
        sizes = sorted({share[-1].stop - share[0].start for share in self.shares}, reverse=True)
        micro = max(len(rows) for share in self.shares for rows in share)
        each = f"{sizes[0]}" if self.accumulation == 1 else f"{micro}"
        return f"{each if self.even else f'{each} or fewer'} × {len(self.shares)} × {self.accumulation}"


def split_batch(batch: int, devices: int, micro_batch: int | None, *, uneven: bool = False) -> Split:
    """A global batch over `devices`, at most `micro_batch` rows at once; the global batch never changes.

    Raises UserError where the shares would differ, unless `uneven`, and where a device would have no row.
    """
    if batch < devices:
        raise UserError(f"a batch of {batch} on {devices} devices leaves some without a picture: use at most {batch}")
    if batch % devices and not uneven:
        below, above = batch // devices * devices, -(-batch // devices) * devices
        raise UserError(
            f"a batch of {batch} does not split evenly over {devices} devices: make it {below} or {above}, "
            "or let some devices wait for others with --set run.uneven=true"
        )
    return Split(
        tuple(
            tuple(_cut(share, -(-len(share) // (micro_batch or len(share))))) for share in _cut(range(batch), devices)
        )
    )


def _cut(rows: range, parts: int) -> list[range]:
    """Consecutive ranges whose lengths differ by at most one, long ones first."""
    short, longer = divmod(len(rows), parts)
    ends = [rows.start + (part + 1) * short + min(part + 1, longer) for part in range(parts)]
    return [range(start, end) for start, end in zip([rows.start, *ends], ends, strict=False)]


def stage_at(iteration: int, stages: tuple[Stage, ...]) -> tuple[int, Stage]:
    """The index and row in force at an iteration: the first stage whose last iteration is not before it.

    Past the end the last stage stays.
    """
    last = 0
    for index, stage in enumerate(stages):
        last += stage.iterations
        if iteration <= last:
            return index, stage
    return len(stages) - 1, stages[-1]


def cosine_split(recipe: Recipe) -> tuple[int, int]:
    """Iterations at the constant rate, and along the cosine; by default 92 : 208, as in the paper."""
    total, schedule = recipe.iterations, recipe.schedule
    if schedule.constant is None:
        constant = round(total * 92 / 300) if schedule.cosine is None else max(0, total - schedule.cosine)
    else:
        constant = schedule.constant
    return constant, schedule.cosine if schedule.cosine is not None else max(0, total - constant)


def learning_rate(iteration: int, recipe: Recipe) -> float:
    """The rate of an iteration is the schedule's value at iteration - 1; past the end it stays at lr_min."""
    constant, cosine = cosine_split(recipe)
    high, low = recipe.optimizer.lr, recipe.schedule.lr_min
    done = iteration - 1 - constant
    if done <= 0:
        return high
    if done >= cosine:
        return low
    return low + (high - low) * (1 + math.cos(math.pi * done / cosine)) / 2
