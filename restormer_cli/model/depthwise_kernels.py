"""Triton's side of `model.depthwise`: both kernels work on runs of numbers of a row, (w, c) flattened."""

import triton
import triton.language as tl


@triton.jit
def convolve_runs(x, taps, result, height, length, channels, RUN: tl.constexpr, ROWS: tl.constexpr):
    """`result` = the depth-wise convolution of x (b, height, length = w·c) by `taps` (9, c), float32.

    A program goes down ROWS rows of a run: what a row of x adds to the results above, beside and below it is held in
    registers, so that each number of x is read three times (shifted), from the cache, and each result written once.
    """
    place = tl.program_id(0) * RUN + tl.arange(0, RUN)
    inside = place < length
    left, right = inside & (place >= channels), place + channels < length
    tap = taps + place % channels
    t0 = tl.load(tap, mask=inside, other=0.0)
    t1 = tl.load(tap + channels, mask=inside, other=0.0)
    t2 = tl.load(tap + 2 * channels, mask=inside, other=0.0)
    t3 = tl.load(tap + 3 * channels, mask=inside, other=0.0)
    t4 = tl.load(tap + 4 * channels, mask=inside, other=0.0)
    t5 = tl.load(tap + 5 * channels, mask=inside, other=0.0)
    t6 = tl.load(tap + 6 * channels, mask=inside, other=0.0)
    t7 = tl.load(tap + 7 * channels, mask=inside, other=0.0)
    t8 = tl.load(tap + 8 * channels, mask=inside, other=0.0)

    first = tl.program_id(1) * ROWS
    picture = tl.program_id(2).to(tl.int64) * height * length
    done = tl.zeros((RUN,), tl.float32)  # of the row above the one being read: complete once that one is added
    begun = tl.zeros((RUN,), tl.float32)  # of the row being read
    for step in range(ROWS + 2):
        row = first + step - 1
        there = (row >= 0) & (row < height)
        here = x + picture + row.to(tl.int64) * length + place
        a = tl.load(here - channels, mask=left & there, other=0.0).to(tl.float32)
        m = tl.load(here, mask=inside & there, other=0.0).to(tl.float32)
        z = tl.load(here + channels, mask=right & there, other=0.0).to(tl.float32)
        above = done + a * t6 + m * t7 + z * t8
        target = result + picture + (row - 1).to(tl.int64) * length + place
        tl.store(target, above.to(result.dtype.element_ty), mask=inside & (step >= 2) & (row - 1 < height))
        done = begun + a * t3 + m * t4 + z * t5
        begun = a * t0 + m * t1 + z * t2


@triton.jit
def correlate_runs(grad, x, sums, rows, height, length, channels, lines, RUN: tl.constexpr):
    """`sums` (groups, 9, length) = Σ over a group's rows of grad times x, shifted by each of the nine taps.

    `rows` = b · height: the rows of all pictures in turn; a group has `lines` of them.
    """
    place = tl.program_id(0) * RUN + tl.arange(0, RUN)
    inside = place < length
    left, right = inside & (place >= channels), place + channels < length
    s0 = tl.zeros((RUN,), tl.float32)
    s1 = tl.zeros((RUN,), tl.float32)
    s2 = tl.zeros((RUN,), tl.float32)
    s3 = tl.zeros((RUN,), tl.float32)
    s4 = tl.zeros((RUN,), tl.float32)
    s5 = tl.zeros((RUN,), tl.float32)
    s6 = tl.zeros((RUN,), tl.float32)
    s7 = tl.zeros((RUN,), tl.float32)
    s8 = tl.zeros((RUN,), tl.float32)
    group = tl.program_id(1)
    for line in range(lines):
        row = group * lines + line
        there = row < rows
        within = row % height
        up, down = there & (within > 0), there & (within < height - 1)
        here = row.to(tl.int64) * length + place
        g = tl.load(grad + here, mask=inside & there, other=0.0).to(tl.float32)
        s0 += g * tl.load(x + here - length - channels, mask=left & up, other=0.0).to(tl.float32)
        s1 += g * tl.load(x + here - length, mask=inside & up, other=0.0).to(tl.float32)
        s2 += g * tl.load(x + here - length + channels, mask=right & up, other=0.0).to(tl.float32)
        s3 += g * tl.load(x + here - channels, mask=left & there, other=0.0).to(tl.float32)
        s4 += g * tl.load(x + here, mask=inside & there, other=0.0).to(tl.float32)
        s5 += g * tl.load(x + here + channels, mask=right & there, other=0.0).to(tl.float32)
        s6 += g * tl.load(x + here + length - channels, mask=left & down, other=0.0).to(tl.float32)
        s7 += g * tl.load(x + here + length, mask=inside & down, other=0.0).to(tl.float32)
        s8 += g * tl.load(x + here + length + channels, mask=right & down, other=0.0).to(tl.float32)
    target = sums + group.to(tl.int64) * 9 * length + place
    tl.store(target, s0, mask=inside)
    tl.store(target + length, s1, mask=inside)
    tl.store(target + 2 * length, s2, mask=inside)
    tl.store(target + 3 * length, s3, mask=inside)
    tl.store(target + 4 * length, s4, mask=inside)
    tl.store(target + 5 * length, s5, mask=inside)
    tl.store(target + 6 * length, s6, mask=inside)
    tl.store(target + 7 * length, s7, mask=inside)
    tl.store(target + 8 * length, s8, mask=inside)
