"""The 3×3 convolutions before, between and after the levels, by the kernels: pixel-shuffle is where they write."""

import ctypes

import torch
from einops import rearrange
from torch import Tensor, nn

from restormer_cli.engine.native.blocks import PieceStruct, Workspace
from restormer_cli.engine.pieces import COLUMNS, JOINED, Piece, cut
from restormer_cli.model.restormer import Restormer
from restormer_cli.native.build import library
from restormer_cli.native.layouts import convolution_panels, few_rows, padded, panels, pointer
from restormer_cli.native.workers import WorkerPool

PLAIN, DOWN, UP, UP_REDUCED = range(4)


class ConvolutionStruct(ctypes.Structure):
    """`Convolution` of kernels.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("height", "width", "inputs", "outputs", "kind")),
        *((name, ctypes.c_void_p) for name in ("x", "beside", "weight", "bias", "out")),
        *((name, ctypes.c_int64) for name in ("out_row", "out_pixel")),
        *((name, ctypes.c_void_p) for name in ("addend", "reduce", "reduce_bias")),
    )


class NativeConvolution:
    """One convolution: `weight` (outputs, inputs, 3, 3), for UP four of them, (4, outputs, inputs, 3, 3).

    reduce: weight (outputs, outputs) of the product of what is in the result before, and its bias.
    """

    def __init__(
        self,
        kind: int,
        weight: Tensor,
        bias: Tensor | None,
        reduce: tuple[Tensor, Tensor | None] | None = None,
        bf16: bool = False,
    ) -> None:
        kernels = library(bf16=bf16)
        assert kernels is not None
        self.kernels, self.kind = kernels, kind
        self.inputs, self.outputs = weight.shape[-3], weight.shape[-4]
        lay_out = few_rows if kernels.has_few(kind, self.outputs) else convolution_panels
        self.weight = lay_out(weight, bf16)
        self.bias = None if bias is None else padded(bias)
        self.reduce, self.reduce_bias = (None, None) if reduce is None else (panels(reduce[0], bf16), reduce[1])


class NativeTransitions:
    """Everything of a network that is not a block, on maps (height, width, channels) in float32.

    `bf16`: products are of bf16, but for the first convolution's, since a picture is not to be rounded to it.
    """

    def __init__(self, model: Restormer, workers: WorkerPool, workspace: Workspace, bf16: bool = False) -> None:
        self.workers, self.workspace = workers, workspace
        layers = dict(model.named_children())
        self.convolutions: dict[str, NativeConvolution] = {}
        for name, layer in layers.items():
            if name == "patch_embed":
                layer = layer.get_submodule("proj")
            elif name.startswith(("down", "up")):
                layer = layer.get_submodule("body.0")
            elif name != "output":
                continue
            assert isinstance(layer, nn.Conv2d)
            if name.startswith("up"):
                level = int(name[4])
                self.convolutions[name] = _raising(layer, layers.get(f"reduce_chan_level{level}"), bf16)
            else:
                kind, rounds = DOWN if name.startswith("down") else PLAIN, bf16 and name != "patch_embed"
                self.convolutions[name] = NativeConvolution(kind, layer.weight, layer.bias, bf16=rounds)

    def embed(self, picture: Tensor, result: Tensor) -> None:
        """(h, w, in_channels) -> `result`, (h, w, dim)."""
        self._run("patch_embed", picture, result)

    def output(self, x: Tensor, result: Tensor, picture: Tensor | None, beside: Tensor | None = None) -> None:
        """(h, w, c) -> `result`, (h, w, out_channels), to which the picture is added where there is one.

        `beside`: where the back half of the channels lies, if that is a map of its own.
        """
        self._run("output", x, result, addend=picture, beside=beside)

    def down(self, name: str, x: Tensor, memory: Tensor) -> Tensor:
        """Convolve and pixel-unshuffle: (h, w, c) -> (h/2, w/2, 2c), at the beginning of `memory`."""
        height, width, channels = x.shape
        result = memory[: x.numel() // 2].view(height // 2, width // 2, 2 * channels)
        self._run(name, x, result)
        return result

    def up(self, name: str, x: Tensor, result: Tensor) -> Tensor:
        """Convolve and pixel-shuffle: (h, w, c) -> `result`, (2h, 2w, c/2)."""
        self._run(name, x, result)
        return result

    def reduce(self, name: str, x: Tensor, skip: Tensor) -> Tensor:
        """Up, join the skip, and reduce to the skip's place: (h, w, c) and (2h, 2w, c/2) -> the latter."""
        self._run(name, x, skip)
        return skip

    def join(self, name: str, x: Tensor, skip: Tensor, canvas: Tensor) -> Tensor:
        """Up, and join the skip: (h, w, c) and (2h, 2w, c/2) -> `canvas`, (2h, 2w, c).

        The skip is the back half of the canvas' memory. Going down, what is written never reaches what is yet to be
        read: y rows of the canvas are as long as 2y rows of the skip, and its row y comes after 2h + y of them.
        """
        half = skip.shape[2]
        room = skip.new_empty((2 * min(JOINED, x.shape[0]), *skip.shape[1:]))
        for a in range(0, x.shape[0], JOINED):
            b = min(a + JOINED, x.shape[0])
            kept = room[: 2 * (b - a)].copy_(skip[2 * a : 2 * b])
            self._run(name, x, canvas, rows=(a, b))
            canvas[2 * a : 2 * b, :, half:] = kept
        return canvas

    def _run(
        self,
        name: str,
        x: Tensor,
        result: Tensor,
        addend: Tensor | None = None,
        beside: Tensor | None = None,
        rows: tuple[int, int] | None = None,
    ) -> None:
        layer = self.convolutions[name]
        height, width, _ = x.shape
        struct = ConvolutionStruct(
            height=height,
            width=width,
            inputs=layer.inputs,
            outputs=layer.outputs,
            kind=layer.kind,
            x=pointer(x),
            beside=pointer(beside),
            weight=pointer(layer.weight),
            bias=pointer(layer.bias),
            out=pointer(result),
            out_row=result.stride(0),
            out_pixel=result.stride(1),
            addend=pointer(addend),
            reduce=pointer(layer.reduce),
            reduce_bias=pointer(layer.reduce_bias),
        )
        top, bottom = rows or (0, height)
        step = 2 if layer.kind == DOWN else 1
        pieces = cut((bottom - top) // step, width // step, COLUMNS // step, self.workers.size)
        self.workers.map(lambda piece: self._convolve(layer.kernels, struct, piece, top, step), pieces)

    def _convolve(self, kernels: ctypes.CDLL, struct: ConvolutionStruct, piece: Piece, top: int, step: int) -> None:
        (first, end), (left, right) = piece.rows, piece.columns
        part = PieceStruct(top=top + step * first, bottom=top + step * end, left=step * left, right=step * right)
        part.scratch = self.workspace.pointer(kernels.conv_scratch_floats(ctypes.byref(struct), ctypes.byref(part)))
        kernels.convolve(ctypes.byref(struct), ctypes.byref(part))


def _raising(layer: nn.Conv2d, reduce: nn.Module | None, bf16: bool) -> NativeConvolution:
    """The convolution before a pixel-shuffle, split by the pixel that it fills; what reduces it afterwards is linear,
    and its half for the raised channels is multiplied in."""
    weight = rearrange(layer.weight.detach().double(), "(k pixel) c y x -> pixel k c y x", pixel=4)
    bias = None if layer.bias is None else rearrange(layer.bias.detach().double(), "(k pixel) -> pixel k", pixel=4)
    if reduce is None:
        return NativeConvolution(UP, weight, bias, bf16=bf16)
    assert isinstance(reduce, nn.Conv2d)
    raised, skip = reduce.weight.detach().flatten(1).double().chunk(2, 1)
    weight = torch.einsum("ok,pkcyx->pocyx", raised, weight)
    bias = None if bias is None else bias @ raised.mT
    more = None if reduce.bias is None else padded(reduce.bias)
    return NativeConvolution(UP_REDUCED, weight, bias, (skip, more), bf16)
