"""Operations on a picture: a network, or a degradation that makes test inputs."""

from collections.abc import Callable
from dataclasses import asdict, replace
from difflib import get_close_matches
from importlib import import_module
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from restormer_cli.commands.restore.jobs import STANDARD, Job
from restormer_cli.commands.restore.trial import derainer
from restormer_cli.commands.restore.types import AUTO, PictureTask, Request, Started
from restormer_cli.errors import RestormerError, UserError
from restormer_cli.hardware import EMULATED, Peak, about_device, give_back, limit_threads, multiplies_bf16
from restormer_cli.images.formats.raster import SUBSAMPLING
from restormer_cli.images.io import page_sizes, picture_size
from restormer_cli.launcher import local_place

if TYPE_CHECKING:  # they import torch, which a mistake in the request should not wait for
    from restormer_cli.engine.control import Control
    from restormer_cli.engine.progress import Progress
    from restormer_cli.engine.runtimes import Exported
    from restormer_cli.model.weights_file import Weights

DEFAULT_TASK = "denoise"
ROOM = 256 << 20
"""Bytes of decoded pictures that wait to be computed, and as many to be written."""
FLOATS = 4 * 3
"""Bytes per pixel of a decoded picture in colours."""
DIAGNOSIS, DIAGNOSIS_PIXEL = 12_000_000, 40
"""Bytes that a diagnosis needs at once, and as many more for each pixel (measured: 22 MB of 427 × 640, 88 MB of 1200 ×
1600)."""
HARDLY = 0.5
"""A mean change below this, in units of 1/255, is hardly one."""

PUBLISHED_WINDOW = 384
"""Where the weights say nothing of their training: what suits the published ones (TLC, Chu et al., ECCV 2022)."""


