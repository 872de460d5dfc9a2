"""Time and memory of methods: each in a fresh process, taking turns.

A method at a size gets a process of its own, restores the picture once (the warm-up, after which the process's
peak memory is read), and then once per round, in turn with the others, so that whatever slows the machine for a
while slows them all. Where memory is too short to keep all processes waiting, those not running are ended and
started again when their turn comes.

Nothing here imports torch at the top: the processes set their number of threads first.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from restormer_cli.errors import Failed, RestormerError, UserError
from restormer_cli.hardware import Peak, free

if TYPE_CHECKING:  # importing them would load torch
    from restormer_cli.benchmark.methods import Method
    from restormer_cli.benchmark.networks import Network


SETTLE = 0.05
"""Seconds between turns: threads that wait by spinning give up meanwhile."""


@dataclass(frozen=True)
class Timing:
    """Time and memory of one method at one size: seconds per picture, bytes."""

    method: "Method"
    height: int
    width: int
    seconds: tuple[float, ...] = ()
    """One per round, the warm-up left out."""
    prepare: float = 0.0
    """From weights to ready."""
    first: float = 0.0
    """The warm-up: what compiles or measures on first sight does it here."""
    peak: int | None = None
    """Most memory the process ever held, Python and libraries included."""
    device_peak: int | None = None
    """Most memory allocated on the GPU."""
    difference: float | None = None
    """Largest absolute difference from the textbook network in fp32, where that takes part."""
    plan: str | None = None
    stages: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    """Why there are no figures."""

    @property
    def median(self) -> float:
        """Seconds per picture."""
        return median(self.seconds)

    @property
    def megapixels_per_second(self) -> float:
        """Throughput."""
        return self.height * self.width / 1e6 / self.median


@dataclass(frozen=True)
class TimingProgress:
    """Method that runs now; round 0 is the warm-up."""

    method: "Method"
    height: int
    width: int
    round: int
    rounds: int


def measure(
    entries: Sequence[tuple["Method", "Network"]],
    size: tuple[int, int],
    *,
    rounds: int,
    threads: int,
    onnx: Path | None = None,
    stages: bool = True,
) -> Iterator[TimingProgress | Timing]:
    """Run every method with its network on one picture of `size` (h, w); yields a Turn before each run, then a
    Timing each, in the same order. Networks may differ, but not in what they take."""
    picture = test_picture(*size, entries[0][1].config.in_channels)
    with ExitStack() as stack:
        lanes = [stack.enter_context(_Entry(c, network, picture, threads, onnx)) for c, network in entries]
        for number in range(rounds + 1):
            for lane in lanes:
                if lane.error is None:
                    yield TimingProgress(lane.method, *size, number, rounds)
                    _make_room(lane, lanes)
                    time.sleep(SETTLE)
                    lane.run(timed=number > 0)
        if stages:
            for lane in lanes:
                if lane.method.kind == "restormer" and lane.error is None:
                    lane.time_stages()
        reference = next((lane.output for lane in lanes if _is_reference(lane.method)), None)
        yield from (lane.cell(size, reference) for lane in lanes)


def test_picture(height: int, width: int, channels: int) -> np.ndarray:
    """A smooth picture with edges and some noise, always the same: float32 (h, w, c) in about [0, 1]."""
    y, x, c = np.ogrid[0:height, 0:width, 0:channels]
    smooth = 0.5 + 0.2 * np.sin(x / 23 + c) * np.cos(y / 31 - c) + 0.15 * ((x // 64 + y // 64) % 2)
    noise = np.random.RandomState(0).normal(0, 25 / 255, (height, width, channels))
    return (smooth + noise).astype(np.float32)


class _Entry:
    """A method, its process, and what has been measured of it so far."""

    def __init__(
        self, method: "Method", network: "Network", picture: np.ndarray, threads: int, onnx: Path | None
    ) -> None:
        self.method = method
        self.task = (method, network, picture, threads, onnx)
        self.worker: _Worker | None = None
        self.output: np.ndarray | None = None
        self.seconds: list[float] = []
        self.facts: dict[str, Any] = {}
        self.error: str | None = None

    def __enter__(self) -> "_Entry":
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def run(self, *, timed: bool) -> None:
        """Restore the picture once; a process that has to be started warms up first."""
        try:
            if self.worker is None:
                self.worker = _Worker(_serve, self.task)
                facts = self.worker.ask("ready")
                facts |= self.worker.ask("warm up")
                self.output = facts.pop("output")
                self.facts = self.facts or facts
            if timed:
                self.seconds.append(self.worker.ask("run"))
        except RestormerError as error:
            self.error = str(error)
            self.rest()

    def time_stages(self) -> None:
        """Ask how long each stage of the network takes."""
        try:
            if self.worker is not None:
                self.facts["stages"] = self.worker.ask("stages")
        except RestormerError:
            self.rest()  # a table less; the figures stand

    def rest(self) -> None:
        """End the process; it can be started again."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    def cell(self, size: tuple[int, int], reference: np.ndarray | None) -> Timing:
        """Result of the measurements."""
        if self.error is not None or not self.seconds:
            return Timing(self.method, *size, error=self.error or "was not timed")
        difference = None
        if reference is not None and self.output is not None and self.method.runs_network:
            difference = float(np.abs(self.output - reference).max())
        return Timing(self.method, *size, tuple(self.seconds), difference=difference, **self.facts)


