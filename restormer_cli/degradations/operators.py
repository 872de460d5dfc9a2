"""Degradations as pure functions (image, rng, *, parameters) -> image.

An image is float32 (h, w, c) with c = 1 or 3, nominally in [0, 1]; the result is a new float32 array of the
same shape. All randomness comes from the generator that is passed in.
"""

import math
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from restormer_cli.pixels import LUMA
from restormer_cli.pixels import round8 as rounded

Image = NDArray[np.float32]


# --- Noise --------------------------------------------------------------------------------------------------


def gaussian(image: Image, rng: np.random.Generator, *, sigma: float) -> Image:
    """Add white Gaussian noise of standard deviation `sigma` / 255 (sigma 0 to 255): (h, w, c) -> (h, w, c).

    Not clipped, as the published protocol has it; clipping would also shift the mean near black and white.
    """
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise *= np.float32(sigma / 255)
    noise += image
    return noise


def published_gaussian(image: Image, sigma: float, seed: int = 0) -> Image:
    """Add the very noise of the published evaluation: (h, w, c) -> (h, w, c), sigma in units of 1/255.

    Every picture starts again from `np.random.seed(0)`; the noise is drawn and added in float64, the sum
    rounded to float32 and not clipped. NumPy has frozen the legacy generator's stream, so results compare.
    """
    noise = np.random.RandomState(seed).normal(0, sigma / 255, image.shape)
    return (image + noise).astype(np.float32)


def poisson_gaussian(image: Image, rng: np.random.Generator, *, peak: float, read: float) -> Image:
    """Add a sensor's noise, shot and read: (h, w, c) -> (h, w, c), not clipped.

    `peak` is the number of photons that makes the value 1 (0.1 to 1e7; the gain is 1 / peak), `read` the
    standard deviation of the read noise in units of 1/255 (0 to 255). Variance: image / peak + (read / 255)².
    """
    light = np.maximum(image, 0)
    shot = (rng.poisson(light * np.float32(peak)) / peak).astype(np.float32)
    # A value below zero (an earlier step's noise) carries no photons; keeping it keeps the mean.
    return gaussian(shot + (image - light), rng, sigma=read)


# --- Blur ---------------------------------------------------------------------------------------------------


def defocus(image: Image, rng: np.random.Generator, *, radius: float, vary: float = 0.0) -> Image:
    """Blur as a lens out of focus does, with a disc: (h, w, c) -> (h, w, c), symmetric borders.

    `radius` is the disc's in pixels (0 to 100; below half a pixel nothing changes). With `vary` (0 to 1) it
    wanders smoothly over the picture, between radius · (1 - vary) and radius · (1 + vary): a few discs are
    blended by each pixel's own radius.
    """
    if radius * vary < 0.01:  # too little to see; and the hats below need room to stand
        return _blur(image, [disc_kernel(radius)])[0]
    height, width, _ = image.shape
    nodes, spacing = np.linspace(radius * (1 - vary), radius * (1 + vary), 5, retstep=True)
    radii = radius * (1 + vary * _smooth_map(height, width, rng))
    blended = np.zeros_like(image)
    for node, blurred in zip(nodes, _blur(image, [disc_kernel(node) for node in nodes]), strict=True):
        weight = np.clip(1 - np.abs(radii - node) / spacing, 0, 1)  # hats; their sum is one
        blended += weight[..., None].astype(np.float32) * blurred
    return blended


def motion(image: Image, rng: np.random.Generator, *, length: float, angle: float = 0.0, shake: float = 0.0) -> Image:
    """Blur along the path that the camera takes while exposing: (h, w, c) -> (h, w, c), symmetric borders.

    `length` is the path's in pixels (0 to 500), `angle` its direction in degrees (-360 to 360), counter-
    clockwise from horizontal. `shake` (0 to 10) is the speed of a random tremor relative to that of the
    steady motion: 0 is a straight line, 1 a bent one, 10 a scribble without direction. The length stays.
    """
    return _blur(image, [motion_kernel(rng, length=length, angle=angle, shake=shake)])[0]


def disc_kernel(radius: float) -> Image:
    """The disc of a radius in pixels, anti-aliased, sum 1: (k, k) with k odd."""
    radius = max(radius, 0.5)  # a disc within one pixel is that pixel
    reach = math.ceil(radius - 0.5)
    size = 2 * reach + 1
    # Each pixel is 4 × 4 cells; the disc's edge across a cell is taken as straight.
    cells = (np.arange(4 * size) + 0.5) / 4 - size / 2
    covered = np.clip(4 * (radius - np.hypot(cells[:, None], cells)) + 0.5, 0, 1)
    coverage = covered.reshape(size, 4, size, 4).sum(axis=(1, 3))
    return (coverage / coverage.sum()).astype(np.float32)


