"""The kinds of pictures that checkpoints are scored on: one list for peers.py, precision.py and the page of results."""

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of picture, in words, and the task that is made for it."""

    words: str
    task: str
    held_out: str
    """Its spec, of what training leaves out where it leaves something out."""
    whole: str = ""
    """The spec of all of the kind, where that is another."""


CLEAN = "round8"
KINDS = {
    "shake": Kind(
        "a camera that shook, in strokes",
        "motion-deblur",
        "shake:4-20,path=2,layers=1-2+gaussian:2+round8",
        "shake:4-20,layers=1-2+gaussian:2+round8",
    ),
    "motion": Kind("lines of 4 to 15 pixels", "motion-deblur", "motion:4-15+gaussian:2+round8"),
    "lens": Kind(
        "scenes in depth through 8 and 9 blades, 2 to 10 pixels",
        "defocus",
        "lens:2-10,blades=8-9+gaussian:2+round8",
        "lens:2-10+gaussian:2+round8",
    ),
    "defocus": Kind("a disc of 2 to 5 pixels", "defocus", "defocus:2-5+gaussian:2+round8"),
    "rainfall": Kind("streaks of all kinds at once", "derain", "rainfall:2-10,kind=3+round8", "rainfall:2-10+round8"),
    "rain": Kind("drops near and far", "derain", "rain:0.1-0.4+round8"),
    "noisy": Kind("white noise, σ 15", "denoise", "gaussian:15+round8"),
    "gray": Kind("black and white, white noise, σ 25", "denoise", "gaussian:25+gray:1+round8"),
    "sensor": Kind(
        "a camera's noise, ISO 400 to 6400", "denoise", "sensor:400-6400,curve=0-1,demosaic=2", "sensor:400-6400"
    ),
}
