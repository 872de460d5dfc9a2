"""The bundled derainer, asked by `--task auto` whether it rains where pixels alone do not say so."""

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from restormer_cli.analysis.decision import Camera, Choice
    from restormer_cli.analysis.findings import Findings
    from restormer_cli.engine.strips import StripNetwork


def analyse_and_choose(pixels: np.ndarray, camera: "Camera | None" = None) -> "tuple[Findings, Choice]":
    """The findings of float32 (h, w, 1 or 3), and the task by them; what is no rain to them is tried, in half a second.

    In this thread, on the CPU and in float32 wherever the picture itself will be restored, so that the choice does not
    depend on that.
    """
    from restormer_cli.analysis.decision import choose_task
    from restormer_cli.analysis.findings import analyse
    from restormer_cli.analysis.trial import try_derainer

    findings = analyse(pixels)
    choice = choose_task(findings, camera)
    if choice.task != "derain":
        findings = replace(findings, trial=try_derainer(pixels, derained))
        choice = choose_task(findings, camera)
    return findings, choice


def derained(piece: np.ndarray) -> np.ndarray:
    """The derainer's answer: float32 (h, w, 3), sides multiples of 8 -> the same shape, not clamped."""
    import torch

    x = torch.from_numpy(piece).permute(2, 0, 1)[None]
    return derainer().run(x)[0].permute(1, 2, 0).numpy()


@cache
def derainer() -> "StripNetwork":
    """The network, 31 MB, made once."""
    from restormer_cli.engine.strips import StripNetwork
    from restormer_cli.model.weights import load_weights

    return StripNetwork(load_weights("derain").model, threads=1)
