"""`--task auto`: which bundled task a picture needs, if any, and why; a pure function of the estimates."""

from dataclasses import dataclass

from restormer_cli.analysis.blur import Blur
from restormer_cli.analysis.findings import Findings

NOISY = 3.0
"""Noise from this σ (of 255) on is worth a denoiser, where it is noise for sure (see `Noise.score`)."""
HIGH_ISO, NOISY_AT_HIGH_ISO = 1600, 1.5
LOW_ISO, NOISY_AT_LOW_ISO = 400, 3.5
"""Where the camera told its sensitivity: from HIGH_ISO on noise is likely, so that less of it is believed; below
LOW_ISO it is unlikely, so that more of it is asked for."""
TRUSTED = 0.66
"""How well noise must be told from texture (see `Noise.trust`) where a high sensitivity says that there is noise: a
camera's own processing leaves noise that looks like texture."""
CORRELATED = 0.15
"""Correlation of neighbours from which noise is called correlated."""
BLURRED = 1.2
"""Radius of a disc from which a picture is called out of focus."""
MOVED = 3.0
"""Length of a line from which a picture is called moved."""
DROWNED = 8.0
"""Noise from this σ on drowns a blur: the deblurring weights were trained with less, so denoising comes first."""
FAINT = 2.5
"""Change by the derainer, in 1/255, from which it takes streaks away; tree trunks and their like are less."""
COARSE = 0.5
"""Blocks that are worth a word; no bundled task is made for them."""


@dataclass(frozen=True)
class Camera:
    """Camera settings stored in the picture."""

    make: str
    iso: int


@dataclass(frozen=True)
class Choice:
    """A bundled task, or None to leave the picture alone; and why, in one line."""

    task: str | None
    reason: str


def read_camera(exif: bytes | None) -> Camera | None:
    """The maker and the sensitivity in an EXIF block, or None where it does not hold both."""
    if not exif:
        return None
    import PIL.Image  # 30 ms that --help should not pay

    tags = PIL.Image.Exif()
    try:
        tags.load(exif)
        make, iso = tags.get(271), tags.get_ifd(34665).get(34855)
    except Exception:  # any damage: it is a prior, nothing more
        return None
    iso = iso[0] if isinstance(iso, tuple) and iso else iso
    if not isinstance(make, str) or not isinstance(iso, int) or not 0 < iso < 10_000_000:
        return None
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in make).split())
    return Camera(words[:40], iso) if words else None


def _wide(blur: Blur) -> bool:
    """Whether a disc or a line is wide enough to be undone."""
    return blur.width >= (BLURRED if blur.kind == "defocus" else MOVED)


def choose_task(findings: Findings, camera: Camera | None = None) -> Choice:
    """The bundled task for a picture: rain first, then blur where noise lets it be seen, then noise, else none."""
    noise, blur, rain = findings.noise, findings.blur, findings.rain
    if rain.score > 0:
        return Choice("derain", f"bright streaks, {abs(rain.tilt):.0f}° from upright: derain")
    trial = findings.trial
    if trial is not None and trial.score > 0 and trial.change >= FAINT:
        return Choice("derain", "bright streaks, which the derainer takes from all pieces that it is tried on: derain")
    blurred = blur.kind == "shake" or (blur.score > 0 and _wide(blur))
    correlated = noise.correlation >= CORRELATED and noise.mean >= 1
    noisy = f"noise σ {noise.mean:.2g}" + ", correlated" * correlated
    if blurred and noise.mean < DROWNED:
        if blur.kind == "shake":
            return Choice("motion-deblur", "no sharp edge, no disc: blur by a shaken camera: motion-deblur")
        if blur.kind == "motion":
            return Choice("motion-deblur", f"blur along {blur.width:.2g} pixels at {blur.angle:.0f}°: motion-deblur")
        return Choice("defocus", f"blur by a disc of radius {blur.width:.2g} pixels: defocus")
    least = NOISY
    if camera is not None:
        least = NOISY_AT_HIGH_ISO if camera.iso >= HIGH_ISO else NOISY_AT_LOW_ISO if camera.iso < LOW_ISO else NOISY
        noisy += f", ISO {camera.iso} ({camera.make})"
    told = camera is not None and camera.iso >= HIGH_ISO and noise.trust >= TRUSTED
    if noise.mean >= least and not (told or noise.score > 0):
        return Choice(None, f"{noisy}, or fine texture everywhere, no blur and no rain to be sure of: left alone")
    if noise.mean >= least:
        return Choice("denoise", f"{noisy}: denoise")
    beside = ", JPEG blocks, for which no task is made" if findings.blocks >= COARSE else ""
    return Choice(None, f"{noisy}{beside}, no blur and no rain to be sure of: left alone")
