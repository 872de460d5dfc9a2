"""A block's halves in C, for training on a CPU: nothing but their input is kept for the backward pass.

MDTA is two of them, because its sums look at the whole map (section 3.1): `attention_sums`, and `residual_half` with
the matrix made from them; GDFN is a third (section 3.2). All have gradients of their own (native/training.c), in
float32.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from restormer_cli.native.build import library
from restormer_cli.native.layouts import padded, panels, pointer
from restormer_cli.native.workers import WorkerPool

SUMS, MIX, GATE = range(3)
COLUMNS = 64
"""Columns of a part at most: three of its rows, widened, are to fit the cache of a core."""
ROWS = 16
"""Rows that a part has at least where the map has them, so that little is computed twice."""
NUMBERS = ("height", "width", "channels", "kind", "heads", "hidden", "inner", "centred")
WEIGHTS = (
    *("first", "first_bias", "taps", "taps_bias", "second", "second_bias"),
    *("first_back", "taps_back", "second_back"),
)


class HalfStruct(ctypes.Structure):
    """`Half` of training.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in NUMBERS),
        *((name, ctypes.c_void_p) for name in WEIGHTS),
    )


class PartStruct(ctypes.Structure):
    """`Part` of training.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("top", "bottom", "left", "right")),
        *((name, ctypes.c_void_p) for name in ("x", "dy", "out", "of_q", "of_k", "twice_qq", "twice_kk")),
        *((name, ctypes.c_void_p) for name in ("first", "first_bias", "taps", "taps_bias", "second", "qq", "kk")),
        *((name, ctypes.c_void_p) for name in ("second_own", "second_back_own", "scratch")),
    )


def attention_sums(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, taps_bias: Tensor | None, heads: int, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over pixels of q and k: x (b, h, w, c) -> Σ q kᵀ (b, heads, d, d), Σ q², Σ k² (b, heads, d).

    The weight (2c, c) and bias (2c) are q's and k's, with the norm's multiplied in; taps (2c, 9).
    """
    return _Sums.apply(x, weight, bias, taps, taps_bias, heads, centred)


def residual_half(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, taps_bias: Tensor | None, second: Tensor,
    second_bias: Tensor | None, kind: int, centred: bool,
) -> Tensor:  # fmt: skip
    """x + W tail(depth-wise(V norm(x))): (b, h, w, c) -> the same.

    For MIX the tail is nothing and W is each picture's, (b, c, c); for GATE it is GELU(gate) · value, the halves of
    V's outputs, and W is (1, c, hidden). V (outputs, c) and its bias have the norm's multiplied in; taps (outputs, 9).
    """
    return _Residual.apply(x, weight, bias, taps, taps_bias, second, second_bias, kind, centred)


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, weight, bias, taps, taps_bias, second, second_bias, ctx.kind, ctx.centred = inputs
        ctx.save_for_backward(x, weight, bias, taps, taps_bias, second)
        ctx.second_bias = second_bias is not None
        if _without_numbers(x):
            return torch.empty_like(x)
        return _residual(x.contiguous(), weight, bias, taps, taps_bias, second, second_bias, ctx.kind, ctx.centred)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, taps, taps_bias, second = ctx.saved_tensors
        found = _backward(x, dy, weight, bias, taps, taps_bias, second, None, ctx.kind, 1, ctx.centred)
        return *found, dy.sum((0, 1, 2)) if ctx.second_bias else None, None, None


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, bias, taps, taps_bias, ctx.heads, ctx.centred = inputs
        ctx.save_for_backward(x, weight, bias, taps, taps_bias)
        count, d = x.shape[0], x.shape[3] // ctx.heads
        if _without_numbers(x):
            squares = x.new_empty(count, ctx.heads, d)
            return x.new_empty(count, ctx.heads, d, d), squares, squares.clone()
        return _sums(x.contiguous(), weight, bias, taps, taps_bias, ctx.heads, ctx.centred)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *sums: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, taps, taps_bias = ctx.saved_tensors
        found = _backward(x, None, weight, bias, taps, taps_bias, None, sums, SUMS, ctx.heads, ctx.centred)
        return *found, None, None


def _without_numbers(x: Tensor) -> bool:
    """Whether this is one of `FakeTensorMode`, by which memory is estimated."""
    return hasattr(x, "fake_mode")


@dataclass
class _Laid:
    """Weights as the kernels want them; `tensors` keeps alive what `struct` points to."""

    struct: HalfStruct
    tensors: list[Tensor]
    parts: int
    inner: int
    hidden: int


