"""Noise for whole batches, in torch, on the device that trains: where sixteen processor cores would starve it.

`noisy_batch` makes half of a batch noisy with white noise (the published protocol's, blind) and half as cameras do, a
fifth of both without colours. A camera's: light, mosaic, shot and read noise, demosaicing, colour, tone, sharpening,
JPEG (the steps and numbers follow Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019, and fits
of camera profiles). Which step a sample meets depends on its place in the batch, so that shapes never change and a
CUDA graph can hold all of it.

Pictures are float32 (b, 3, h, w), sRGB-encoded in [0, 1]. All randomness is torch's default generator's.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 12
"""Pixels around a sample that demosaicing, sharpening and the mosaic's four positions use up; even."""

XYZ_TO_CAMERA = (
    ((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406)),
    ((0.4913, -0.0541, -0.0202), (-0.6130, 1.3513, 0.2906), (-0.1564, 0.2151, 0.7183)),
    ((0.8380, -0.2630, -0.0639), (-0.2887, 1.0725, 0.2496), (-0.0627, 0.1427, 0.5438)),
    ((0.6596, -0.2079, -0.0562), (-0.4782, 1.3016, 0.1933), (-0.0970, 0.1581, 0.5181)),
)
"""Colour matrices of four cameras, from their DNG files."""
RGB_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
"""Linear sRGB to CIE XYZ (IEC 61966-2-1)."""
RGB_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""JFIF's colours."""
YCC_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
LUMINANCE = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
CHROMINANCE = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
"""Quantisation tables of the JPEG standard, Annex K, quality 50."""


@dataclass(frozen=True)
class Mixture:
    """Shares and ranges of the mixture."""

    sensor: float = 0.5
    """Share of the batch with a camera's noise."""
    sigma: tuple[float, float] = (0.0, 50.0)
    """White noise, in units of 1/255, uniform."""
    rounded: float = 0.2
    """Share of the white-noise samples that are clamped and rounded to 8 bits."""
    compressed: float = 0.12
    """Share of them that are JPEGs."""
    quality: tuple[float, float] = (70.0, 98.0)
    gray_every: int = 5
    """Of so many samples one has no colours, but its luma or the green channel with its noise; 0: none."""


def noisy_batch(around: Tensor, mixture: Mixture = Mixture()) -> tuple[Tensor, Tensor]:
    """Clean samples with MARGIN pixels around, (b, 3, h + 2·MARGIN, w + 2·MARGIN) -> (degraded, clean), (b, 3, h, w).

    h and w are multiples of 16. The clean side has gone through the same mosaic, tone and scale as the noisy one.
    """
    cameras = round(mixture.sensor * len(around))
    white, camera = around[cameras:, :, MARGIN:-MARGIN, MARGIN:-MARGIN], around[:cameras]
    degraded, clean = white_noise(white, mixture), white
    if cameras:
        noisy, reference = camera_noise(camera)
        degraded, clean = torch.cat([noisy, degraded]), torch.cat([reference, clean])
    if not mixture.gray_every:
        return degraded, clean
    return _some_gray(degraded, mixture.gray_every), _some_gray(clean, mixture.gray_every)


def _some_gray(pictures: Tensor, every: int) -> Tensor:
    """Each `every`-th picture without colours, two by their luma, then two by their green channel.

    Two, since what a camera does goes by even and odd places, and by the remainder of four.
    """
    chosen = pictures[::every]
    luma = torch.einsum("c,bchw->bhw", _constant(RGB_TO_YCC[0], pictures.device), chosen)
    by_luma = (torch.arange(len(chosen), device=pictures.device) % 4 < 2)[:, None, None]
    result = pictures.clone()
    result[::every] = torch.where(by_luma, luma, chosen[:, 1])[:, None]
    return result


def white_noise(clean: Tensor, mixture: Mixture) -> Tensor:
    """Gaussian noise of a σ of each sample's own; some rounded, some compressed afterwards."""
    b = len(clean)
    sigma = _uniform(b, clean.device, *mixture.sigma) / 255
    degraded = clean + sigma * torch.randn_like(clean)
    compressed = round(mixture.compressed * b)
    rounded = compressed + round(mixture.rounded * b)
    few = degraded[:rounded].clamp(0, 1)
    few = torch.cat([jpeg(few[:compressed], _uniform(compressed, clean.device, *mixture.quality)), few[compressed:]])
    return torch.cat([_round8(few), degraded[rounded:]])


