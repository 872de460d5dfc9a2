"""Request and events of `restore`: plain values."""

from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from restormer_cli.commands.restore.jobs import Job
from restormer_cli.errors import NoRoom, RestormerError
from restormer_cli.images.formats.table import WRITABLE
from restormer_cli.images.io import Picture

AUTO = "auto"
"""As a task: the one that a picture needs."""


@dataclass(frozen=True)
class Request:
    """Request: input, output and options."""

    source: Path
    target: Path
    more: tuple[Path, ...] = ()
    """Inputs beside `source`."""
    weights: str | None = None
    """A weights file or a bundled name; None takes the bundled checkpoint of `task`."""
    task: str | None = None
    right: str | None = None
    """For dual-pixel weights: the folder of the second views, or LEFT=RIGHT in their names."""
    tile: int | None = None
    overlap: int = 32
    window: str | None = None
    """TLC's window in pixels, or "auto"."""
    memory: str | None = None
    compiled: bool = False
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    ensemble: bool = False
    strength: float = 1.0
    luma: float = 1.0
    chroma: float = 1.0
    detail: float = 0.0
    grain: float = 0.0
    """How much of the change is kept, by what it is: engine/control.py; `strength` is of all of it."""
    mask: Path | None = None
    """White: restore, black: leave, gray: in part. A picture for all, or a folder with one of each name."""
    protect: str | None = None
    """"highlights": what was clipped stays as it was."""
    analyse: bool = False
    """Estimate what is wrong with each picture, and tell."""
    degrade: str | None = None
    """Make pictures worse by this spec instead of restoring them."""
    seed: int = 0
    extension: str = "same"
    suffix: str = ""
    quality: int = 95
    subsampling: str = "4:4:4"
    overwrite: bool = False
    skip_existing: bool = False
    fail_fast: bool = False
    dry_run: bool = False
    watch: bool = False
    """Stay, and restore what appears in the folder."""
    profile: str | None = None
    """Where flags came from."""
    strip: bool = False
    """Write nothing beside the pictures but what their colours mean."""
    sign: bool = False
    """Say in the results what made them."""
    keep_time: bool = False
    """Results get the times of their inputs."""
    salvage: bool = False
    """Restore what is there of a JPEG that ends too early."""
    pages: str = "first"
    """"all": of a TIFF all pages, where the result is a TIFF."""
    deinterlace: bool = False
    """Make whole frames of a video's interlaced ones, before they are restored."""
    compare: bool = False
    """Write before and after side by side too, beside each result."""

    @property
    def sources(self) -> tuple[Path, ...]:
        """All inputs."""
        return (self.source, *self.more)

    def takes_pages(self, job: Job) -> bool:
        """Whether all pages of this file are asked for, and its result can hold them."""
        return self.pages == "all" and WRITABLE.get(job.target.suffix.lower()) == "tif" and job.right is None


@dataclass(frozen=True)
class Diagnosis:
    """Defects of a picture, from its pixels and its camera's settings, and the task against them."""

    findings: dict[str, Any]
    """analysis.findings.Findings as plain values."""
    words: str
    """The same in a phrase."""
    task: str | None
    """The bundled task that would cure it; None: it needs none."""
    reason: str
    """Why, in one line."""
    followed: bool = False
    """`--task auto`: it was done so."""

    @property
    def left_alone(self) -> bool:
        """The picture was to be judged, and needs nothing."""
        return self.followed and self.task is None


@dataclass(frozen=True)
class Started:
    """Run, before the first picture."""

    pictures: int
    """Videos are counted among them."""
    weights: Path | None
    """None where pictures are degraded instead."""
    task: str | None
    assumed: bool
    """Neither weights nor task were named, so this task was taken."""
    device: str
    precision: str
    tile: int | None
    notes: tuple[str, ...] = ()
    threads: int = 1
    degradation: str | None = None
    left_out: str | None = None
    """Files of the folder that are not restored with it, with what to do."""
    watching: bool = False
    videos: int = 0
    """Those of `pictures` that are videos, which come last."""
    automatic: bool = False
    """Each picture gets the task that it needs, or none; `weights` and `task` are None."""
    reason: str | None = None
    """Why `--task auto` gives a whole film this task."""
    bytes_by_format: dict[str, int] = field(default_factory=dict)
    """Length of all input files by extension, for an estimate of the time left."""


@dataclass(frozen=True)
class Page:
    """One of several pages of a file."""

    width: int
    height: int
    plan: str | None = None
    predicted: int | None = None
    """As Planned's."""
    change: float | None = None
    """As Restored's."""
    diagnosis: Diagnosis | None = None


@dataclass(frozen=True)
class Planned:
    """One picture of a dry run: what would be done, or why it would fail."""

    source: Path
    target: Path
    width: int = 0
    height: int = 0
    plan: str | None = None
    """How the network would run, in words."""
    predicted: int | None = None
    """Bytes that the process would need at the most, where the planner says so."""
    skipped: bool = False
    """Whether the result exists already and would be left alone."""
    diagnosis: Diagnosis | None = None
    error: str | None = None
    pages: tuple[Page, ...] = ()
    """All pages where there are several; size, plan and diagnosis above are then the first's, `predicted` the most."""


