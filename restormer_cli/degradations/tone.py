"""The curve between light and the values of a file."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Tone:
    """The curve from light to a file's values, and back, as tables: by √light, and by the value."""

    forth: Image
    back: Image

    @classmethod
    def of(cls, contrast: float) -> "Tone":
        """A display's gamma of 2.2, and after it the smooth step 3x² - 2x³, by `contrast` 0 (not) to 1 (all of it)."""
        root = np.linspace(0, 1, 2**14 + 1)  # the nearest entry is within a thirtieth of a file's step
        shown = root ** (2 / 2.2)
        shown = (1 - contrast) * shown + contrast * (3 * shown**2 - 2 * shown**3)
        return cls(shown.astype(np.float32), (np.interp(root, shown, root) ** 2).astype(np.float32))

    def encoded(self, light: Image) -> Image:
        """Linear -> as in a file, clipped to [0, 1]."""
        return _look_up(self.forth, np.sqrt(np.clip(light, 0, 1)))

    def linear(self, shown: Image) -> Image:
        """As in a file, in [0, 1] -> linear."""
        return _look_up(self.back, shown)


def _look_up(table: Image, places: Image) -> Image:
    """The table's values at places in [0, 1], the nearest entries."""
    scaled = places * np.float32(len(table) - 1)
    scaled += np.float32(0.5)
    return table.take(scaled.astype(np.int32))


PLAIN = Tone.of(0)
