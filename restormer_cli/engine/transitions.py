"""The convolutions before, between and after the levels, strip by strip, by PyTorch's operators."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from restormer_cli.engine.packed import PackedConv, PackedLinear, convolution
from restormer_cli.model.restormer import Restormer


class StripTransitions:
    """Everything of a network that is not a block, on maps (height, width, channels) of `dtype`."""

    def __init__(self, model: Restormer, dtype: torch.dtype, strip_bytes: int) -> None:
        self.dtype, self.strip_bytes = dtype, strip_bytes
        self.device = next(model.parameters()).device
        layers = dict(model.named_children())
        self.reductions = {
            name: PackedLinear(layer.weight.flatten(1), layer.bias, dtype)
            for name, layer in layers.items()
            if name.startswith("reduce") and isinstance(layer, nn.Conv2d)
        }
        wide = torch.promote_types(dtype, torch.float32)  # what meets the picture itself is not rounded
        self.first = convolution(layers["patch_embed"].get_submodule("proj"), wide)
        self.last = convolution(layers["output"], wide)
        self.resample = {
            name: convolution(layer.get_submodule("body.0"), dtype)
            for name, layer in layers.items()
            if name.startswith(("down", "up"))
        }

    def embed(self, picture: Tensor, result: Tensor) -> None:
        """(h, w, in_channels) -> `result`, (h, w, dim)."""
        self._convolve(self.first, picture, result)

    def output(self, x: Tensor, result: Tensor, picture: Tensor | None, beside: Tensor | None = None) -> None:
        """(h, w, c) -> `result`, (h, w, out_channels), to which the picture is added where there is one."""
        assert beside is None, "the operators join maps"
        self._convolve(self.last, x, result)
        if picture is not None:
            result += picture

    def _convolved(self, layer: PackedConv, x: Tensor, take: Callable[[int, int, Tensor], None]) -> None:
        """A 3×3 convolution of the whole map, (h, w, c): `take` gets the first row, the end, and (rows, w, c')."""
        height, width, channels = x.shape

        for a, b in whole_rows(x, max(channels, layer.outputs), self.strip_bytes):
            top, bottom = max(a - 1, 0), min(b + 1, height)
            space = torch.empty((b - a + 2, width + 2, channels), dtype=layer.dtype, device=self.device)
            space[:, 0] = space[:, -1] = 0
            if top == a:
                space[0] = 0
            if bottom == b:
                space[-1] = 0
            space[top - a + 1 : bottom - a + 1, 1:-1] = x[top:bottom]
            take(a, b, layer(space))

    def _convolve(self, layer: PackedConv, x: Tensor, result: Tensor) -> None:

        def take(a: int, b: int, rows: Tensor) -> None:
            result[a:b] = rows

        self._convolved(layer, x, take)

    def down(self, name: str, x: Tensor, memory: Tensor) -> Tensor:
        """Convolve and pixel-unshuffle: (h, w, c) -> (h/2, w/2, 2c), at the beginning of `memory`."""
        height, width, channels = x.shape
        result = memory[: x.numel() // 2].view(height // 2, width // 2, 2 * channels)
        # (h/2, y, w/2, x, c/2) seen through the result's (h/2, w/2, c/2, y, x); strips begin and end at even rows.
        spread = result.unflatten(2, (channels // 2, 2, 2)).permute(0, 3, 1, 4, 2)

        def take(a: int, b: int, rows: Tensor) -> None:
            spread[a // 2 : b // 2] = rows.unflatten(1, (width // 2, 2)).unflatten(0, ((b - a) // 2, 2))

        self._convolved(self.resample[name], x, take)
        return result

    def _up(self, name: str, x: Tensor, take: Callable[[int, int, Tensor], None]) -> None:
        """Convolve and pixel-shuffle, (h, w, c) -> (2h, 2w, c/2): `take` gets the first row, the end, and a view of
        shape (rows / 2, 2, w, 2, c/2)."""

        def shuffle(a: int, b: int, rows: Tensor) -> None:
            take(2 * a, 2 * b, rows.unflatten(2, (-1, 2, 2)).permute(0, 3, 1, 4, 2))

        self._convolved(self.resample[name], x, shuffle)

    def reduce(self, name: str, x: Tensor, skip: Tensor) -> Tensor:
        """Up, join the skip, and reduce to the skip's place: (h, w, c) and (2h, 2w, c/2) -> the latter."""
        product = self.reductions[f"reduce_chan_level{name[-1]}"]

        def take(a: int, b: int, raised: Tensor) -> None:
            below = skip[a:b]
            below.copy_(product(_joined(raised, below, below.new_empty((*below.shape[:2], 2 * below.shape[2])))))

        self._up(name, x, take)
        return skip

    def join(self, name: str, x: Tensor, skip: Tensor, canvas: Tensor) -> Tensor:
        """Up, and join the skip: (h, w, c) and (2h, 2w, c/2) -> `canvas`, (2h, 2w, c).

        The skip is the back half of the canvas' memory. Going down, what is written never reaches what is yet to be
        read: y rows of the canvas are as long as 2y rows of the skip, and its row y comes after 2h + y of them.
        """

        def take(a: int, b: int, raised: Tensor) -> None:
            _joined(raised, skip[a:b].clone(), canvas[a:b])

        self._up(name, x, take)
        return canvas


def _joined(raised: Tensor, skip: Tensor, result: Tensor) -> Tensor:
    """(h/2, 2, w/2, 2, c) and (h, w, c) -> `result`, (h, w, 2c)."""
    half = skip.shape[2]
    result[..., :half].unflatten(1, (-1, 2)).unflatten(0, (-1, 2)).copy_(raised)
    result[..., half:] = skip
    return result


def whole_rows(x: Tensor, channels: int, strip_bytes: int) -> list[tuple[int, int]]:
    """Ranges of whole rows, each even but for the last, whose intermediate of so many channels is bounded."""
    height, width = x.shape[:2]
    rows = max(1, 2 * strip_bytes // (width * channels * x.dtype.itemsize))
    rows += rows % 2
    return [(a, min(a + rows, height)) for a in range(0, height, rows)]
