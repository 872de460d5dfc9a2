"""Operations on pixels that many rooms share: luma, and rounding to 8 bits."""

import numpy as np
from numpy.typing import NDArray

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Y of R, G and B (ITU-R BT.601); the published gray networks' training pictures were made gray by it."""


def round8(image: np.ndarray) -> NDArray[np.uint8]:
    """Floats, 0 black and 1 white -> uint8, clamped and rounded (ties to even, as writers of files do)."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