def _lay_out(
    x: Tensor, kind: int, heads: int, centred: bool, weight: Tensor, bias: Tensor | None, taps: Tensor,
    taps_bias: Tensor | None, second: Tensor | None, second_bias: Tensor | None, back: bool,
) -> _Laid:  # fmt: skip
    c, parts = x.shape[3], 1 if kind == MIX else 2
    inner = len(weight) // parts
    hidden = _whole(inner)

    def in_parts(rows: Tensor) -> Tensor:  # (…, parts · inner) -> (…, parts · hidden)
        return torch.cat([padded(part) for part in rows.chunk(parts, -1)], -1).contiguous()

    wide_weight = in_parts(weight.mT).mT
    of_taps = in_parts(taps.mT)
    tensors: dict[str, Tensor | None] = {
        "first": panels(wide_weight),
        "first_bias": None if bias is None else in_parts(bias),
        "taps": of_taps,
        "taps_bias": None if taps_bias is None else in_parts(taps_bias),
        "second_bias": None if second_bias is None else padded(second_bias),
    }
    if kind == GATE:
        assert second is not None
        tensors["second"] = panels(second)
    if back:
        tensors["first_back"] = panels(wide_weight.mT)
        tensors["taps_back"] = of_taps.flip(0).contiguous()
        if kind == GATE:
            assert second is not None
            tensors["second_back"] = panels(padded(second).mT)
    struct = HalfStruct(
        height=x.shape[1], width=x.shape[2], channels=c, kind=kind, heads=heads, hidden=hidden, inner=inner,
        centred=centred, **{name: pointer(tensor) for name, tensor in tensors.items()},
    )  # fmt: skip
    return _Laid(struct, [tensor for tensor in tensors.values() if tensor is not None], parts, inner, hidden)


Place = tuple[int, int, int, int, int]
"""A part: picture, top, bottom, left, right."""


