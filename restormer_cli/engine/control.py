"""Shares of the network's change that a user keeps: by brightness and colour, by fineness, and by place.

    kept = apply_control(pixels, restored, Control(luma=0.6, detail=0.5))

The change (restored minus input) is a sum of parts, and each knob scales one of them, in this order:

1. It is split into luminance (Rec. 601, added to red, green and blue alike) and the two axes of chroma that are left.
   `luma` and `chroma` say how much of each is kept.
2. Luminance is split into octaves by the undecimated B3-spline wavelet (Holschneider 1989; Starck and Murtagh 1994),
   whose parts add up to the whole. `detail` gives back the three finest where the restored picture has structure,
   `grain` the two finest everywhere; where both do, never more than was taken away. Chroma is never given back.
3. All of it is scaled by `strength`, and by a weight for each pixel (a mask, protected highlights).

So every luminance lies between the input's and the restored one, and so does the chroma, and both move steadily with
every knob. The result is linear in each knob, which lets a page blend it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restormer_cli.errors import UserError
from restormer_cli.pixels import LUMA

Image = NDArray[np.float32]

OCTAVES = 3
"""Given back by `detail`; `grain` gives back one fewer."""
WINDOW = 9
"""Side of the square, in pixels, over which structure and noise are compared."""
HALO = 2 * (2**OCTAVES - 1) + WINDOW // 2
"""How far a pixel of the given back parts looks."""
BAND = 1 << 19
"""Pixels that are worked on at once, so that hardly any memory is needed beside the pictures."""
WHITE = 254.5 / 255


@dataclass(frozen=True)
class Control:
    """How much of the change is kept; every value from 0 to 1."""

    strength: float = 1.0
    """Share of the whole change, in [0, 1]."""
    luma: float = 1.0
    """Share of the change in luminance, in [0, 1]."""
    chroma: float = 1.0
    """Share of the change in colour, in [0, 1]."""
    detail: float = 0.0
    """Fine luminance given back where the picture has structure."""
    grain: float = 0.0
    """The finest luminance given back everywhere, gray."""

    @property
    def plain(self) -> bool:
        """Only `strength` is set, if anything."""
        return (self.luma, self.chroma, self.detail, self.grain) == (1, 1, 0, 0)

    @property
    def nothing(self) -> bool:
        """No change is kept, so that the network need not run."""
        return self.strength == 0 or self.luma == self.chroma == 0


@dataclass(frozen=True)
class Layers:
    """The parts of a change, with which a result is blended; float32, (h, w) or for chroma (h, w, c)."""

    luma: Image
    """The change of luminance."""
    chroma: Image
    """The rest of the change."""
    fine: Image
    """The finest octaves of `luma`, which `grain` gives back."""
    coarser: Image
    """The octave after those, which `detail` gives back too."""
    structure: Image
    """Where the restored picture has structure: 0 nowhere, towards 1 where it outweighs the change."""

    def blend(self, control: Control) -> Image:
        """Change that is added to the input before strength and weight: (h, w, c)."""
        by_detail = np.float32(control.detail) * self.structure
        given = self.fine * (1 - (1 - by_detail) * np.float32(1 - control.grain)) + self.coarser * by_detail
        gray = np.float32(control.luma) * (self.luma - given)
        return gray[..., None] + np.float32(control.chroma) * self.chroma  # pyright: ignore


def apply_control(pixels: Image, restored: Image, control: Control, weight: Image | None = None) -> Image:
    """Keep a part of the change: float32 (h, w, 1 or 3) twice -> the same shape, written into `restored`, not clamped.

    weight: float32 (h, w), 0 keeps the input to the bit and 1 the controlled result. With nothing set and no weight
    the restored picture comes back as it is; where nothing is kept, the input.
    """
    strength = np.float32(control.strength)
    if weight is None and control.plain and strength == 1:
        return restored
    height, width = pixels.shape[:2]
    fine = control.detail > 0 or control.grain > 0
    halo = HALO if fine else 0
    rows = max(1, BAND // width)
    above = restored[:0]  # what the band before has overwritten
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        around = slice(top - len(above), min(bottom + halo, height))
        answer = np.concatenate([above, restored[top : around.stop]]) if halo else restored[around]
        following = answer[: len(above) + bottom - top][-halo:].copy() if halo else above
        if control.plain:
            change = answer - pixels[around]
        else:
            change = split_change(pixels[around], answer, fine=fine).blend(control)
        change = change[len(above) :][: bottom - top]
        change *= strength if weight is None else (strength * weight[top:bottom])[..., None]
        np.add(pixels[top:bottom], change, out=restored[top:bottom])
        above = following
    return restored


def detail_layer(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Image:
    """Texture that `detail` 1 gives back, with its sign: uint8 (h, w, 1 or 3) twice -> (h, w), on the scale of [0, 1].

    For pages: a result is before + strength · (luma · (Δ − detail · layer) + chroma · the rest of the change), where Δ
    is the change of luminance.
    """
    height, width = before.shape[:2]
    layer, rows = np.empty((height, width), np.float32), max(1, BAND // width)
    for top in range(0, height, rows):
        first, last = max(0, top - HALO), min(top + rows + HALO, height)
        sides = (side[first:last].astype(np.float32) / np.float32(255) for side in (before, after))
        parts = split_change(*sides)
        given = parts.structure * (parts.fine + parts.coarser)
        layer[top : top + rows] = given[top - first :][:rows]
    return layer


def split_change(pixels: Image, restored: Image, *, fine: bool = True) -> Layers:
    """The parts of restored - pixels, float32 (h, w, 1 or 3); the given back ones are zeros unless `fine`."""
    change = restored - pixels
    luma = _luma(change)
    chroma = change - luma[..., None]
    if not fine:
        nothing = np.zeros_like(luma)
        return Layers(luma, chroma, nothing, nothing, nothing)
    octaves = _octaves(luma)
    noise = _energy(octaves)
    structure = _energy(_octaves(_luma(restored)))
    structure /= structure + noise + np.float32(1e-12)
    return Layers(luma, chroma, octaves[0] + octaves[1], octaves[2], structure)


def _luma(pixels: Image) -> Image:
    return pixels @ LUMA if pixels.shape[2] == 3 else pixels[..., 0]


def _octaves(plane: Image) -> list[Image]:
    """The finest octaves of a plane (h, w), finest first; the plane minus their sum is what is smooth."""
    from scipy.ndimage import correlate1d  # 50 ms, for those who ask for it

    octaves = []
    for octave in range(OCTAVES):
        taps = np.zeros(4 * 2**octave + 1, np.float32)
        taps[:: 2**octave] = np.array([1, 4, 6, 4, 1]) / 16
        smooth = np.empty_like(plane)
        correlate1d(correlate1d(plane, taps, axis=0, mode="mirror"), taps, axis=1, output=smooth, mode="mirror")
        octaves.append(plane - smooth)
        plane = smooth
    return octaves


def _energy(octaves: list[Image]) -> Image:
    from scipy.ndimage import uniform_filter

    energy = np.square(octaves[0])
    for octave in octaves[1:]:
        energy += np.square(octave)
    uniform_filter(energy, WINDOW, output=energy, mode="mirror")
    return energy


# --- Where --------------------------------------------------------------------------------------------------


def mask_weight(mask: Image, height: int, width: int) -> Image:
    """A mask's pixels (h, w, 1 or 3) in [0, 1] as weights (h, w): white restores, black keeps, gray does in part.

    Raises UserError, without the file's name, where the mask is not as large as the picture.
    """
    if mask.shape[:2] != (height, width):
        raise UserError(
            f"is {mask.shape[1]} × {mask.shape[0]}, the picture {width} × {height}: make them the same size"
        )
    weight = np.ascontiguousarray(np.clip(_luma(mask), 0, 1))
    weight[weight > 1 - 1e-6] = 1  # the luma of white, in float32
    return weight


def highlights(pixels: Image) -> NDArray[np.bool_]:
    """Where light was lost: areas of at least 3 × 3 pixels with a channel at white, (h, w, c) -> (h, w).

    Single pixels at white are noise, which protecting would leave standing.
    """
    from scipy.ndimage import binary_opening

    return binary_opening((pixels >= WHITE).any(axis=2), np.ones((3, 3), bool)).astype(np.bool_)
