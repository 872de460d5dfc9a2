"""Request, events and result of `bench`: plain values."""

from dataclasses import dataclass
from pathlib import Path

from restormer_cli.benchmark.methods import Method
from restormer_cli.benchmark.networks import Network
from restormer_cli.benchmark.published import Published
from restormer_cli.benchmark.scoring import ImageScore, Source
from restormer_cli.benchmark.timing import Timing
from restormer_cli.hardware import Machine
from restormer_cli.metrics.protocols import Protocol
from restormer_cli.model.cost import Operations


@dataclass(frozen=True)
class Gates:
    """Thresholds for our own runs, every one of them."""

    min_psnr: float | None = None
    """Least mean PSNR, dB."""
    max_seconds: float | None = None
    """Most seconds per picture, the median at each size."""
    max_memory: str | None = None
    """Most memory of the process, such as 2GB."""


@dataclass(frozen=True)
class Request:
    """Request: network, sizes, pictures and methods."""

    network: str | None = None
    """Weights, a bundled checkpoint, `paper` or a recipe; None: `paper`, or `denoise` where quality is asked for."""
    sizes: tuple[str, ...] = ()
    """Such as 512 or 1024x1536 (height x width); none: 256 and 512, or no timing where quality is asked for."""
    precisions: tuple[str, ...] = ("fp32",)
    devices: tuple[str, ...] = ("auto",)
    against: tuple[str, ...] = ()
    tiles: tuple[int, ...] = ()
    """Sides of tiles to try, 0 for whole pictures; none: whole."""
    overlap: int = 32
    windows: tuple[int, ...] = ()
    """Windows of the test-time local converter to try, 0 for global attention; none: global."""
    memory: str | None = None
    runs: int = 3
    threads: int | None = None
    seed: int = 0
    clean: Path | None = None
    """Folder of clean pictures: quality is asked for."""
    degraded: Path | None = None
    right: Path | None = None
    """Second views, for dual-pixel weights."""
    degrade: str | None = None
    protocol: str | None = None
    """None: by the degradation or the weights' task."""
    dataset: str | None = None
    """Name of the data set, for the paper's figure; None: by the folders' names."""
    crop: int | None = None
    metrics: tuple[str, ...] = ()
    keep_views: bool = False
    """Whether pictures of the first method come along, for a page."""
    gates: Gates = Gates()


@dataclass(frozen=True)
class Task:
    """How quality will be judged."""

    source: Source
    protocol: Protocol
    dataset: str
    metrics: tuple[str, ...]
    keep_views: bool


@dataclass(frozen=True)
class Started:
    """Measurements to make, before the first one."""

    network: Network
    assumed: bool
    """No network was named, so this one was taken."""
    parameters: int
    operations: tuple[Operations, ...]
    """Per size."""
    machine: Machine
    methods: tuple[Method, ...]
    sizes: tuple[tuple[int, int], ...]
    runs: int
    notes: tuple[str, ...]
    task: Task | None = None


@dataclass(frozen=True)
class Scaling:
    """Seconds grow as pixels to this power, fitted over the sizes: 1 is linear."""

    method: Method
    exponent: float


@dataclass(frozen=True)
class Cost:
    """Everything that was measured about speed and memory."""

    cells: tuple[Timing, ...]
    scaling: tuple[Scaling, ...]


@dataclass(frozen=True)
class Statistic:
    """Mean and standard deviation (of the pictures, with n - 1) of a measure."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Summary:
    """A method (None: the degraded pictures) over a group of pictures (None: all of them)."""

    method: Method | None
    group: str | None
    pictures: int
    measures: tuple[tuple[str, Statistic], ...]
    """psnr, ssim, mae and what else was asked for, those that the protocol has."""
    seconds: float | None
    """Median per picture."""
    seconds_per_megapixel: float | None
    published: Published | None = None

    def mean(self, name: str) -> float | None:
        """The mean of a measure, where there is one."""
        return next((statistic.mean for key, statistic in self.measures if key == name), None)


@dataclass(frozen=True)
class Quality:
    """Everything that was measured about quality."""

    task: Task
    judged: tuple[ImageScore, ...]
    """Picture by picture."""
    summaries: tuple[Summary, ...]
    failed: int
    """Pictures that could not be judged."""


@dataclass(frozen=True)
class Gate:
    """A threshold and what was measured against it."""

    name: str
    limit: float
    worst: float
    whose: str

    @property
    def passed(self) -> bool:
        """Whether the worst of our own runs is good enough."""
        return self.worst >= self.limit if self.name == "min-psnr" else self.worst <= self.limit


@dataclass(frozen=True)
class Finished:
    """The whole result."""

    started: Started
    cost: Cost | None = None
    quality: Quality | None = None
    gates: tuple[Gate, ...] = ()
