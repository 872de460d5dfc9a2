"""Sides as multiples of 8, which is what the bare network takes."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple_of_8(x: Tensor) -> Tensor:
    """(b, c, h, w) -> the same, reflected at the right and bottom; edge pixels where it is too small to reflect."""
    h, w = x.shape[-2:]
    down, right = -h % 8, -w % 8
    if not down and not right:
        return x
    x = F.pad(x, (0, right, 0, 0), mode="reflect" if right < w else "replicate")
    return F.pad(x, (0, 0, 0, down), mode="reflect" if down < h else "replicate")


def multiple_of_8(side: int) -> int:
    return -(-side // 8) * 8
