"""All estimates of one picture together."""

from dataclasses import dataclass

from restormer_cli.analysis.blur import Blur, estimate_blur
from restormer_cli.analysis.noise import Noise, estimate_noise
from restormer_cli.analysis.sampling import Image
from restormer_cli.analysis.traces import Clipping, Rain, estimate_blocks, estimate_clipping, estimate_rain


@dataclass(frozen=True)
class Findings:
    """What is wrong with a picture, as far as its pixels tell."""

    noise: Noise
    blur: Blur
    blocks: float
    """How much larger differences across an 8 × 8 grid are than others: 0 none, 0.1 visible, 1 coarse."""
    clipping: Clipping
    rain: Rain


def analyse(pixels: Image) -> Findings:
    """Look at float32 (h, w, 1 or 3), nominally in [0, 1]: about half a second on one core, however large it is."""
    return Findings(
        noise=estimate_noise(pixels),
        blur=estimate_blur(pixels),
        blocks=estimate_blocks(pixels),
        clipping=estimate_clipping(pixels),
        rain=estimate_rain(pixels),
    )