def camera_noise(around: Tensor) -> tuple[Tensor, Tensor]:
    """Clean samples with MARGIN around -> (noisy, clean) as a camera would have made both: (b, 3, h, w)."""
    b, device = len(around), around.device
    place = torch.arange(b, device=device)
    toned = (place % 2 == 0)[:, None, None, None]
    x = around.clamp(0, 1)
    x = torch.where(toned, _untoned(x), x)
    linear = _linear(x)
    linear = torch.lerp(
        linear, _soft(linear), _uniform(b, device, 0.1, 0.9)
    )  # a lens and a low-pass filter before the mosaic

    matrix, gains = _camera(b, device)
    inverse = _inverse(matrix)  # camera to sRGB
    raw = _mixed(linear, matrix) / gains
    # Highlights would come out coloured where all of sRGB's channels are saturated: there the gain is spared.
    gray = linear.mean(1, keepdim=True)
    spared = ((gray - 0.9).clamp_min(0) / 0.1).square()
    raw = torch.maximum(raw, raw * (1 - spared) + _mixed(linear, matrix) * spared).clamp(0, 1)

    shot, read = _noise_levels(b, device)
    bits = torch.where(place % 3 == 0, 4095.0, 16383.0)[:, None, None, None]
    mosaic = _mosaic(raw)
    noisy = torch.poisson(mosaic / shot) * shot + read.sqrt() * torch.randn_like(mosaic)
    noisy = (noisy * bits).round().div(bits).clamp(-0.06, 1)

    both = _demosaiced(torch.cat([noisy, mosaic]), torch.cat([place, place]))
    both = both * torch.cat([gains, gains])
    both = _mixed(both, torch.cat([inverse, inverse])).clamp(0, 1)
    both = _encoded(both)
    both = torch.where(torch.cat([toned, toned]), _toned(both), both)

    # The camera's own noise reduction, which leaves edges alone: what it does to the noise, not to the picture.
    both = torch.cat([both[b:] + _reduced(both[:b] - both[b:]), both[b:]])

    # Programs sharpen a third of them; the clean one too, or the network would learn to blur.
    amount = torch.where(place % 3 == 1, torch.rand(b, device=device), 0.0)[:, None, None, None]
    both = both + torch.cat([amount, amount]) * (both - _soft(both))
    both = both.clamp(0, 1)
    # Each quarter of the batch lies otherwise in the mosaic's pattern of 2 × 2.
    h, w = (side - 2 * MARGIN for side in around.shape[-2:])
    pairs, cut = both.unflatten(0, (2, b)), torch.empty((2, b, 3, h, w), device=device, dtype=around.dtype)
    for number, (dy, dx) in enumerate(_SHIFTS):
        cut[:, number::4] = pairs[:, number::4, :, MARGIN + dy :, MARGIN + dx :][..., :h, :w]
    noisy, clean = _round8(cut[0]), cut[1]

    # Three in four are JPEGs: of every kind, since kinds go by remainders and this is a run from the start. With one in
    # four, of quality 85 to 99, the denoiser of 2026-11-27 stayed 0.9 dB behind on finished pictures.
    compressed = b - b // 4
    quality = _uniform(compressed, device, 75, 98)
    return torch.cat([_round8(jpeg(noisy[:compressed], quality)), noisy[compressed:]]), clean


_SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1))


def _reduced(noise: Tensor) -> Tensor:
    """Noise as a camera's noise reduction leaves it: luminance a little softer, colour much softer and weaker."""
    b, device = len(noise), noise.device
    ycc = torch.einsum("yc,bchw->byhw", _constant(RGB_TO_YCC, device), noise)
    soft = _soft(ycc)
    softer = _soft(soft)
    luma, chroma = _uniform(b, device, 0.0, 1.0).sqrt(), _uniform(b, device, 0.1, 1.6).clamp_max(1)
    left = _uniform(b, device, 0.1, 0.9)
    ycc = torch.cat(
        [torch.lerp(ycc[:, :1], soft[:, :1], luma), left * torch.lerp(ycc[:, 1:], softer[:, 1:], chroma)], 1
    )
    return torch.einsum("cy,byhw->bchw", _constant(YCC_TO_RGB, device), ycc)


def jpeg(pictures: Tensor, quality: Tensor) -> Tensor:
    """JPEG of a quality (b, 1, 1, 1) with halved colour resolution: (b, 3, h, w) in [0, 1], sides multiples of 16.

    Exact but for the rounding of each step's integers. The result may leave [0, 1] by a little.
    """
    if not len(pictures):
        return pictures
    table = _tables(pictures.device)  # (3, 8, 8)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    steps = ((table * scale.view(-1, 1, 1, 1) + 50) / 100).floor().clamp(1, 255)  # (b, 3, 8, 8)
    ycc = torch.einsum("yc,bchw->byhw", _constant(RGB_TO_YCC, pictures.device), pictures * 255)
    luma = _quantised(ycc[:, :1] - 128, steps[:, :1]) + 128
    chroma = _quantised(F.avg_pool2d(ycc[:, 1:], 2), steps[:, 1:])
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear")
    y, blue, red = luma[:, 0], chroma[:, 0], chroma[:, 1]
    rgb = torch.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], 1)
    return rgb / 255


