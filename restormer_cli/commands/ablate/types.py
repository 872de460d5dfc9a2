"""Request, plan and result of an ablation: plain values."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restormer_cli.commands.ablate.arms import Figure

if TYPE_CHECKING:  # importing them would load torch and numpy, which --help does without
    from restormer_cli.hardware import Machine
    from restormer_cli.model.cost import Operations
    from restormer_cli.recipe import Recipe


@dataclass(frozen=True)
class Request:
    """Which arms, as typed, and how they are compared."""

    words: tuple[str, ...]
    options: tuple[str, ...] = ()
    """The verb's own flags, which a mistyped one may have meant."""
    scale: str = "compact"
    seeds: int = 2
    iterations: int | None = None
    minutes: int | None = None
    """Shorten all trainings so that together they take so long; 0: never; None: the scale's own."""
    equal: str = "iterations"
    any_budget: bool = False
    data: Path | None = None
    validate: Path | None = None
    crop: int | None = None
    """Side of the centre crops that are scored; 0: whole pictures."""
    overrides: tuple[str, ...] = ()
    seed: int | None = None
    precision: str | None = None
    device: str = "auto"
    out: Path | None = None
    resume: bool = False


@dataclass(frozen=True)
class Arm:
    """One side of the comparison."""

    name: str
    recipe: "Recipe"
    """As its first seed trains."""
    window: int | None
    """Side of the windows at test time; None: global."""
    parameters: int
    work: "Operations"
    """For one picture of 256²."""
    published: Figure | None
    trained_as: str
    """The arm whose training it shares: its own name, unless they only differ at test time."""


@dataclass(frozen=True)
class Started:
    """Comparison, before the first training."""

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    """The recipes' seed of each repetition."""
    iterations: int
    scale: str
    equal: str
    minutes: int | None
    """All trainings together are shortened to so many; None: they are not."""
    folder: Path
    degradation: str | None
    pictures: int
    """How many are scored."""
    crop: int
    data: str
    device: str
    machine: "Machine"
    notes: tuple[str, ...] = ()

    @property
    def trainings(self) -> tuple[Arm, ...]:
        """The arms that are trained."""
        return tuple(arm for arm in self.arms if arm.trained_as == arm.name)


@dataclass(frozen=True)
class Phase:
    """Current activity, in words."""

    text: str


@dataclass(frozen=True)
class Budget:
    """Iterations of each training, from timing."""

    first: int
    """Iterations of the first arm; of all, where iterations are equal."""
    iterations: tuple[tuple[str, int], ...]
    seconds: tuple[tuple[str, float], ...]
    """Seconds of one iteration."""
    whole: float
    """Seconds of all trainings, had nothing been shortened."""


@dataclass(frozen=True)
class Step:
    """An arm has learnt a little."""

    arm: str
    repetition: int
    iteration: int
    of: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class Notice:
    """Something about one training that the user should know, in words."""

    arm: str
    repetition: int
    text: str


@dataclass(frozen=True)
class InferenceCost:
    """Cost of running an arm's network: seconds per megapixel, and the most memory of its process in bytes."""

    arm: str
    seconds: float | None
    peak: int | None
    side: int
    error: str | None = None


@dataclass(frozen=True)
class Scored:
    """One arm after one training: PSNR of every picture, in dB."""

    arm: str
    repetition: int
    iterations: int
    seconds: float
    """Seconds of its training steps."""
    curve: tuple[tuple[int, float], ...]
    """(iteration, mean PSNR in validation)."""
    pictures: tuple[tuple[str, float], ...]
    inputs: tuple[float, ...]
    """PSNR of the degraded pictures themselves."""
    weights: Path

    @property
    def psnr(self) -> float:
        """Mean over the pictures."""
        return sum(psnr for _, psnr in self.pictures) / len(self.pictures)


@dataclass(frozen=True)
class Estimate:
    """A mean with what is known of its error; the interval holds with `confidence`, or is None after one seed."""

    mean: float
    error: float | None
    """Standard error."""
    low: float | None
    high: float | None
    confidence: float

    @property
    def decided(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Difference:
    """How much better (in dB) the first arm is than another, paired by seed and picture."""

    first: str
    other: str
    estimate: Estimate


@dataclass(frozen=True)
class Finished:
    """The answer, from the repetitions that are complete."""

    started: Started
    prices: tuple[InferenceCost, ...]
    scored: tuple[Scored, ...]
    means: tuple[tuple[str, Estimate], ...]
    differences: tuple[Difference, ...]
    verdict: str
    trust: str

    @property
    def repetitions(self) -> int:
        """How many seeds are complete."""
        return len({row.repetition for row in self.scored})

    def of(self, arm: str) -> tuple[Scored, ...]:
        """An arm's rows, by seed."""
        return tuple(row for row in self.scored if row.arm == arm)
