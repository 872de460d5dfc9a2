"""What other pictures of a run take beside the one that is computed is part of every plan."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np

from restormer_cli.analysis.findings import analyse
from restormer_cli.commands.restore.jobs import Job
from restormer_cli.commands.restore.operations import DIAGNOSIS, DIAGNOSIS_PIXEL, Choosing, Restoring
from restormer_cli.commands.restore.types import Request


def test_a_diagnosis_beside_the_restoring_is_counted(tmp_path: Path, colour_weights, write_png) -> None:
    jobs = [Job(write_png(tmp_path / f"{number}.png", 48, 64), tmp_path / f"out-{number}.png") for number in range(3)]
    request = Request(tmp_path, tmp_path / "out", weights=str(colour_weights), device="cpu", memory="3GB")

    def waiting(*, analyse: bool, jobs: list[Job]) -> int:
        stage = Restoring(replace(request, analyse=analyse))
        stage.started(jobs)
        return stage.restorer.waiting

    more = waiting(analyse=True, jobs=jobs) - waiting(analyse=False, jobs=jobs)
    assert more == DIAGNOSIS + DIAGNOSIS_PIXEL * 48 * 64
    assert waiting(analyse=True, jobs=jobs[:1]) == 0  # a single one is diagnosed before it is restored


def test_a_diagnosis_needs_no_more_than_is_counted() -> None:
    height, width = 432, 640
    pixels = np.random.default_rng(0).random((height, width, 3), np.float32)
    analyse(pixels)  # modules and tables, which stay
    tracemalloc.start()
    try:
        analyse(pixels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.5 < peak / (DIAGNOSIS + DIAGNOSIS_PIXEL * height * width) <= 1


def test_every_network_that_auto_chooses_leaves_room_for_what_waits(tmp_path: Path, write_png) -> None:
    jobs = [Job(write_png(tmp_path / f"{number}.png", 48, 64), tmp_path / f"out-{number}.png") for number in range(3)]
    choosing = Choosing(Request(tmp_path, tmp_path / "out", task="auto", device="cpu", memory="3GB"))
    choosing.started(jobs)
    first, later = choosing.stage_of("denoise").restorer, choosing.stage_of("derain").restorer
    alone, beside = later._base, first._base + first.waiting
    assert first.waiting > 0
    assert later.plan(48, 64).bytes == first.plan(48, 64).bytes + max(0, alone - beside)