class Restoring:
    """The network, ready."""

    def __init__(self, request: Request, progress: "Progress | None" = None) -> None:
        import torch

        from restormer_cli.engine.restorer import Restorer

        if request.analyse:
            import_module("restormer_cli.analysis.findings")  # now: plans count what is held before the first picture
        if request.threads is not None:
            torch.set_num_threads(request.threads)
        else:
            limit_threads(local_place()[1])
        self.request, self.progress = request, progress
        self.threads = torch.get_num_threads()
        self.weights = _weights(request)
        if self.weights.config.dual_pixel and request.right is None:
            raise UserError(
                f"{self.weights.path}: dual-pixel weights take two views of a scene: "
                "name the second ones by --right DIR, or --right _L=_R when only names differ"
            )
        if request.right is not None and not self.weights.config.dual_pixel:
            raise UserError(f"--right: {self.weights.path.name} takes one picture; two views need dual-pixel weights")
        self.restorer = Restorer(
            self.weights,
            device=request.device,
            precision=request.precision,
            tile=request.tile,
            overlap=request.overlap,
            window=_window(request.window, self.weights),
            memory=request.memory,
            compile=request.compiled,
        )
        self.peak = Peak(str(self.restorer.device))
        # Beside a processor that computes on all its cores more threads would only be in the way.
        self.threads_beside = 1 if self.restorer.device.type == "cpu" else 4
        budget: int | None = getattr(self.restorer, "memory", None)
        self.room = ROOM if budget is None else min(ROOM, budget // 16)  # of what the whole process may take

    def started(self, jobs: list[Job]) -> Started:
        request, restorer = self.request, self.restorer
        if request.memory is not None:
            restorer.waiting = _waiting(request, jobs, self.room)
        notes = []
        if request.tile is not None and restorer.tile != request.tile:
            notes.append(f"--tile {request.tile} rounded up to {restorer.tile}, a multiple of 8")
        if about := about_device(request.device):
            notes.append(about)
        if request.precision == "bf16" and not multiplies_bf16(restorer.device):
            notes.append(f"{EMULATED}: --precision fp32 avoids it")
        return Started(
            pictures=len(jobs),
            weights=self.weights.path,
            task=self.weights.task,
            assumed=request.weights is None and request.task is None,
            device=str(restorer.device),
            precision=restorer.precision,
            tile=restorer.tile,
            notes=tuple(notes),
            threads=self.threads,
            videos=sum(job.video for job in jobs),
            bytes_by_format=_lengths(jobs, self.request.skip_existing),
        )

    def plan(self, height: int, width: int) -> tuple[str, int | None]:
        """How a picture of this size runs, in words, and the bytes that it is predicted to need."""
        plan = self.restorer.plan(height, width)
        return str(plan), plan.bytes

    def ran(self, height: int, width: int) -> str:
        """How the newest picture, of this size, ran in the end, in words."""
        return str(self.restorer.done or self.plan(height, width)[0])

    def compute(self, work: PictureTask) -> None:
        assert work.picture is not None
        pixels, said = work.picture.shown, []
        working = work.picture.working
        if self.request.memory is not None and self.restorer.device.type == "cpu":
            give_back()  # of reading and diagnosing
        self.peak.start()
        work.made = self.weights.task or self.weights.path.name
        right = work.right.shown if work.right is not None else None
        if not control_of(self.request).nothing:
            work.plan, _ = self.plan(*work.shape[:2])
        try:
            work.pixels, work.change = self.restored(pixels, right, work.weight, said.append, self.progress)
        except RestormerError as error:
            raise type(error)(f"{work.picture.path}: {error}") from None
        if working is not None:
            nothing = work.change is None
            own = work.picture.pixels
            work.pixels = own if nothing else working.carry(own, pixels, work.pixels)
        work.right, work.peak_bytes = None, self.peak.bytes()
        if work.change is not None:
            work.plan = self.ran(*work.shape[:2])
            if work.change < HARDLY:
                said.append(
                    f"the result hardly differs from the input (mean change {work.change:.2f}/255): "
                    "it is clean already, or these are weights for another task"
                )
        work.notes += tuple(said)

    def restored(
        self,
        pixels: np.ndarray,
        right: np.ndarray | None = None,
        weight: np.ndarray | None = None,
        notice: Callable[[str], None] | None = None,
        progress: "Progress | None" = None,
    ) -> tuple[np.ndarray, float | None]:
        """Picture after the request's knobs, and the mean change by the network alone, in 1/255.

        Pictures and frames alike: float32 (h, w, 1 or 3) -> the same shape. Where nothing is kept, the input itself
        and None.
        """
        from restormer_cli.engine.adapter import restore_pixels
        from restormer_cli.engine.control import apply_control, highlights

        control = control_of(self.request)
        strength = 0.0 if control.nothing else 1.0  # of nothing the network need not run
        answer = restore_pixels(
            self.restorer,
            pixels,
            right,
            strength=strength,
            ensemble=self.request.ensemble,
            notice=notice,
            progress=progress,
        )
        if control.nothing:
            return answer, None
        change = float(np.abs(answer - pixels).mean()) * 255
        if self.request.protect is not None:
            weight = np.ones(pixels.shape[:2], np.float32) if weight is None else weight
            weight[highlights(pixels)] = 0
        return apply_control(pixels, answer, control, weight), change


class Choosing:
    """`--task auto`: each picture's own network, loaded when the first picture needs it."""

    def __init__(self, request: Request, progress: "Progress | None" = None) -> None:
        check_automatic(request)
        self.request, self.progress = request, progress
        derainer()  # now: plans count what is held before the first picture
        self.stages = {DEFAULT_TASK: Restoring(replace(request, task=DEFAULT_TASK, analyse=True), progress)}
        self.threads_beside, self.room = self.stages[DEFAULT_TASK].threads_beside, self.stages[DEFAULT_TASK].room

    def started(self, jobs: list[Job]) -> Started:
        return replace(self.stages[DEFAULT_TASK].started(jobs), weights=None, task=None, assumed=False, automatic=True)

    def plan(self, height: int, width: int) -> tuple[str, int | None]:
        """As for any of the networks, which are of one size."""
        return self.stages[DEFAULT_TASK].plan(height, width)

    def compute(self, work: PictureTask) -> None:
        assert work.diagnosis is not None
        assert work.picture is not None
        task = work.diagnosis.task
        if task is None:
            work.pixels = work.picture.pixels
            return
        self.stage_of(task).compute(work)

    def stage_of(self, task: str) -> Restoring:
        """The network of a bundled task."""
        if task not in self.stages:
            self.stages[task] = Restoring(replace(self.request, task=task, analyse=True), self.progress)
            self.stages[task].restorer.share_room(self.stages[DEFAULT_TASK].restorer)
        return self.stages[task]


def check_automatic(request: Request) -> None:
    """Raises UserError for what `--task auto` does not go with."""
    if request.weights is not None or request.right is not None:
        raise UserError("--task auto: chooses among the bundled tasks: leave --weights and --right out")


def control_of(request: Request) -> "Control":
    """The knobs of a request."""
    from restormer_cli.engine.control import Control

    return Control(request.strength, request.luma, request.chroma, request.detail, request.grain)


def check_knobs(request: Request) -> None:
    """Raises UserError for values that are no shares or unknown, and for flags that contradict each other."""
    control = control_of(request)
    for knob, value in asdict(control).items():
        if not 0 <= value <= 1:  # not a number is neither
            meant = f"; {value:g} % is {value / 100:g}" if 2 <= value <= 100 else ""
            raise UserError(f"--{knob} {value:g}: is a share: give a number from 0 to 1{meant}")
    if request.pages not in ("first", "all"):
        raise UserError(f"--pages {request.pages}: unknown; write --pages first or --pages all")
    if request.pages == "all" and request.target == STANDARD:
        raise UserError("--pages all: standard output takes one page: name a .tif to write to, or leave --pages out")
    if request.subsampling not in SUBSAMPLING:
        raise UserError(f"--subsampling {request.subsampling}: unknown; write one of {', '.join(SUBSAMPLING)}")
    given = [f"--{knob}" for knob in ("detail", "grain") if getattr(control, knob) > 0]
    if given and control.luma == 0:
        raise UserError(f"{given[0]}: gives back what was taken from luminance, and --luma 0 takes nothing")
    if request.protect not in (None, "highlights"):
        raise UserError(f"--protect {request.protect}: unknown; write --protect highlights")
    limited = request.mask is not None or request.protect is not None
    if request.degrade is not None and (limited or control != type(control)()):
        raise UserError(
            "--degrade makes pictures worse: leave --luma, --chroma, --detail, --grain, --mask, --protect out"
        )


def _window(text: str | None, weights: "Weights | Exported") -> int | None:
    if text is None:
        return None
    if text == "auto":
        return weights.largest_patch or PUBLISHED_WINDOW
    if not text.isdecimal():
        raise UserError(f"--window {text}: give a number of pixels, or auto")
    return int(text)


class Degrading:
    """A degradation, which needs no network: the same seed and name give the same picture, in any company."""

    threads_beside = 1
    room = ROOM

    def __init__(self, request: Request) -> None:
        from restormer_cli.degradations.spec import parse_degradation

        assert request.degrade is not None
        if request.weights is not None or request.task is not None or request.right is not None:
            raise UserError("--degrade makes pictures worse, without a network: leave --task, --weights, --right out")
        self.request = request
        self.degradation = parse_degradation(request.degrade)

    def started(self, jobs: list[Job]) -> Started:
        return Started(
            pictures=len(jobs),
            weights=None,
            task=None,
            assumed=False,
            device="cpu",
            precision="fp32",
            tile=None,
            degradation=str(self.degradation),
            videos=sum(job.video for job in jobs),
            bytes_by_format=_lengths(jobs, self.request.skip_existing),
        )

    def plan(self, height: int, width: int) -> tuple[str, int | None]:
        """As for a network."""
        return str(self.degradation), None

    def ran(self, height: int, width: int) -> str:
        """As for a network."""
        return self.plan(height, width)[0]

    def compute(self, work: PictureTask) -> None:
        assert work.picture is not None
        picture, name = work.picture, work.job.source.name
        work.made = str(self.degradation)
        if picture.working is None:
            work.pixels = self.degradation.of_file(picture.pixels, name, self.request.seed)
        else:  # worse as it is seen, not by its numbers
            shown = picture.shown
            work.pixels = picture.working.carry(
                picture.pixels, shown, self.degradation.of_file(shown, name, self.request.seed)
            )


Stage = Restoring | Choosing | Degrading


def make_stage(request: Request, progress: "Progress | None" = None) -> Stage:
    """The one that the request asks for; `progress` hears the share that is done of each picture.

    Raises UserError for weights, devices, degradations not to be had.
    """
    check_knobs(request)
    if request.degrade is not None:
        return Degrading(request)
    return Choosing(request, progress) if request.task == AUTO else Restoring(request, progress)


def sizes_of(request: Request, job: Job) -> list[tuple[int, int]]:
    """(height, width) of a picture, or of all its pages where these are asked for. Raises UserError for a bad file."""
    return (page_sizes(job.source) if request.takes_pages(job) else []) or [picture_size(job.source)]


def _waiting(request: Request, jobs: list[Job], room: int) -> int:
    """The most bytes that other pictures of a run, and other pages of a picture, take while one is computed.

    They are read ahead, or being written; pages wait for each other with their results.
    """
    sizes, pages, pictures = [], 0, [job for job in jobs if not job.video]
    for job in pictures if len(pictures) > 1 or request.pages == "all" else ():
        try:
            areas = [prod(size) for size in sizes_of(request, job)]
        except UserError:  # reading it will say so
            continue
        sizes.append(sum(areas) * FLOATS)
        pages = max(pages, 2 * (sizes[-1] - min(areas) * FLOATS))
    if len(sizes) < 2:
        return pages
    # `room` and one more on either side; the one that is written is there as samples and as a file too.
    waiting = min(2 * room + 2.5 * max(sizes), 1.5 * (sum(sizes) - min(sizes)))
    diagnosed = DIAGNOSIS + DIAGNOSIS_PIXEL * max(sizes) / FLOATS if request.analyse else 0
    return int(waiting + diagnosed) + pages


def _lengths(jobs: list[Job], skip_existing: bool) -> dict[str, int]:
    """Bytes of the pictures that will be read, by extension."""
    lengths: dict[str, int] = {}
    for job in jobs:
        if not job.video and job.source != STANDARD and not job.trouble and not (skip_existing and job.target.exists()):
            kind = job.source.suffix.lower()
            try:
                lengths[kind] = lengths.get(kind, 0) + job.source.stat().st_size
            except OSError:  # gone already: reading it will say so
                continue
    return lengths


def _weights(request: Request) -> "Weights | Exported":
    from restormer_cli.engine.runtimes import RUNTIMES, Exported
    from restormer_cli.model.weights import bundled_tasks, load_weights

    if request.weights is not None and request.task is not None:
        raise UserError("--weights and --task: give only one of them, a file of your own or a bundled task")
    if request.weights is not None and Path(request.weights).suffix.lower() in RUNTIMES:
        return Exported(request.weights)
    if request.weights is not None:
        return load_weights(request.weights)
    task = request.task or DEFAULT_TASK
    if task not in bundled_tasks():
        near = [name for name in bundled_tasks() if task in name] or get_close_matches(task, bundled_tasks(), n=1)
        meant = f", did you mean {near[0]}?" if near else ""
        bundled = ", ".join(bundled_tasks()) or "none"
        raise UserError(f"--task {task}: no such bundled checkpoint{meant} (bundled: {bundled}; or auto)")
    return load_weights(task)
