"""A block's halves in C, for training on a CPU: nothing but their input is kept for the backward pass.

MDTA is two of them, because its sums look at the whole map (section 3.1): `attention_sums`, and `residual_half` with
the matrix made from them; GDFN is a third (section 3.2). All have gradients of their own (native/training.c), in
float32; with `bf16` the factors of products are rounded to it, and nothing else.
"""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
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
    *("first", "second", "first_back", "second_back"),
    *("first_bias", "taps", "taps_bias", "second_bias", "taps_back"),
)
OF_PICTURES = ("of_q", "of_k", "second_own", "second_back_own", "twice_qq", "twice_kk")
OF_THREADS = ("first", "first_bias", "taps", "taps_bias", "second")
OF_PARTS = ("own", "qq", "kk")


class HalfStruct(ctypes.Structure):
    """`Half` of training.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in NUMBERS),
        *((name, ctypes.c_void_p) for name in WEIGHTS),
    )


class BatchStruct(ctypes.Structure):
    """`Batch` of training.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("pictures", "down", "across", "start", "step")),
        *((name, ctypes.c_void_p) for name in ("x", "dy", "out", *OF_PICTURES, *OF_THREADS, *OF_PARTS, "scratch")),
    )


def attention_sums(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, taps_bias: Tensor | None, heads: int, centred: bool,
    bf16: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Sums over pixels of q and k: x (b, h, w, c) -> Σ q kᵀ (b, heads, d, d), Σ q², Σ k² (b, heads, d).

    The weight (2c, c) and bias (2c) are q's and k's, with the norm's multiplied in; taps (2c, 9).
    """
    return _Sums.apply(x, weight, bias, taps, taps_bias, heads, centred, bf16)


def residual_half(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, taps_bias: Tensor | None, second: Tensor,
    second_bias: Tensor | None, kind: int, centred: bool, bf16: bool = False,
) -> Tensor:  # fmt: skip
    """x + W tail(depth-wise(V norm(x))): (b, h, w, c) -> the same.

    For MIX the tail is nothing and W is each picture's, (b, c, c); for GATE it is GELU(gate) · value, the halves of
    V's outputs, and W is (1, c, hidden). V (outputs, c) and its bias have the norm's multiplied in; taps (outputs, 9).
    """
    return _Residual.apply(x, weight, bias, taps, taps_bias, second, second_bias, kind, centred, bf16)


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, weight, bias, taps, taps_bias, second, second_bias, ctx.kind, ctx.centred, ctx.bf16 = inputs
        ctx.save_for_backward(x, weight, bias, taps, taps_bias, second)
        ctx.second_bias = second_bias is not None
        if _without_numbers(x):
            return torch.empty_like(x)
        return _residual(
            x.contiguous(), weight, bias, taps, taps_bias, second, second_bias, ctx.kind, ctx.centred, ctx.bf16
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, taps, taps_bias, second = ctx.saved_tensors
        found = _backward(x, dy, weight, bias, taps, taps_bias, second, None, ctx.kind, 1, ctx.centred, ctx.bf16)
        return *found, dy.sum((0, 1, 2)) if ctx.second_bias else None, None, None, None


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, bias, taps, taps_bias, ctx.heads, ctx.centred, ctx.bf16 = inputs
        ctx.save_for_backward(x, weight, bias, taps, taps_bias)
        count, d = x.shape[0], x.shape[3] // ctx.heads
        if _without_numbers(x):
            squares = x.new_empty(count, ctx.heads, d)
            return x.new_empty(count, ctx.heads, d, d), squares, squares.clone()
        return _sums(x.contiguous(), weight, bias, taps, taps_bias, ctx.heads, ctx.centred, ctx.bf16)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *sums: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, taps, taps_bias = ctx.saved_tensors
        found = _backward(x, None, weight, bias, taps, taps_bias, None, sums, SUMS, ctx.heads, ctx.centred, ctx.bf16)
        return *found, None, None, None


def _without_numbers(x: Tensor) -> bool:
    """Whether this is one of `FakeTensorMode`, by which memory is estimated."""
    return hasattr(x, "fake_mode")


@dataclass
class _Laid:
    """Weights as the kernels want them; `tensors` keeps alive what `struct` points to."""

    struct: HalfStruct
    tensors: list[Tensor]
    bf16: bool
    parts: int
    inner: int
    hidden: int


def _lay_out(
    x: Tensor, kind: int, heads: int, centred: bool, weight: Tensor, bias: Tensor | None, taps: Tensor,
    taps_bias: Tensor | None, second: Tensor | None, second_bias: Tensor | None, bf16: bool, back: bool,
) -> _Laid:  # fmt: skip
    c, parts = x.shape[3], 1 if kind == MIX else 2
    inner = len(weight) // parts
    hidden = _whole(inner)

    def in_parts(rows: Tensor) -> Tensor:  # (…, parts · inner) -> (…, parts · hidden)
        if inner == hidden:
            return rows.detach().to(torch.float32).contiguous()
        return torch.cat([padded(part) for part in rows.chunk(parts, -1)], -1)

    wide_weight = weight if inner == hidden else in_parts(weight.mT).mT
    of_taps = in_parts(taps.mT)
    tensors: dict[str, Tensor | None] = {
        "first": panels(wide_weight, bf16),
        "first_bias": None if bias is None else in_parts(bias),
        "taps": of_taps,
        "taps_bias": None if taps_bias is None else in_parts(taps_bias),
        "second_bias": None if second_bias is None else padded(second_bias),
    }
    if kind == GATE:
        assert second is not None
        tensors["second"] = panels(second, bf16)
    if back:
        tensors["first_back"] = panels(wide_weight.mT, bf16)
        tensors["taps_back"] = of_taps.flip(0).contiguous()
        if kind == GATE:
            assert second is not None
            tensors["second_back"] = panels(padded(second).mT, bf16)
    struct = HalfStruct(
        height=x.shape[1], width=x.shape[2], channels=c, kind=kind, heads=heads, hidden=hidden, inner=inner,
        centred=centred, **{name: pointer(tensor) for name, tensor in tensors.items()},
    )  # fmt: skip
    return _Laid(struct, [tensor for tensor in tensors.values() if tensor is not None], bf16, parts, inner, hidden)


@dataclass
class _Cut:
    """A batch's parts: each picture in `down` by `across`, shared by `threads` threads."""

    pictures: int
    down: int
    across: int
    threads: int

    @classmethod
    def of(cls, shape: torch.Size) -> "_Cut":
        """At least two parts for each thread where the maps are large enough."""
        count, height, width = shape[:3]
        most = _pool().size
        across = -(-width // COLUMNS)
        down = max(1, min(-(-2 * most // (count * across)) if most > 1 else 1, height // ROWS))
        return cls(count, down, across, min(most, count * down * across))

    @property
    def parts(self) -> int:
        return self.pictures * self.down * self.across

    def batch(self, **pointers: int | None) -> BatchStruct:
        """All parts."""
        return BatchStruct(pictures=self.pictures, down=self.down, across=self.across, start=0, step=1, **pointers)


@cache
def _pool() -> WorkerPool:
    return WorkerPool()


def _run(name: str, laid: "_Laid", cut: _Cut, batch: BatchStruct, of_threads: dict[str, Tensor] | None = None) -> None:
    """A kernel over all parts, on every thread its own: equal numbers of threads add up in equal order."""
    kernels = _kernels(laid.bf16)
    kernel, half = getattr(kernels, name), ctypes.byref(laid.struct)
    floats = kernels.half_scratch_floats(half, ctypes.byref(batch))
    scratch = torch.empty(cut.threads, floats)

    def job(thread: int) -> None:
        mine = BatchStruct.from_buffer_copy(batch)
        mine.start, mine.step, mine.scratch = thread, cut.threads, scratch[thread].data_ptr()
        for field, tensor in (of_threads or {}).items():
            setattr(mine, field, tensor[thread].data_ptr())
        kernel(half, ctypes.byref(mine))

    _pool().map(job, range(cut.threads))


def _tall(rows: int) -> int:
    return _kernels().tall_rows(rows)


def _whole(count: int) -> int:
    return count + -count % _kernels().lanes()


def _kernels(bf16: bool = False) -> ctypes.CDLL:
    kernels = library(bf16=bf16)
    assert kernels is not None  # or nobody would come here
    return kernels


def _residual(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, taps_bias: Tensor | None, second: Tensor,
    second_bias: Tensor | None, kind: int, centred: bool, bf16: bool,
) -> Tensor:  # fmt: skip
    laid = _lay_out(x, kind, 1, centred, weight, bias, taps, taps_bias, second, second_bias, bf16, back=False)
    own = panels(second, bf16) if kind == MIX else None
    y, cut = torch.empty_like(x), _Cut.of(x.shape)
    _run("half_forward", laid, cut, cut.batch(x=x.data_ptr(), out=y.data_ptr(), second_own=pointer(own)))
    return y


def _sums(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, taps_bias: Tensor | None, heads: int, centred: bool,
    bf16: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    laid = _lay_out(x, SUMS, heads, centred, weight, bias, taps, taps_bias, None, None, bf16, back=False)
    c, cut = x.shape[3], _Cut.of(x.shape)
    d = c // heads
    qk = torch.zeros(cut.parts, heads, _tall(d), _whole(d))
    squares = torch.zeros(2, cut.parts, laid.hidden)
    batch = cut.batch(x=x.data_ptr(), own=qk.data_ptr(), qq=squares[0].data_ptr(), kk=squares[1].data_ptr())
    _run("half_forward", laid, cut, batch)
    totals = _by_picture(qk[:, :, :d, :d], cut.pictures)
    qq, kk = (_by_picture(part[:, :c], cut.pictures).unflatten(1, (heads, d)) for part in squares)
    return totals, qq, kk


def _by_picture(of_parts: Tensor, pictures: int) -> Tensor:
    """The sums over each picture's parts, of which all pictures have as many, one after the other."""
    return of_parts.unflatten(0, (pictures, -1)).sum(1)


class _Gradients:
    """What the parts add to: a set for each thread; matrices of the pictures' own, one for each part."""

    def __init__(self, laid: _Laid, channels: int, cut: _Cut) -> None:
        wide, self.laid, self.channels, self.pictures = laid.parts * laid.hidden, laid, channels, cut.pictures
        self.wide = wide
        columns = _whole(channels)
        self.shapes = {"first": (_tall(wide), columns), "first_bias": (wide,), "taps": (9, wide), "taps_bias": (wide,)}
        second, kind = (_tall(laid.inner), columns), laid.struct.kind
        if kind == GATE:
            self.shapes["second"] = second
        self.own = torch.zeros(cut.parts, *second) if kind == MIX else None
        self.all = torch.zeros(cut.threads, sum(math.prod(shape) for shape in self.shapes.values()))

    def of_threads(self) -> dict[str, Tensor]:
        """Where each thread's begin."""
        return dict(zip(self.shapes, self._split(self.all), strict=True))

    def found(self) -> tuple[list[Tensor], Tensor | None]:
        """Of weight, bias, taps and taps_bias, without what was padded; of the second product's weight, if any."""
        first, first_bias, taps, taps_bias, *second = (
            flat.view(shape) for flat, shape in zip(self._split(self.all.sum(0)), self.shapes.values(), strict=True)
        )
        of_parameters = [
            self._of_parts(first[: self.wide, : self.channels], 0),
            self._of_parts(first_bias, 0),
            self._of_parts(taps, 1).mT.contiguous(),
            self._of_parts(taps_bias, 0),
        ]
        of_second = second[0][None] if second else None if self.own is None else _by_picture(self.own, self.pictures)
        if of_second is not None:
            of_second = of_second[:, : self.laid.inner, : self.channels].mT.contiguous()
        return of_parameters, of_second

    def _split(self, flat: Tensor) -> tuple[Tensor, ...]:
        return flat.split([math.prod(shape) for shape in self.shapes.values()], -1)

    def _of_parts(self, rows: Tensor, axis: int) -> Tensor:
        if self.laid.inner == self.laid.hidden:
            return rows
        return torch.cat([part.narrow(axis, 0, self.laid.inner) for part in rows.chunk(self.laid.parts, axis)], axis)


def _backward(
    x: Tensor, dy: Tensor | None, weight: Tensor, bias: Tensor | None, taps: Tensor, taps_bias: Tensor | None,
    second: Tensor | None, sums: Sequence[Tensor] | None, kind: int, heads: int, centred: bool, bf16: bool,
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x, weight, bias, taps, taps_bias and, where it is one, of `second`; from dy or those of the sums."""
    if _without_numbers(x):
        asked = (x, weight, bias, taps, taps_bias) + (() if second is None else (second,))
        return [None if tensor is None else torch.empty_like(tensor) for tensor in asked]
    x, dy = x.contiguous(), None if dy is None else dy.contiguous()
    laid = _lay_out(x, kind, heads, centred, weight, bias, taps, taps_bias, second, None, bf16, back=True)
    dx, cut = torch.empty_like(x), _Cut.of(x.shape)
    gradients = _Gradients(laid, x.shape[3], cut)
    own: dict[str, Tensor | None] = {"x": x, "dy": dy, "out": dx, "own": gradients.own}
    if sums is not None:
        own |= {"of_q": panels(sums[0], bf16), "of_k": panels(sums[0].mT, bf16)}
        own |= {
            name: padded(2 * part.flatten(1)) for name, part in zip(("twice_qq", "twice_kk"), sums[1:], strict=True)
        }
    elif kind == MIX and second is not None:
        own |= {"second_own": panels(second, bf16), "second_back_own": panels(padded(second).mT, bf16)}
    batch = cut.batch(**{name: pointer(tensor) for name, tensor in own.items()})
    _run("half_backward", laid, cut, batch, gradients.of_threads())
    (of_weight, of_bias, of_taps, of_taps_bias), of_second = gradients.found()
    found = [dx, of_weight, None if bias is None else of_bias, of_taps, None if taps_bias is None else of_taps_bias]
    return found if second is None else [*found, of_second]
