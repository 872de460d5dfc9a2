"""Triton kernels for inference on a GPU: what PyTorch has no single call for, channels last, sums in float32.

Every function has a namesake in `whole_map.Plain`, written with PyTorch's own calls, which is its meaning and its
fallback. Tests hold both against each other in Triton's interpreter (TRITON_INTERPRET=1), where no GPU is needed.
Maps are dense, (b, rows, w, c); a map may have more than 2³¹ elements, a row of it not.
"""

# Triton's decorators have no types that a checker understands.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS, CHANNELS = 16, 32
"""The tile of the depth-wise kernels, walked down the rows."""
PROGRAMS = 1024
"""About how many programs a launch should have, so that a large GPU is busy: 132 multiprocessors, several each."""


@triton.jit(do_not_specialize=["pixels"])
def _layer_norm(x, weight, bias, out, pixels, channels, HAS_BIAS: tl.constexpr, ROWS: tl.constexpr, C: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, C)
    inside = column < channels
    mask = (row < pixels)[:, None] & inside[None, :]
    at = row[:, None] * channels + column[None, :]
    values = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(values, axis=1) / channels
    centred = tl.where(mask, values - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=1) / channels + 1e-5)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        b = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
        result = centred * scale[:, None] * w[None, :] + b[None, :]
    else:  # not centred (test_bias_free_norm_is_not_centred)
        result = values * scale[:, None] * w[None, :]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _taps(weight, channel, inside, channels, row: tl.constexpr):
    """The three weights of a kernel's row, for (9, channels) weights."""
    left = tl.load(weight + (3 * row) * channels + channel, mask=inside, other=0.0).to(tl.float32)
    middle = tl.load(weight + (3 * row + 1) * channels + channel, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(weight + (3 * row + 2) * channels + channel, mask=inside, other=0.0).to(tl.float32)
    return left[None, :], middle[None, :], right[None, :]


@triton.jit
def _row(x, at, channels, here, left, right):
    """A row's pixels, and their neighbours to the left and to the right; zeros beyond the map."""
    return (
        tl.load(x + at, mask=here, other=0.0),
        tl.load(x + at - channels, mask=left, other=0.0),
        tl.load(x + at + channels, mask=right, other=0.0),
    )


@triton.jit
def _dot3(left, middle, right, taps_left, taps_middle, taps_right):
    return left.to(tl.float32) * taps_left + middle.to(tl.float32) * taps_middle + right.to(tl.float32) * taps_right


@triton.jit(do_not_specialize=["rows_in", "rows_out", "offset", "width", "tall", "blocks"])
def _depthwise(
    x, weight, bias, qk, v, rows_in, rows_out, offset, width, channels, split, tall, blocks,
    HAS_BIAS: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Channels [0, split) of the result go to `qk`, the others to `v`."""
    program = tl.program_id(0)
    channel = program % blocks * C + tl.arange(0, C)
    column = program // blocks * W + tl.arange(0, W)
    first = tl.program_id(1) * tall
    last = tl.minimum(first + tall, rows_out)
    picture = tl.program_id(2).to(tl.int64)
    inside = channel < channels
    here = (column < width)[:, None] & inside[None, :]
    left = ((column > 0) & (column < width))[:, None] & inside[None, :]
    right = (column < width - 1)[:, None] & inside[None, :]
    at = column[:, None] * channels + channel[None, :]
    a0, a1, a2 = _taps(weight, channel, inside, channels, 0)
    b0, b1, b2 = _taps(weight, channel, inside, channels, 1)
    c0, c1, c2 = _taps(weight, channel, inside, channels, 2)
    start = tl.zeros((W, C), tl.float32)
    if HAS_BIAS:
        start += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)[None, :]
    to_qk = here & (channel < split)[None, :]
    to_v = here & (channel >= split)[None, :]
    at_qk = column[:, None] * split + channel[None, :]
    at_v = column[:, None] * (channels - split) + (channel - split)[None, :]
    x += picture * rows_in * width * channels
    qk += picture * rows_out * width * split
    v += picture * rows_out * width * (channels - split)
    stride = tl.cast(width, tl.int64) * channels

    y = first + offset - 1  # the row of x that is read
    valid = (y >= 0) & (y < rows_in)
    m, before, r = _row(x + y * stride, at, channels, here & valid, left & valid, right & valid)
    upper, lower = start, start  # the results of the row before y's, and of y's, as far as they are known
    for row in range(first - 1, last + 1):
        y += 1  # the next row is asked for before this one is worked on
        valid = (y >= 0) & (y < rows_in) & (row < last)
        m2, left2, r2 = _row(x + y * stride, at, channels, here & valid, left & valid, right & valid)
        if row > first:
            done = (upper + _dot3(before, m, r, c0, c1, c2)).to(qk.dtype.element_ty)
            out = tl.cast(row - 1, tl.int64) * width
            tl.store(qk + out * split + at_qk, done, mask=to_qk)
            tl.store(v + out * (channels - split) + at_v, done, mask=to_v)
        upper = lower + _dot3(before, m, r, b0, b1, b2)
        lower = start + _dot3(before, m, r, a0, a1, a2)
        m, before, r = m2, left2, r2


@triton.jit(do_not_specialize=["rows_in", "rows_out", "offset", "width", "tall", "blocks"])
def _gate(
    x, weight, bias, out, rows_in, rows_out, offset, width, hidden, tall, blocks,
    HAS_BIAS: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """GELU of the first `hidden` channels' convolution times that of the others."""
    program = tl.program_id(0)
    channel = program % blocks * C + tl.arange(0, C)
    column = program // blocks * W + tl.arange(0, W)
    first = tl.program_id(1) * tall
    last = tl.minimum(first + tall, rows_out)
    picture = tl.program_id(2).to(tl.int64)
    channels = 2 * hidden
    inside = channel < hidden
    here = (column < width)[:, None] & inside[None, :]
    left = ((column > 0) & (column < width))[:, None] & inside[None, :]
    right = (column < width - 1)[:, None] & inside[None, :]
    at = column[:, None] * channels + channel[None, :]
    at_out = column[:, None] * hidden + channel[None, :]
    a0, a1, a2 = _taps(weight, channel, inside, channels, 0)
    b0, b1, b2 = _taps(weight, channel, inside, channels, 1)
    c0, c1, c2 = _taps(weight, channel, inside, channels, 2)
    d0, d1, d2 = _taps(weight + hidden, channel, inside, channels, 0)
    e0, e1, e2 = _taps(weight + hidden, channel, inside, channels, 1)
    f0, f1, f2 = _taps(weight + hidden, channel, inside, channels, 2)
    start = tl.zeros((W, C), tl.float32)
    other = tl.zeros((W, C), tl.float32)
    if HAS_BIAS:
        start += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)[None, :]
        other += tl.load(bias + hidden + channel, mask=inside, other=0.0).to(tl.float32)[None, :]
    x += picture * rows_in * width * channels
    out += picture * rows_out * width * hidden
    stride = tl.cast(width, tl.int64) * channels

    y = first + offset - 1
    valid = (y >= 0) & (y < rows_in)
    m, before, r = _row(x + y * stride, at, channels, here & valid, left & valid, right & valid)
    n, k, s = _row(x + y * stride + hidden, at, channels, here & valid, left & valid, right & valid)
    upper, lower = start, start
    over, under = other, other
    for row in range(first - 1, last + 1):
        y += 1
        valid = (y >= 0) & (y < rows_in) & (row < last)
        m2, left2, r2 = _row(x + y * stride, at, channels, here & valid, left & valid, right & valid)
        n2, k2, s2 = _row(x + y * stride + hidden, at, channels, here & valid, left & valid, right & valid)
        if row > first:
            g = upper + _dot3(before, m, r, c0, c1, c2)
            value = over + _dot3(k, n, s, f0, f1, f2)
            gated = 0.5 * g * (1.0 + tl.math.erf(g * 0.7071067811865476)) * value
            to = out + tl.cast(row - 1, tl.int64) * width * hidden
            tl.store(to + at_out, gated.to(out.dtype.element_ty), mask=here)
        upper = lower + _dot3(before, m, r, b0, b1, b2)
        lower = start + _dot3(before, m, r, a0, a1, a2)
        over = under + _dot3(k, n, s, e0, e1, e2)
        under = other + _dot3(k, n, s, d0, d1, d2)
        m, before, r = m2, left2, r2
        n, k, s = n2, k2, s2


@triton.jit(do_not_specialize=["pixels", "share", "slots", "first_picture", "again"])
def _gram(
    qk, sums, pixels, share, slots, first_picture, again, heads, width,
    PRECISION: tl.constexpr, P: tl.constexpr, C: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Σ q kᵀ, Σ q², Σ k² of a share of the pixels: (b, slots, heads, width + 2, width), a program per block of C²."""
    slot = tl.program_id(0)
    parts = tl.cdiv(width, C)
    part = tl.program_id(1)
    head = part // (parts * parts)
    i = part // parts % parts
    j = part % parts
    picture = tl.program_id(2).to(tl.int64)
    channels = heads * width
    qi = i * C + tl.arange(0, C)
    kj = j * C + tl.arange(0, C)
    q_inside = (qi < width)[None, :]
    k_inside = (kj < width)[None, :]
    q_at = qk + head * width + qi[None, :]
    k_at = qk + channels + head * width + kj[None, :]
    begin = picture * pixels + slot * share
    end = picture * pixels + tl.minimum((slot + 1) * share, pixels)
    product = tl.zeros((C, C), tl.float32)
    qq = tl.zeros((C,), tl.float32)
    kk = tl.zeros((C,), tl.float32)
    for pixel in range(begin, end, P):
        at = (pixel + tl.arange(0, P)).to(tl.int64)
        here = (at < end)[:, None]
        q = tl.load(q_at + at[:, None] * 2 * channels, mask=here & q_inside, other=0.0)
        k = tl.load(k_at + at[:, None] * 2 * channels, mask=here & k_inside, other=0.0)
        if WIDEN:
            q = q.to(tl.float32)
            k = k.to(tl.float32)
        product += tl.dot(tl.trans(q), k, input_precision=PRECISION)
        q = q.to(tl.float32)
        k = k.to(tl.float32)
        qq += tl.sum(q * q, axis=0)
        kk += tl.sum(k * k, axis=0)
    size = (width + 2) * width
    to = sums + ((picture + first_picture) * slots + slot) * heads * size + head * size
    block = to + qi[:, None] * width + kj[None, :]
    mask = (qi < width)[:, None] & (kj < width)[None, :]
    q_mask = (qi < width) & (j == 0)
    k_mask = (kj < width) & (i == 0)
    more = again != 0  # the sums of an earlier piece of the map are there already
    tl.store(block, product + tl.load(block, mask=mask & more, other=0.0), mask=mask)
    to_q = to + width * width + qi
    tl.store(to_q, qq + tl.load(to_q, mask=q_mask & more, other=0.0), mask=q_mask)
    to_k = to + width * width + width + kj
    tl.store(to_k, kk + tl.load(to_k, mask=k_mask & more, other=0.0), mask=k_mask)


@triton.jit
def _matrix(
    sums, temperature, project, out, heads, width,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """ROWS rows of W_out · softmax(τ q̂ k̂ᵀ) for a head of a picture: (b, c, c)."""
    head = tl.program_id(1)
    picture = tl.program_id(2).to(tl.int64)
    channels = heads * width
    size = (width + 2) * width
    at = sums + (picture * heads + head) * size
    i = tl.arange(0, C)
    i_inside = i < width
    both = i_inside[:, None] & i_inside[None, :]
    product = tl.load(at + i[:, None] * width + i[None, :], mask=both, other=0.0)
    qq = tl.load(at + width * width + i, mask=i_inside, other=1.0)
    kk = tl.load(at + width * width + width + i, mask=i_inside, other=1.0)
    scale = tl.rsqrt(tl.maximum(qq, 1e-24))[:, None] * tl.rsqrt(tl.maximum(kk, 1e-24))[None, :]
    logits = product * scale * tl.load(temperature + head)
    logits = tl.where(i_inside[None, :], logits, float("-inf"))
    weights = tl.exp(logits - tl.max(logits, axis=1)[:, None])
    weights = tl.where(both, weights / tl.sum(weights, axis=1)[:, None], 0.0)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_inside = (row < channels)[:, None]
    row_inside = row_inside & i_inside[None, :]
    at = row[:, None] * channels + head * width + i[None, :]
    w = tl.load(project + at, mask=row_inside, other=0.0)
    result = tl.dot(w, weights, input_precision=PRECISION)
    tl.store(out + picture * channels * channels + at, result.to(out.dtype.element_ty), mask=row_inside)


@triton.jit(do_not_specialize=["height", "width"])
def _embed(
    pictures, weight, out, height, width, channels,
    INPUTS: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """A 3×3 convolution of pictures (b, INPUTS, h, w): a program makes W pixels of a row."""
    column = tl.program_id(0) * W + tl.arange(0, W)
    y = tl.program_id(1)
    picture = tl.program_id(2).to(tl.int64)
    channel = tl.arange(0, C)
    inside = channel < channels
    plane = tl.cast(height, tl.int64) * width
    sums = tl.zeros((W, C), tl.float32)
    for tap in tl.static_range(9):
        row = y + tap // 3 - 1
        at = column + tap % 3 - 1
        here = (at >= 0) & (at < width) & (row >= 0) & (row < height)
        for i in tl.static_range(INPUTS):
            source = pictures + (picture * INPUTS + i) * plane + tl.cast(row, tl.int64) * width
            values = tl.load(source + at, mask=here, other=0.0)
            w = tl.load(weight + (tap * INPUTS + i) * channels + channel, mask=inside, other=0.0)
            sums += values[:, None] * w[None, :]
    to = out + (picture * plane + tl.cast(y, tl.int64) * width) * channels
    mask = (column < width)[:, None] & inside[None, :]
    tl.store(to + column[:, None] * channels + channel[None, :], sums.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["height", "width"])
def _output(
    x, weight, bias, pictures, out, height, width, channels, outputs,
    HAS_BIAS: tl.constexpr, RESIDUAL: tl.constexpr, PRECISION: tl.constexpr,
    W: tl.constexpr, C: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """A 3×3 convolution of a map to planes, and the pictures added: a program makes W pixels of a row."""
    column = tl.program_id(0) * W + tl.arange(0, W)
    y = tl.program_id(1)
    picture = tl.program_id(2).to(tl.int64)
    channel = tl.arange(0, C)
    inside = channel < channels
    output = tl.arange(0, OUTPUTS)
    plane = tl.cast(height, tl.int64) * width
    sums = tl.zeros((W, OUTPUTS), tl.float32)
    if HAS_BIAS:
        sums += tl.load(bias + output, mask=output < outputs, other=0.0)[None, :]
    for tap in range(9):
        row = y + tap // 3 - 1
        at = column + tap % 3 - 1
        here = (at >= 0) & (at < width) & (row >= 0) & (row < height)
        source = x + (picture * plane + tl.cast(row, tl.int64) * width) * channels
        values = tl.load(
            source + at[:, None] * channels + channel[None, :], mask=here[:, None] & inside[None, :], other=0.0
        ).to(tl.float32)
        w = tl.load(
            weight + (tap * channels + channel[:, None]) * outputs + output[None, :],
            mask=inside[:, None] & (output < outputs)[None, :], other=0.0,
        )  # fmt: skip
        sums += tl.dot(values, w, input_precision=PRECISION)
    to = (picture * outputs + output[None, :]) * plane + tl.cast(y, tl.int64) * width + column[:, None]
    mask = (column < width)[:, None] & (output < outputs)[None, :]
    if RESIDUAL:
        sums += tl.load(pictures + to, mask=mask, other=0.0)
    tl.store(out + to, sums, mask=mask)


def _power(number: int, least: int = 16) -> int:
    return max(least, triton.next_power_of_2(number))


def _tall(rows: int, others: int) -> int:
    """Rows of a tile: as many as leave enough programs, since each tile reads two more."""
    return max(4, min(32, rows * others // PROGRAMS))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """LayerNorm over the last axis, or the bias-free one: (…, c) -> the same."""
    out = torch.empty_like(x)
    channels = x.shape[-1]
    pixels = x.numel() // channels
    block = _power(channels)
    rows = max(1, 4096 // block)
    grid = (triton.cdiv(pixels, rows),)
    _layer_norm[grid](x, weight, weight if bias is None else bias, out, pixels, channels, bias is not None, rows, block)
    return out


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, qk: Tensor, v: Tensor, offset: int) -> None:
    """A depth-wise 3×3 convolution by (9, c) of x (b, rows, w, c): to `qk` (b, n, w, 2c/3) and `v` (b, n, w, c/3).

    Row 0 of the result lies over row `offset` of x; there are zeros around x.
    """
    batch, rows_in, width, channels = x.shape
    rows_out, blocks = qk.shape[1], triton.cdiv(channels, CHANNELS)
    across = blocks * triton.cdiv(width, COLUMNS)
    tall = _tall(rows_out, across * batch)
    grid = (across, triton.cdiv(rows_out, tall), batch)
    _depthwise[grid](
        x, weight, weight if bias is None else bias, qk, v, rows_in, rows_out, offset, width, channels, qk.shape[3],
        tall, blocks, bias is not None, COLUMNS, CHANNELS,
    )  # fmt: skip


def gate(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, offset: int) -> None:
    """GELU of one half of x's depth-wise 3×3 convolution times the other: (b, rows, w, 2h) -> `out`, (b, n, w, h)."""
    batch, rows_in, width, channels = x.shape
    rows_out, blocks = out.shape[1], triton.cdiv(channels // 2, CHANNELS)
    across = blocks * triton.cdiv(width, COLUMNS)
    tall = _tall(rows_out, across * batch)
    grid = (across, triton.cdiv(rows_out, tall), batch)
    _gate[grid](
        x, weight, weight if bias is None else bias, out, rows_in, rows_out, offset, width, channels // 2, tall, blocks,
        bias is not None, COLUMNS, CHANNELS,
    )  # fmt: skip


def gram(qk: Tensor, sums: Tensor, first: int, again: bool) -> None:
    """Sums of q and k, (b, n, w, 2c), to pictures `first`… of `sums`, (B, slots, heads, c/heads + 2, c/heads).

    `again` adds to what is there. A slot holds the sums of a share of the pixels; those left over are for other sizes.
    """
    batch, rows, columns, _ = qk.shape
    slots, heads, width = sums.shape[1], sums.shape[2], sums.shape[4]
    exact = qk.dtype == torch.float32
    block = min(_power(width), 64 if exact else 128)
    share = -(-triton.cdiv(rows * columns, slots) // 64) * 64
    parts = triton.cdiv(width, block) ** 2
    _gram[(slots, heads * parts, batch)](
        qk, sums, rows * columns, share, slots, first, int(again), heads, width,
        "ieee" if exact else "tf32", 32 if exact else 64, block, not qk.is_cuda,  # the interpreter has no dot of bf16
        num_warps=8 if block > 64 else 4,
    )  # fmt: skip


def matrix(sums: Tensor, temperature: Tensor, project: Tensor, dtype: torch.dtype) -> Tensor:
    """`gram`'s slots added up, (b, heads, c/heads + 2, c/heads), τ (heads) and W_out (c, c) -> M, (b, c, c)."""
    batch, heads, _, width = sums.shape
    channels = heads * width
    out = torch.empty((batch, channels, channels), dtype=dtype, device=sums.device)
    grid = (triton.cdiv(channels, 16), heads, batch)
    precision = "ieee" if dtype == torch.float32 else "tf32"
    block = _power(width)
    _matrix[grid](
        sums, temperature, project, out, heads, width, precision, 16, block, num_warps=16 if block > 64 else 8
    )
    return out


def embed(pictures: Tensor, weight: Tensor, out: Tensor) -> None:
    """A 3×3 convolution by (9, inputs, c) of dense float32 pictures (b, inputs, h, w) -> `out`, (b, h, w, c)."""
    count, inputs, height, width = pictures.shape
    block = _power(out.shape[3])
    across = max(16, 2048 // block)
    grid = (triton.cdiv(width, across), height, count)
    _embed[grid](pictures, weight, out, height, width, out.shape[3], inputs, across, block)


def output(x: Tensor, weight: Tensor, bias: Tensor | None, pictures: Tensor, out: Tensor, residual: bool) -> None:
    """A 3×3 convolution by (9, c, outputs) of x (b, h, w, c), with the `pictures` added where `residual` says so:
    -> `out`, (b, outputs, h, w) in float32."""
    count, height, width, channels = x.shape
    precision = "ieee" if x.dtype == torch.float32 else "tf32"
    grid = (triton.cdiv(width, 64), height, count)
    _output[grid](
        x, weight, weight if bias is None else bias, pictures, out, height, width, channels, out.shape[1],
        bias is not None, residual, precision, 64, _power(channels), _power(out.shape[1]),
    )  # fmt: skip