@dataclass(frozen=True)
class FrameDone:
    """Frames of a video that are done, of how many (None: the file does not tell), and the seconds so far."""

    frames: int
    total: int | None
    seconds: float
    new: int = 0
    """Those of this run, which may have gone on with an earlier one's."""
    kept: int = 0
    """Those that a later run would find."""


@dataclass(frozen=True)
class Restored:
    """One picture, done, skipped (`seconds` is None) or failed (`error` says why)."""

    source: Path
    target: Path
    width: int = 0
    height: int = 0
    seconds: float | None = None
    """Seconds of reading, computing and writing together; they overlap with those of other pictures."""
    notes: tuple[str, ...] = ()
    error: str | None = None
    read_seconds: float = 0.0
    compute_seconds: float = 0.0
    write_seconds: float = 0.0
    channels: int = 0
    bits: int = 0
    plan: str | None = None
    """How the network ran, in words."""
    peak_bytes: int | None = None
    """Bytes that the process (on a GPU: its tensors) needed at the most while computing it."""
    change: float | None = None
    """Mean absolute change by the network, in units of 1/255."""
    input_bytes: int = 0
    """Bytes of the input file."""
    error_code: int = 0
    """The exit code that the error has on its own."""
    no_room: bool = False
    """Nothing more can be written there."""
    frames: int = 1
    """More than one of a video."""
    diagnosis: Diagnosis | None = None
    """Where it was asked for."""
    pages: tuple[Page, ...] = ()
    """All pages where there are several; size, plan and diagnosis above are then the first's, `change` the mean."""

    @property
    def pixels(self) -> int:
        """Of all frames or pages."""
        if self.pages:
            return sum(page.width * page.height for page in self.pages)
        return self.width * self.height * self.frames

    def to_json(self) -> dict[str, Any]:
        """For another process; `from_json` reads it back."""
        return {**asdict(self), "source": str(self.source), "target": str(self.target)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Restored":
        """The inverse of `to_json`."""
        paths = {"source": Path(values["source"]), "target": Path(values["target"])}

        def diagnosed(found: dict[str, Any] | None) -> Diagnosis | None:
            return None if found is None else Diagnosis(**found)

        pages = tuple(Page(**{**page, "diagnosis": diagnosed(page["diagnosis"])}) for page in values["pages"])
        notes, diagnosis = tuple(values["notes"]), diagnosed(values["diagnosis"])
        return cls(**{**values, **paths, "notes": notes, "diagnosis": diagnosis, "pages": pages})


@dataclass(eq=False)
class PictureTask:
    """A picture on its way through reading, computing and writing."""

    job: Job
    picture: Picture | None = None
    pages: list["PictureTask"] = field(default_factory=list)
    """The pages behind this one, which go into the same file."""
    behind: tuple[Page, ...] = ()
    """What became of them, once they are computed."""
    right: Picture | None = None
    pixels: np.ndarray | None = None
    weight: np.ndarray | None = None
    """How far each pixel is restored, float32 (h, w) in [0, 1]; None: all of them wholly."""
    diagnosis: Diagnosis | None = None
    skipped: bool = False
    elsewhere: bool = False
    """Another run is restoring it now."""
    claim: ExitStack = field(default_factory=ExitStack)
    """Ours on the target while this task is under way."""
    error: RestormerError | None = None
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    shape: tuple[int, int, int] = (0, 0, 0)
    bits: int = 0
    input_bytes: int = 0
    plan: str | None = None
    peak_bytes: int | None = None
    change: float | None = None
    made: str = "nothing changed"
    """By what: a task, weights or a degradation."""

    def bytes(self) -> int:
        arrays = [self.pixels, self.weight, *(view.pixels for view in (self.picture, self.right) if view is not None)]
        return sum(array.nbytes for array in arrays if array is not None) + sum(page.bytes() for page in self.pages)

    def page(self) -> Page:
        """This picture as one page of several."""
        height, width, _ = self.shape
        return Page(width, height, self.plan, self.peak_bytes, self.change, self.diagnosis)

    def event(self) -> Restored:
        height, width, channels = self.shape
        pages = (self.page(), *self.behind) if self.behind else ()
        change, peak_bytes = self.change, self.peak_bytes
        if pages:
            changed = [page for page in pages if page.change is not None]
            area = sum(page.width * page.height for page in changed)
            total = sum((page.change or 0) * page.width * page.height for page in changed)
            change = total / area if changed else None
            peak_bytes = max((page.predicted for page in pages if page.predicted is not None), default=None)
        spent: dict[str, Any] = {
            f"{stage}_seconds": self.seconds.get(stage, 0.0) for stage in ("read", "compute", "write")
        }
        return Restored(
            source=self.job.source,
            target=self.job.target,
            width=width,
            height=height,
            seconds=None if self.skipped or self.error else sum(spent.values()),
            notes=self.notes,
            error=None if self.error is None else str(self.error),
            **spent,
            channels=channels,
            bits=self.bits,
            plan=self.plan,
            peak_bytes=peak_bytes,
            change=change,
            input_bytes=self.input_bytes,
            error_code=0 if self.error is None else self.error.exit_code,
            no_room=isinstance(self.error, NoRoom),
            diagnosis=self.diagnosis,
            pages=pages,
        )