def _is_reference(method: "Method") -> bool:
    return method.kind == "textbook" and method.precision == "fp32"


def _make_room(lane: _Entry, lanes: list[_Entry]) -> None:
    """End the other, waiting processes where this one might not find the memory it needs."""
    import torch

    known = lane.facts.get("peak")
    held = sum(other.facts.get("peak") or 0 for other in lanes if other.worker is not None)
    # Nobody's need is known before its warm-up; the largest so far, doubled, is a guess on the safe side.
    need = known or 2 * max([other.facts.get("peak") or 0 for other in lanes] or [0])
    if held and free(torch.device("cpu")) < need + (1 << 30):
        for other in lanes:
            if other is not lane:
                other.rest()


class _Worker:
    """A fresh process that answers questions."""

    def __init__(self, serve: Any, task: tuple[Any, ...]) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *task), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, question: str) -> Any:
        """Send a question, wait for its answer. Raises what the process raised, or Failed where it died."""
        try:
            self.connection.send(question)
            kind, answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(10)
            killed = self.process.exitcode == -signal.SIGKILL
            reason = "not enough memory" if killed else f"its process ended with status {self.process.exitcode}"
            raise Failed(reason) from None
        if kind == "error":
            raise Failed(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):  # by itself, which sees the pipe closed; else by force
            self.connection.close()
        self.process.join(5)
        self.process.kill()
        self.process.join()


def export_elsewhere(network: "Network", target: Path, threads: int) -> None:
    """Export the network to ONNX in a process of its own, whose memory then goes back. Raises Failed, UserError."""
    worker = _Worker(_serve_export, (network, target, threads))
    try:
        worker.ask("export")
    except Failed as error:
        raise UserError(f"the network cannot be exported to ONNX, which --against asks for: {error}") from None
    finally:
        worker.close()


# --- Inside the processes -----------------------------------------------------------------------------------


def _set_up(threads: int, ours: bool = False) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    with suppress(OSError):  # should memory run out after all, the kernel is to take us first
        Path("/proc/self/oom_score_adj").write_text("900")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if not ours:  # PyTorch's operators, one after the other, begin sooner when threads wait awake: its default
        os.environ.pop("OMP_WAIT_POLICY", None)
    import torch

    torch.set_num_threads(threads)


def _serve_export(connection: Connection, network: "Network", target: Path, threads: int) -> None:
    _set_up(threads)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the exporter's chatter; its errors travel by the pipe
    from restormer_cli.export.onnx_file import build_onnx

    with suppress(EOFError):
        connection.recv()
        try:
            target.write_bytes(build_onnx(network.build()).SerializeToString())
            connection.send(("answer", None))
        except Exception as error:
            connection.send(("error", f"{type(error).__name__}: {error}"))


def _serve(
    connection: Connection,
    method: "Method",
    network: "Network",
    picture: np.ndarray,
    threads: int,
    onnx: Path | None,
) -> None:
    from restormer_cli.benchmark.methods import OURS, prepare

    _set_up(threads, ours=method.kind == OURS)

    restore: Any = None

    def answer(question: str) -> Any:
        nonlocal restore
        if question == "ready":
            seconds, restore = _timed(lambda: prepare(method, network, threads, onnx))
            plan = str(restore.plan(*picture.shape[:2])) if method.kind == OURS else None
            return {"prepare": seconds, "plan": plan}
        if question == "warm up":
            seconds, output = _timed(lambda: restore(picture))
            device_peak = Peak(method.device).bytes() if method.device.startswith("cuda") else None
            return {"first": seconds, "output": output, "peak": Peak("cpu").bytes(), "device_peak": device_peak}
        if question == "stages":
            from restormer_cli.benchmark.level_times import time_stages

            return time_stages(network.build(), method.precision, method.device, picture)
        return _timed(lambda: restore(picture))[0]

    with suppress(EOFError):
        while True:
            question = connection.recv()
            try:
                connection.send(("answer", answer(question)))
            except RestormerError as error:
                connection.send(("error", str(error)))
            except MemoryError:
                connection.send(("error", "not enough memory"))
            except Exception as error:  # a peer's own exception: told, and the others go on
                text = " ".join(str(error).split())
                short = "not enough memory" if "memory" in text else f"{type(error).__name__}: {text[:200]}"
                connection.send(("error", short))


def _timed(work: Any) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result