def _places(shape: torch.Size, threads: int) -> list[Place]:
    """The parts of a batch, at least two for each thread where the maps are large enough."""
    count, height, width = shape[:3]
    across = -(-width // COLUMNS)
    down = max(1, min(-(-2 * threads // (count * across)) if threads > 1 else 1, height // ROWS))
    rows, columns = (
        list(pairwise(round(index * side / pieces) for index in range(pieces + 1)))
        for side, pieces in ((height, down), (width, across))
    )
    return [(picture, *span, *columns_) for picture in range(count) for span in rows for columns_ in columns]


@cache
def _pool() -> WorkerPool:
    return WorkerPool()


def _run(places: list[Place], job: Callable[[int, list[int]], None]) -> None:
    """`job(group, its places)`, a group for each thread: equal numbers of threads add up in equal order."""
    groups = list(_groups(len(places)))
    _pool().map(lambda item: job(*item), list(enumerate(groups)))


def _groups(count: int) -> Iterator[list[int]]:
    threads = min(count, _pool().size)
    for first in range(threads):
        yield list(range(first, count, threads))


def _part(x: Tensor, place: Place, **pointers: Any) -> PartStruct:
    picture, top, bottom, left, right = place
    return PartStruct(top=top, bottom=bottom, left=left, right=right, x=x[picture].data_ptr(), **pointers)


def _call(name: str, laid: _Laid, part: PartStruct, scratch: list[Tensor]) -> None:
    kernels = _kernels()
    floats = kernels.half_scratch_floats(ctypes.byref(laid.struct), ctypes.byref(part))
    if not scratch or scratch[0].numel() < floats:
        scratch[:] = [torch.empty(floats)]
    part.scratch = scratch[0].data_ptr()
    getattr(kernels, name)(ctypes.byref(laid.struct), ctypes.byref(part))


def _tall(rows: int) -> int:
    return _kernels().tall_rows(rows)


def _whole(count: int) -> int:
    return count + -count % _kernels().lanes()


def _kernels() -> ctypes.CDLL:
    kernels = library()
    assert kernels is not None  # or nobody would come here
    return kernels


def _residual(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, taps_bias: Tensor | None, second: Tensor,
    second_bias: Tensor | None, kind: int, centred: bool,
) -> Tensor:  # fmt: skip
    laid = _lay_out(x, kind, 1, centred, weight, bias, taps, taps_bias, second, second_bias, back=False)
    own = panels(second) if kind == MIX else None
    y = torch.empty_like(x)
    places = _places(x.shape, _pool().size)

    def job(_: int, members: list[int]) -> None:
        scratch: list[Tensor] = []
        for place in (places[member] for member in members):
            mine = None if own is None else own[place[0]].data_ptr()
            _call("half_forward", laid, _part(x, place, out=y[place[0]].data_ptr(), second_own=mine), scratch)

    _run(places, job)
    return y


def _sums(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, taps_bias: Tensor | None, heads: int, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    laid = _lay_out(x, SUMS, heads, centred, weight, bias, taps, taps_bias, None, None, back=False)
    count, c = x.shape[0], x.shape[3]
    d = c // heads
    places = _places(x.shape, _pool().size)
    qk = torch.zeros(len(places), heads, _tall(d), _whole(d))
    squares = torch.zeros(2, len(places), laid.hidden)

    def job(_: int, members: list[int]) -> None:
        scratch: list[Tensor] = []
        for member in members:
            part = _part(
                x, places[member], second=qk[member].data_ptr(), qq=squares[0, member].data_ptr(),
                kk=squares[1, member].data_ptr(),
            )  # fmt: skip
            _call("half_forward", laid, part, scratch)

    _run(places, job)
    totals = _by_picture(qk[:, :, :d, :d], count)
    qq, kk = (_by_picture(part[:, :c], count).unflatten(1, (heads, d)) for part in squares)
    return totals, qq, kk


def _by_picture(of_parts: Tensor, pictures: int) -> Tensor:
    """The sums over each picture's parts, of which all pictures have as many, one after the other."""
    return of_parts.unflatten(0, (pictures, -1)).sum(1)


class _Gradients:
    """What the parts add to: a set for each group of them; matrices of the pictures' own, one for each part."""

    def __init__(self, laid: _Laid, channels: int, groups: int, parts: int) -> None:
        wide, self.laid, self.channels = laid.parts * laid.hidden, laid, channels
        self.by_part = laid.struct.kind == MIX
        self.first, self.first_bias = torch.zeros(groups, _tall(wide), _whole(channels)), torch.zeros(groups, wide)
        self.taps, self.taps_bias = torch.zeros(groups, 9, wide), torch.zeros(groups, wide)
        self.second = torch.zeros(parts if self.by_part else groups, _tall(laid.inner), _whole(channels))

    def pointers(self, group: int, member: int) -> dict[str, int]:
        found = {name: getattr(self, name)[group] for name in ("first", "first_bias", "taps", "taps_bias")}
        found["second"] = self.second[member if self.by_part else group]
        return {name: tensor.data_ptr() for name, tensor in found.items()}

    def of_parameters(self) -> list[Tensor]:
        """Of weight, bias, taps and taps_bias, without what was padded."""

        def of_parts(rows: Tensor, axis: int) -> Tensor:
            parts = rows.chunk(self.laid.parts, axis)
            return torch.cat([part.narrow(axis, 0, self.laid.inner) for part in parts], axis)

        wide = self.laid.parts * self.laid.hidden
        return [
            of_parts(self.first.sum(0)[:wide, : self.channels], 0),
            of_parts(self.first_bias.sum(0), 0),
            of_parts(self.taps.sum(0), 1).mT.contiguous(),
            of_parts(self.taps_bias.sum(0), 0),
        ]

    def of_second(self, pictures: int) -> Tensor:
        found = self.second[:, : self.laid.inner, : self.channels]
        return _by_picture(found, pictures if self.by_part else 1).mT.contiguous()


def _backward(
    x: Tensor, dy: Tensor | None, weight: Tensor, bias: Tensor | None, taps: Tensor, taps_bias: Tensor | None,
    second: Tensor | None, sums: Sequence[Tensor] | None, kind: int, heads: int, centred: bool,
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x, weight, bias, taps, taps_bias and, where it is one, of `second`; from dy or those of the sums."""
    if _without_numbers(x):
        asked = (x, weight, bias, taps, taps_bias) + (() if second is None else (second,))
        return [None if tensor is None else torch.empty_like(tensor) for tensor in asked]
    x, dy = x.contiguous(), None if dy is None else dy.contiguous()
    laid = _lay_out(x, kind, heads, centred, weight, bias, taps, taps_bias, second, None, back=True)
    places = _places(x.shape, _pool().size)
    gradients = _Gradients(laid, x.shape[3], min(len(places), _pool().size), len(places))
    dx = torch.empty_like(x)
    own: dict[str, Tensor] = {} if dy is None else {"dy": dy}  # of each picture
    if sums is not None:
        own |= {"of_q": panels(sums[0]), "of_k": panels(sums[0].mT)}
        own |= {
            name: padded(2 * part.flatten(1)) for name, part in zip(("twice_qq", "twice_kk"), sums[1:], strict=True)
        }
    elif kind == MIX and second is not None:
        own |= {"second_own": panels(second), "second_back_own": panels(padded(second).mT)}

    def job(group: int, members: list[int]) -> None:
        scratch: list[Tensor] = []
        for member in members:
            picture = places[member][0]
            of_picture = {name: tensor[picture].data_ptr() for name, tensor in {**own, "out": dx}.items()}
            part = _part(x, places[member], **of_picture, **gradients.pointers(group, member))
            _call("half_backward", laid, part, scratch)

    _run(places, job)
    of_weight, of_bias, of_taps, of_taps_bias = gradients.of_parameters()
    found = [dx, of_weight, None if bias is None else of_bias, of_taps, None if taps_bias is None else of_taps_bias]
    return found if second is None else [*found, gradients.of_second(len(x))]