def _quantised(planes: Tensor, steps: Tensor) -> Tensor:
    """(b, c, h, w) through the cosine transform of blocks of 8 × 8, rounded to multiples of `steps` (b, c, 8, 8)."""
    b, c, h, w = planes.shape
    cosines = _cosines(planes.device)
    blocks = planes.view(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    steps = steps[:, :, None, None]
    blocks = (cosines @ blocks @ cosines.T / steps).round() * steps
    return (cosines.T @ blocks @ cosines).transpose(3, 4).reshape(b, c, h, w)


@cache
def _constant(values: tuple[Any, ...], device: torch.device) -> Tensor:
    """Numbers on a device, copied there once: nothing may be copied from the host while a CUDA graph is captured."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def _inverse(matrix: Tensor) -> Tensor:
    """The inverse of matrices (b, 3, 3) by their cofactors: no library call, which a CUDA graph might not hold."""
    a, b, c = matrix.unbind(1)
    rows = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 2)
    return rows / (a * torch.linalg.cross(b, c)).sum(1)[:, None, None]


@cache
def _cosines(device: torch.device) -> Tensor:
    """The orthonormal cosine transform of 8 numbers: (8, 8)."""
    n = torch.arange(8, dtype=torch.float64)
    rows = torch.cos(math.pi * (n + 0.5) * n[:, None] / 8) * math.sqrt(2 / 8)
    rows[0] /= math.sqrt(2)
    return rows.float().to(device)


@cache
def _tables(device: torch.device) -> Tensor:
    first, second = (torch.tensor([float(n) for n in text.split()]).view(8, 8) for text in (LUMINANCE, CHROMINANCE))
    return torch.stack([first, second, second]).to(device)


def _camera(b: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices from linear sRGB to a camera's colours, (b, 3, 3), and white-balance gains, (b, 3, 1, 1)."""
    share = torch.empty((b, 4), device=device).exponential_()
    share = share / share.sum(1, keepdim=True)
    cameras, to_xyz = _constant(XYZ_TO_CAMERA, device), _constant(RGB_TO_XYZ, device)
    matrix = torch.einsum("bn,nij,jk->bik", share, cameras, to_xyz)
    matrix = matrix / matrix.sum(2, keepdim=True)  # white stays white
    overall = 1 / (0.8 + 0.1 * torch.randn((b, 1), device=device)).clamp(0.5, 1.2)
    red, blue = (torch.empty((b, 1), device=device).uniform_(*span) for span in ((1.9, 2.4), (1.5, 1.9)))
    gains = torch.cat([red * overall, overall, blue * overall], 1)
    return matrix, gains[:, :, None, None]


def _noise_levels(b: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Shot and read noise, both (b, 1, 1, 1): the variance of a photosite's value x is shot · x + read.

    Half of the samples are a phone's (Brooks et al.), the others a large sensor's from ISO 100 to 25600.
    """
    phone = (torch.arange(b, device=device) % 8 < 4)[:, None, None, None]
    small = _uniform(b, device, math.log(2e-4), math.log(8e-3))
    small_read = 2.18 * small + 1.20 + 0.26 * torch.randn_like(small)
    large = _uniform(b, device, math.log(1e-5), math.log(3e-3))
    large_read = 1.228 * large - 3.42 + 1.05 * torch.randn_like(large)
    shot, read = torch.where(phone, small, large).exp(), torch.where(phone, small_read, large_read).exp()
    return shot, read.clamp_max(3e-4)


def _mosaic(raw: Tensor) -> Tensor:
    """(b, 3, h, w) -> what a photosite behind its filter sees, (b, 1, h, w): red, green / green, blue."""
    red, green, blue = raw.unbind(1)
    result = green.clone()
    result[:, ::2, ::2] = red[:, ::2, ::2]
    result[:, 1::2, 1::2] = blue[:, 1::2, 1::2]
    return result[:, None]


def _demosaiced(mosaic: Tensor, place: Tensor) -> Tensor:
    """(b, 1, h, w) -> (b, 3, h, w) by three methods in turn, so that none is learnt.

    Bilinear; Malvar, He and Cutler (2004); and green along the weaker gradient, then colour differences (Hamilton and
    Adams, 1997).
    """
    h, w = mosaic.shape[-2:]
    masks = _masks(h, w, mosaic.device)
    bilinear = _interpolated(mosaic * masks)
    padded = F.pad(mosaic, (2, 2, 2, 2), mode="reflect")
    answers = F.conv2d(padded, _malvar(mosaic.device))  # green, along the row, along the column, across
    green_there, row_red, row_blue = _sites(h, w, mosaic.device)
    green = torch.where(green_there, mosaic, answers[:, :1])
    red = torch.where(masks[:, :1] > 0, mosaic, torch.where(row_red, answers[:, 1:2], answers[:, 2:3]))
    red = torch.where(masks[:, 2:] > 0, answers[:, 3:], red)
    blue = torch.where(masks[:, 2:] > 0, mosaic, torch.where(row_blue, answers[:, 1:2], answers[:, 2:3]))
    blue = torch.where(masks[:, :1] > 0, answers[:, 3:], blue)
    malvar = torch.cat([red, green, blue], 1)

    up, down = padded[..., 1:-3, 2:-2], padded[..., 3:-1, 2:-2]
    before, after = padded[..., 2:-2, 1:-3], padded[..., 2:-2, 3:-1]
    second_rows = 2 * mosaic - padded[..., :-4, 2:-2] - padded[..., 4:, 2:-2]
    second_columns = 2 * mosaic - padded[..., 2:-2, :-4] - padded[..., 2:-2, 4:]
    across_rows = (up - down).abs() + second_rows.abs()
    across_columns = (before - after).abs() + second_columns.abs()
    along = torch.where(
        across_rows < across_columns, (up + down) / 2 + second_rows / 4, (before + after) / 2 + second_columns / 4
    )
    edge_green = torch.where(green_there, mosaic, along)
    edge = edge_green + _interpolated((mosaic - edge_green) * masks)
    edge = torch.cat([edge[:, :1], edge_green, edge[:, 2:]], 1)
    which = (place % 3)[:, None, None, None]
    return torch.where(which == 0, bilinear, torch.where(which == 1, malvar, edge))


def _interpolated(sites: Tensor) -> Tensor:
    """Values at their own sites and zero elsewhere, (b, 3, h, w) -> everywhere, from the nearest ones' mean."""
    cross, square = ((0, 0.25, 0), (0.25, 1, 0.25), (0, 0.25, 0)), ((0.25, 0.5, 0.25), (0.5, 1, 0.5), (0.25, 0.5, 0.25))
    kernels = _constant((square, cross, square), sites.device)[:, None]
    # Reflected without the border pixel, so that a site's parity goes on beyond the border.
    return F.conv2d(F.pad(sites, (1, 1, 1, 1), mode="reflect"), kernels, groups=3)


@cache
def _malvar(device: torch.device) -> Tensor:
    """Malvar, He and Cutler's four filters, (4, 1, 5, 5).

    Green; red or blue at green, where its neighbours are in the row, in the column; red or blue at the other's site.
    """
    green = [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]
    row = [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]
    other = [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]
    row_filter = torch.tensor(row)
    filters = [torch.tensor(green, dtype=torch.float32), row_filter, row_filter.T, torch.tensor(other)]
    return torch.stack(filters)[:, None].to(device) / 8


@cache
def _masks(h: int, w: int, device: torch.device) -> Tensor:
    """Where red, green and blue are measured: (1, 3, h, w), 0 or 1."""
    rows, columns = torch.arange(h, device=device)[:, None] % 2, torch.arange(w, device=device) % 2
    red, blue = (1 - rows) * (1 - columns), rows * columns
    return torch.stack([red, 1 - red - blue, blue])[None].float()


@cache
def _sites(h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Green sites; those of them with red neighbours in the row; with blue ones in the row."""
    masks = _masks(h, w, device)
    green = masks[:, 1:2] > 0
    even = (torch.arange(h, device=device) % 2 == 0)[:, None]
    return green, green & even, green & ~even


def _mixed(pictures: Tensor, matrix: Tensor) -> Tensor:
    """Colours (b, 3, h, w) by a matrix of each picture's own, (b, 3, 3)."""
    return torch.einsum("bij,bjhw->bihw", matrix, pictures)


def _toned(x: Tensor) -> Tensor:
    """A tone curve like a camera's: smoothstep."""
    return x * x * (3 - 2 * x)


def _untoned(x: Tensor) -> Tensor:
    """The inverse of smoothstep."""
    return 0.5 - torch.sin(torch.asin(1 - 2 * x) / 3)


def _linear(x: Tensor) -> Tensor:
    """sRGB's encoding undone."""
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055).clamp_min(0).pow(2.4))


def _encoded(x: Tensor) -> Tensor:
    """sRGB's encoding."""
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(1e-6).pow(1 / 2.4) - 0.055)


def _soft(x: Tensor) -> Tensor:
    """Blurred by a binomial of 5, what an unsharp mask compares with."""
    line = _constant((0.0625, 0.25, 0.375, 0.25, 0.0625), x.device)
    kernel = (line[:, None] * line).expand(3, 1, 5, 5)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=3)


def _round8(x: Tensor) -> Tensor:
    return (x.clamp(0, 1) * 255).round() / 255


def _uniform(b: int, device: torch.device, low: float, high: float) -> Tensor:
    return torch.rand((b, 1, 1, 1), device=device) * (high - low) + low
