"""All estimates of one picture together."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from restormer_cli.analysis.blur import Blur, estimate_blur
from restormer_cli.analysis.noise import Noise, estimate_noise
from restormer_cli.analysis.sampling import Image
from restormer_cli.analysis.traces import Clipping, Rain, estimate_blocks, estimate_clipping, estimate_rain
from restormer_cli.analysis.trial import Trial


@dataclass(frozen=True)
class Findings:
    """Defects of a picture, estimated from its pixels."""

    noise: Noise
    blur: Blur
    blocks: float
    """How much larger differences across an 8 × 8 grid are than others: 0 none, 0.1 visible, 1 coarse."""
    clipping: Clipping
    rain: Rain
    """In JSON with a `score`: above 0 it rains for sure."""
    trial: Trial | None = None
    """What the derainer changed, with a `score` as of `rain`; null unless `--task auto` had to ask it."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and words, rounded."""
        values = _rounded(asdict(self))
        values["rain"]["score"] = round(self.rain.score, 3)
        if self.trial is not None:
            values["trial"]["score"] = round(self.trial.score, 3)
        return values

    def __str__(self) -> str:
        """In a phrase: `noise σ 9.1 (R 9.0, G 8.8, B 9.5; correlated over 1.4 px), sharp, white 2 %`."""
        noise, blur = self.noise, self.blur
        channels = ", ".join(f"{name} {sigma:.1f}" for name, sigma in zip("RGB", noise.sigma, strict=False))
        inside = [channels] if len(noise.sigma) > 1 else []
        inside += [f"correlated over {noise.length:.1f} px"] if noise.length and noise.mean >= 1 else []
        words = [f"noise σ {noise.mean:.1f}" + (f" ({'; '.join(inside)})" if inside else "")]
        words.append(
            {
                "none": "no blur seen",
                "soft": f"soft, as by a disc of radius {blur.width:.1f}",
                "defocus": f"out of focus, radius {blur.width:.1f}",
                "motion": f"moved by {blur.width:.0f} px at {blur.angle:.0f}°",
                "shake": "shaken",
            }[blur.kind]
        )
        words += [f"JPEG blocks {self.blocks:.2f}"] if self.blocks >= 0.1 else []
        words += [f"white {self.clipping.white:.0%}"] if self.clipping.white >= 0.005 else []
        words += [f"black {self.clipping.black:.0%}"] if self.clipping.black >= 0.005 else []
        return ", ".join(words)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    def shorter(value: Any) -> Any:
        if isinstance(value, dict):
            return _rounded(value)
        if isinstance(value, tuple):
            return [shorter(part) for part in value]
        return round(value, 3) if isinstance(value, float) else value

    return {name: shorter(value) for name, value in values.items()}


def analyse(pixels: Image) -> Findings:
    """Look at float32 (h, w, 1 or 3), nominally in [0, 1]: 0.3 to 1.8 s on one core, however large it is.

    What is far outside, or no number, counts as white or black.
    """
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -1 and high <= 2):  # not a number is neither
        pixels = np.clip(np.nan_to_num(pixels, nan=0.0), -1, 2)
    return Findings(
        noise=estimate_noise(pixels),
        blur=estimate_blur(pixels),
        blocks=estimate_blocks(pixels),
        clipping=estimate_clipping(pixels),
        rain=estimate_rain(pixels),
    )