def motion_kernel(rng: np.random.Generator, *, length: float, angle: float, shake: float) -> Image:
    """The trace of a path (see `motion`), anti-aliased, centroid in the middle, sum 1: (k, k) with k odd."""
    samples = 8 * math.ceil(length) + 2  # even at its fastest the path must not skip pixels
    direction = np.array([-math.sin(math.radians(angle)), math.cos(math.radians(angle))])  # rows point down
    velocity = np.tile(direction, (samples - 1, 1))
    if shake:
        velocity += shake * _tremor(samples - 1, rng)
    velocity *= length / np.hypot(*velocity.T).sum()
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(velocity, axis=0)])
    path -= path.mean(axis=0)
    reach = math.ceil(np.abs(path).max()) + 1  # one more pixel to interpolate
    return _splat(path + reach, 2 * reach + 1)


def _tremor(samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A smooth random velocity of unit mean square: (samples, 2); slow waves are strong, fast ones weak."""
    time = np.linspace(0, 1, samples)[:, None, None]
    waves = np.arange(1, 6)[:, None]
    phase = rng.uniform(0, 2 * np.pi, (5, 2))
    strength = rng.standard_normal((5, 2)) / waves
    tremor = (strength * np.cos(np.pi * waves * time + phase)).sum(axis=1)
    return tremor / math.sqrt((tremor**2).sum(axis=1).mean())


def _splat(points: NDArray[np.float64], size: int) -> Image:
    """Share equal weights among the four pixels around each point (n, 2): (size, size), sum 1."""
    corner = np.floor(points).astype(int)
    y, x = (points - corner).T
    first = corner[:, 0] * size + corner[:, 1]
    index = np.concatenate([first, first + 1, first + size, first + size + 1])
    weight = np.concatenate([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x])
    kernel = np.bincount(index, weight, size * size).reshape(size, size)
    return (kernel / kernel.sum()).astype(np.float32)


def _smooth_map(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Hills and hollows about as large as the picture, in [-1, 1]: (h, w)."""
    scale = 2j * np.pi / max(height, width)
    down, across = rng.uniform(-1, 1, (2, 3))
    phase = np.exp(2j * np.pi * rng.uniform(size=3))
    # Three plane waves cos(down · y + across · x + phase), as a product of a column and a row each.
    rows = phase * np.exp(scale * np.arange(height)[:, None] * down)
    return (rows @ np.exp(scale * across[:, None] * np.arange(width))).real / 3


def _blur(image: Image, kernels: Sequence[Image]) -> list[Image]:
    """The image convolved with each kernel (k, k), its border mirrored: [(h, w, c)], in float32."""
    from scipy import fft  # 50 ms that --help should not pay

    reach = max(len(kernel) for kernel in kernels) // 2
    if reach == 0:
        return [image.copy() for _ in kernels]
    height, width, _ = image.shape
    planes = np.pad(image.transpose(2, 0, 1), ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    # A cyclic convolution at least as large as the padded picture: what wraps around falls into the padding.
    shape = [fft.next_fast_len(n, real=True) for n in planes.shape[1:]]
    spectrum = np.asarray(fft.rfft2(planes, shape))
    results = []
    for kernel in kernels:
        product = np.asarray(fft.irfft2(spectrum * np.asarray(fft.rfft2(kernel, shape)), shape))
        start = reach + len(kernel) // 2
        results.append(product[:, start : start + height, start : start + width].transpose(1, 2, 0).copy())
    return results


# --- Rain, compression, range -------------------------------------------------------------------------------


def rain(
    image: Image,
    rng: np.random.Generator,
    *,
    density: float,
    length: float,
    tilt: float,
    peak: float,
    width: float,
    depth: float = 2.0,
    spread: float = 2.0,
    soft: float = 1.0,
) -> Image:
    """Add white streaks of rain and clip to [0, 1]: (h, w, c) -> (h, w, c).

    `density`: percent of pixels that begin a streak (0 to 10). `length`: of the nearest drops' streaks, in
    pixels (1 to 1000). `tilt`: degrees from vertical (-45 to 45), positive falls to the right, ± `spread` (0 to
    20) from streak to streak. `peak`: brightness of the nearest drops (0 to 1). `width`: at half the brightness,
    in pixels (0.5 to 20). The farthest drops are `depth` times (1 to 10) as far as the nearest, their streaks as
    much shorter and darker. `soft`: 1 for streaks that fade towards their ends, 0 for even ones.
    """
    rows, columns, _ = image.shape
    layer = _streaks(rows, columns, rng, density / 100, length, tilt, width, depth, spread, soft)
    return np.clip(image + np.float32(peak) * layer[..., None], 0, 1, dtype=np.float32)


def _streaks(
    height: int,
    width: int,
    rng: np.random.Generator,
    density: float,
    length: float,
    tilt: float,
    wide: float,
    depth: float,
    spread: float,
    soft: float,
) -> Image:
    """The light of streaks, the nearest drop's being 1, overlaps added: (h, w); `density` per pixel."""
    rows = math.ceil(length)
    # Streaks begin above and beside the picture too, so that its borders are as wet as its middle.
    margin = rows + math.ceil(2 * wide)
    count = rng.poisson(density * (height + rows) * (width + 2 * margin))
    top = rng.integers(-rows, height, count)
    left = rng.uniform(-margin, width + margin, count)
    slope = np.tan(np.radians(tilt + rng.uniform(-spread, spread, count)))
    nearness = rng.uniform(1 / depth, 1, count)

    # One entry of `light` for each streak, each of its rows, and each column that it touches in that row.
    row = np.arange(rows)[:, None]
    reach = math.ceil(1.5 * wide)
    touched = np.arange(-reach, reach + 2)
    layer = np.zeros(height * width)
    batch = max(1, 2**22 // (rows * len(touched)))  # a downpour on a large picture must not fill the memory
    for start in range(0, count, batch):
        y0, x0, lean, near = (v[start : start + batch, None, None] for v in (top, left, slope, nearness))
        along = (row + 0.5) * np.sqrt(1 + lean**2) / (near * length)
        taper = np.where(along < 1, np.sin(np.pi * np.clip(along, 0, 1)) ** soft, 0)
        x = x0 + lean * row
        column = np.floor(x).astype(int) + touched
        light = near * taper * np.exp2(-((2 * (column - x) / wide) ** 2))
        y = np.broadcast_to(y0 + row, light.shape)
        inside = (y >= 0) & (y < height) & (column >= 0) & (column < width)
        layer += np.bincount((y * width + column)[inside], light[inside], height * width)
    return layer.reshape(height, width).astype(np.float32)


def jpeg(image: Image, rng: np.random.Generator, *, quality: float, subsampling: float = 420) -> Image:
    """Compress as a JPEG file and read it back: (h, w, c) -> (h, w, c), in [0, 1], values k / 255.

    `quality` 1 to 100 on libjpeg's scale; `subsampling` of the colours 420 (as cameras do), 422 or 444,
    without effect on one channel.
    """
    import PIL.Image  # 30 ms that --help should not pay

    pixels = rounded(image)
    file = BytesIO()
    picture = PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture.save(file, "JPEG", quality=int(quality), subsampling=_SUBSAMPLING[int(subsampling)])
    decoded = np.asarray(PIL.Image.open(file)).reshape(image.shape)
    return decoded.astype(np.float32) / np.float32(255)


_SUBSAMPLING = {444: 0, 422: 1, 420: 2}  # Pillow's numbers


def gray(image: Image, rng: np.random.Generator, *, of: float) -> Image:
    """Take the colours away: (h, w, c) -> (h, w, c), all channels alike; one channel stays as it is.

    `of`: 0 the luma (BT.601), as programs convert photographs; 1 the green channel, whose noise nothing averages, as in
    film or from a monochrome sensor.
    """
    if image.shape[2] == 1:
        return image.copy()
    single = image[..., 1] if int(of) else image @ LUMA
    return np.repeat(single[..., None], 3, axis=2)


def gray_pair(degraded: Image, clean: Image, rng: np.random.Generator, *, of: float) -> tuple[Image, Image]:
    """The same of both: no network can find colours in a gray picture."""
    return gray(degraded, rng, of=of), gray(clean, rng, of=of)


def clip(image: Image, rng: np.random.Generator) -> Image:
    """Clamp to [0, 1], as a sensor saturates: (h, w, c) -> (h, w, c)."""
    return np.clip(image, 0, 1)


def round8(image: Image, rng: np.random.Generator) -> Image:
    """Clamp to [0, 1] and round to 8 bits, as a file does: (h, w, c) -> (h, w, c), values k / 255."""
    return rounded(image).astype(np.float32) / np.float32(255)
