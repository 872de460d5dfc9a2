"""Degradations: pure functions (image, rng, *, parameters) -> image, and the small language that names them.

An image is float32 (h, w, c) with c = 1 or 3, nominally in [0, 1]; the result is a new float32 array of the
same shape. All randomness comes from the generator that is passed in. `KINDS`, at the end, is the whole
catalogue; recipes and the command line write it as a spec:

    gaussian:25                      a kind and its main parameter
    gaussian:0-50                    a range, drawn uniformly for each picture
    motion:5-25,angle=-90..90        more parameters by name; `..` where a bound is negative
    defocus:3+gaussian:2             one after the other
    jpeg:70-95@0.5                   applied to half of the pictures
    gaussian:0-50|poisson_gaussian   one of the alternatives, all equally likely (repeat one to weigh it)

A kind that changes what is to be found in the degraded picture too, as `sensor` does, gives both: see `pair`.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import BytesIO
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from restormer_cli.degradations.lens import lens
from restormer_cli.degradations.rain import rainfall
from restormer_cli.degradations.sensor import sensor, sensor_pair
from restormer_cli.degradations.shake import shake
from restormer_cli.errors import UserError

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

    pixels = _to_8_bit(image)
    file = BytesIO()
    picture = PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture.save(file, "JPEG", quality=int(quality), subsampling=_SUBSAMPLING[int(subsampling)])
    decoded = np.asarray(PIL.Image.open(file)).reshape(image.shape)
    return decoded.astype(np.float32) / np.float32(255)


_SUBSAMPLING = {444: 0, 422: 1, 420: 2}  # Pillow's numbers


def clip(image: Image, rng: np.random.Generator) -> Image:
    """Clamp to [0, 1], as a sensor saturates: (h, w, c) -> (h, w, c)."""
    return np.clip(image, 0, 1)


def round8(image: Image, rng: np.random.Generator) -> Image:
    """Clamp to [0, 1] and round to 8 bits, as a file does: (h, w, c) -> (h, w, c), values k / 255."""
    return _to_8_bit(image).astype(np.float32) / np.float32(255)


def _to_8_bit(image: Image) -> NDArray[np.uint8]:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


# --- What a spec says ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """A parameter's value, fixed where lo == hi, else drawn for each picture; reads 25, 0-50 or -5..5."""

    lo: float
    hi: float

    def __str__(self) -> str:
        if self.lo == self.hi:
            return _number(self.lo)
        return f"{_number(self.lo)}{'..' if self.lo < 0 else '-'}{_number(self.hi)}"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kind: its name, its value when nothing is said, and what is physically possible."""

    name: str
    default: Span
    limits: Span
    unit: str
    whole: bool = False
    choices: tuple[int, ...] = ()
    log: bool = False

    def draw(self, span: Span, rng: np.random.Generator) -> float:
        """A value of the span, uniformly, or its logarithm so; a fixed value takes nothing from the generator."""
        if span.lo == span.hi:
            return span.lo
        if self.log:
            return math.exp(rng.uniform(math.log(span.lo), math.log(span.hi)))
        if self.whole:
            return int(rng.integers(int(span.lo), int(span.hi), endpoint=True))
        return float(rng.uniform(span.lo, span.hi))


@dataclass(frozen=True)
class Kind:
    """A row of the catalogue; the first parameter is the main one, which a spec need not name."""

    apply: Callable[..., Image]
    about: str
    example: str
    parameters: tuple[Parameter, ...] = ()
    reach: Callable[..., float] = lambda **_: 0.0
    """Pixels from which a pixel may take its light, by the parameters' largest values; 0: none but itself."""
    pair: Callable[..., tuple[Image, Image]] | None = None
    """(degraded, clean, rng, *, parameters) -> the two, of a kind that changes what a network is to find, too."""


@dataclass(frozen=True)
class Operation:
    """One kind with a value for each of its parameters, in the catalogue's order."""

    kind: str
    values: tuple[Span, ...]

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        return KINDS[self.kind].apply(image, rng, **self._draw(rng))

    def pair(self, degraded: Image, clean: Image, rng: np.random.Generator) -> tuple[Image, Image]:
        """The degraded picture degraded further, and the clean one as it is then to be found."""
        both = KINDS[self.kind].pair
        if both is None:
            return self(degraded, rng), clean
        return both(degraded, clean, rng, **self._draw(rng))

    def _draw(self, rng: np.random.Generator) -> dict[str, float]:
        parameters = KINDS[self.kind].parameters
        return {p.name: p.draw(span, rng) for p, span in zip(parameters, self.values, strict=True)}

    @property
    def reach(self) -> int:
        """How far away a pixel may still have a share in another, in pixels."""
        kind = KINDS[self.kind]
        most = {p.name: max(abs(span.lo), abs(span.hi)) for p, span in zip(kind.parameters, self.values, strict=True)}
        return math.ceil(kind.reach(**most))

    def __str__(self) -> str:
        words = []
        for index, (parameter, span) in enumerate(zip(KINDS[self.kind].parameters, self.values, strict=True)):
            if index == 0:
                words.append(str(span))
            elif span != parameter.default:
                words.append(f"{parameter.name}={span}")
        return f"{self.kind}:{','.join(words)}" if words else self.kind


@dataclass(frozen=True)
class Step:
    """One of some operations, each equally likely, applied with a probability."""

    choices: tuple[Operation, ...]
    probability: float = 1.0

    def pair(self, degraded: Image, clean: Image, rng: np.random.Generator) -> tuple[Image, Image]:
        """As an operation's."""
        if self.probability < 1 and rng.random() >= self.probability:
            return degraded, clean
        index = int(rng.integers(len(self.choices))) if len(self.choices) > 1 else 0
        return self.choices[index].pair(degraded, clean, rng)

    def __str__(self) -> str:
        suffix = "" if self.probability == 1 else f"@{_number(self.probability)}"
        return "|".join(map(str, self.choices)) + suffix


@dataclass(frozen=True)
class Degradation:
    """Steps in the order in which they are applied; `str` gives the spec that parses to the same steps."""

    steps: tuple[Step, ...]

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Degrade float32 (h, w, c), c = 1 or 3: a new array of the same shape; random only through `rng`."""
        return self.pair(image, rng)[0]

    def pair(self, image: Image, rng: np.random.Generator) -> tuple[Image, Image]:
        """The degraded picture, a new array, and the clean one that is to be found in it, which most kinds leave
        as it is: `sensor` demosaics, sharpens and scales it too. All (h, w, c) float32."""
        assert image.dtype == np.float32, f"{image.dtype} image; degradations take float32"
        assert image.shape[2:] in ((1,), (3,)), f"{image.shape} image; degradations take (h, w, 1 or 3)"
        degraded, clean = image, image
        for step in self.steps:
            degraded, clean = step.pair(degraded, clean, rng)
        return image.copy() if degraded is image else degraded, clean

    @property
    def reach(self) -> int:
        """How far away a pixel may still have a share in another, in pixels: the margin that a crop needs."""
        return sum(max(operation.reach for operation in step.choices) for step in self.steps)

    def of_file(self, image: Image, name: str, seed: int) -> Image:
        """Degrade a picture by chance that depends on `seed` and its file's name alone, not on the others' number.

        What `restore --degrade` and `bench --degrade` do: float32 (h, w, c) -> a new one of the same shape.
        """
        return self.pair_of_file(image, name, seed)[0]

    def pair_of_file(self, image: Image, name: str, seed: int) -> tuple[Image, Image]:
        """The same, and the clean picture that is to be found in it (see `pair`)."""
        return self.pair(image, np.random.default_rng([seed, crc32(name.encode(errors="replace"))]))

    def __str__(self) -> str:
        return "+".join(map(str, self.steps))


# --- The parser ---------------------------------------------------------------------------------------------


def parse_degradation(spec: str | Sequence[str]) -> Degradation:
    """Read a spec (see the top of this file), or a list of them applied in order.

    Raises UserError: one line with what is wrong, the nearest kind or parameter, and an example.
    """
    texts = [spec] if isinstance(spec, str) else list(spec)
    # A line break inside a TOML string is a space, so that an error that quotes the step stays one line.
    words = [" ".join(word.split()) for text in texts for word in text.split("+")]
    if not any(words):
        raise UserError(f"the degradation is empty; name one of {', '.join(KINDS)}, for example gaussian:25")
    return Degradation(tuple(_parse_step(word) for word in words))


def _parse_step(text: str) -> Step:
    body, at, suffix = text.rpartition("@")
    if not at:
        return Step(_parse_choices(text))
    probability = _parse_number(suffix)
    if probability is None or not 0 <= probability <= 1:
        raise UserError(
            f'degradation "{text}": probability "{suffix.strip()}" is not a number from 0 to 1; '
            "for example jpeg:70-95@0.5"
        )
    if "@" in body:
        raise UserError(
            f'degradation "{text}": a step has one probability, at its end; '
            "repeat an alternative to weigh it, for example gaussian:0-50|gaussian:0-50|poisson_gaussian@0.5"
        )
    return Step(_parse_choices(body), probability)


def _parse_choices(text: str) -> tuple[Operation, ...]:
    return tuple(_parse_operation(word.strip()) for word in text.split("|"))


def _parse_operation(text: str) -> Operation:
    name, colon, words = text.partition(":")
    name = name.strip()
    if not name:
        raise UserError(f'degradation "{text}": a step names no kind; for example gaussian:25')
    if name not in KINDS:
        nearest = _nearest(name, KINDS)
        example = KINDS[nearest[0]].example if nearest else "gaussian:25"
        raise UserError(f'degradation "{text}": unknown kind "{name}"; {_hint(nearest, KINDS)}, for example {example}')
    kind = KINDS[name]
    given: dict[str, Span] = {}
    try:
        for index, word in enumerate(words.split(",") if colon else []):
            parameter, value = _parse_assignment(word, index, name)
            if parameter.name in given:
                raise _Wrong(f"{parameter.name} is given twice")
            given[parameter.name] = _parse_span(value, parameter)
    except _Wrong as wrong:
        raise UserError(f'degradation "{text}": {wrong}; for example {kind.example}') from None
    return Operation(name, tuple(given.get(p.name, p.default) for p in kind.parameters))


class _Wrong(Exception):
    """What is wrong with a parameter; `_parse_operation` adds where, and an example."""


def _parse_assignment(word: str, index: int, kind: str) -> tuple[Parameter, str]:
    """`key=value`, or a bare value in the first place for the main parameter."""
    parameters = {p.name: p for p in KINDS[kind].parameters}
    if not parameters:
        raise _Wrong(f"{kind} takes no value")
    key, equals, value = (part.strip() for part in word.partition("="))
    if not equals:
        if index:
            raise _Wrong(f'"{key}" has no name; {kind} takes {", ".join(parameters)}')
        return next(iter(parameters.values())), key
    if key not in parameters:
        raise _Wrong(f'{kind} has no "{key}"; {_hint(_nearest(key, parameters), parameters)}')
    return parameters[key], value


# No sign before the exponent's digits but "-", since "+" separates steps.
_UNSIGNED = r"(?:\d+\.?\d*|\.\d+)(?:[eE]-?\d+)?"
_NUMBER = re.compile(rf"-?{_UNSIGNED}")
_DASHED = re.compile(rf"({_UNSIGNED})\s*-\s*({_UNSIGNED})")


def _parse_span(text: str, parameter: Parameter) -> Span:
    name, limits = parameter.name, parameter.limits
    dashed = _DASHED.fullmatch(text)
    bounds = dashed.groups() if dashed else text.split("..") if ".." in text else (text, text)
    numbers = [_parse_number(bound) for bound in bounds]
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        raise _Wrong(f'{name} "{text}" is neither a number nor a range such as 1-2 or -1..2')
    span = Span(numbers[0], numbers[1])
    if span.lo > span.hi:
        raise _Wrong(f"{name} {text} runs backwards; the smaller number comes first")
    if parameter.choices and (span.lo != span.hi or span.lo not in parameter.choices):
        raise _Wrong(f"{name} {text} is not one of {', '.join(map(str, parameter.choices))}")
    if span.lo < limits.lo or span.hi > limits.hi:
        possible = f"{_number(limits.lo)} to {_number(limits.hi)}"
        raise _Wrong(f"{name} {text} is outside what is possible, {possible} {parameter.unit}".rstrip())
    if parameter.whole and not (span.lo.is_integer() and span.hi.is_integer()):
        raise _Wrong(f"{name} {text} is not whole")
    return span


def _parse_number(text: str) -> float | None:
    """A finite number, or None: "nan", "inf" and what overflows are none."""
    text = text.strip()
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else None


def _number(value: float) -> str:
    """The shortest text that reads back as the same number; the catalogue's limits keep "1e+16" away."""
    return str(int(value)) if value == int(value) else repr(value)


def _nearest(word: str, known: dict[str, Kind] | dict[str, Parameter]) -> list[str]:
    begun = [name for name in known if word and name.startswith(word)]  # "poisson" is poisson_gaussian
    return begun or get_close_matches(word, known, n=1, cutoff=0.5)


def _hint(nearest: list[str], known: dict[str, Kind] | dict[str, Parameter]) -> str:
    return f'did you mean "{nearest[0]}"?' if nearest else f"known are {', '.join(known)}"


# --- The catalogue ------------------------------------------------------------------------------------------

KINDS = {
    "gaussian": Kind(
        gaussian,
        "white Gaussian noise, not clipped",
        "gaussian:0-50",
        (Parameter("sigma", Span(0, 50), Span(0, 255), "/ 255"),),
    ),
    "poisson_gaussian": Kind(
        poisson_gaussian,
        "a sensor's shot and read noise, not clipped",
        "poisson_gaussian:50-1000,read=0-5",
        (
            Parameter("peak", Span(50, 1000), Span(0.1, 1e7), "photons at white"),
            Parameter("read", Span(0, 5), Span(0, 255), "/ 255"),
        ),
    ),
    "defocus": Kind(
        defocus,
        "a lens out of focus: a disc",
        "defocus:1-6,vary=0.5",
        (
            Parameter("radius", Span(1, 6), Span(0, 100), "pixels"),
            Parameter("vary", Span(0, 0), Span(0, 1), "of the radius"),
        ),
        reach=lambda radius, vary: radius * (1 + vary),
    ),
    "motion": Kind(
        motion,
        "a camera that moves: a line, or with shake a random path",
        "motion:5-25,angle=-90..90,shake=0-1",
        (
            Parameter("length", Span(5, 25), Span(0, 500), "pixels"),
            Parameter("angle", Span(-90, 90), Span(-360, 360), "degrees from horizontal"),
            Parameter("shake", Span(0, 0), Span(0, 10), "of the steady speed"),
        ),
        # No point of a path is farther from its mean than half its length; one more pixel to interpolate.
        reach=lambda length, **_: length / 2 + 1,
    ),
    "rain": Kind(
        rain,
        "white streaks, clipped to [0, 1]",
        "rain:0.1-0.4,length=20-40,tilt=-28..28",
        (
            Parameter("density", Span(0.1, 0.4), Span(0, 10), "% of pixels"),
            Parameter("length", Span(20, 40), Span(1, 1000), "pixels"),
            Parameter("tilt", Span(-28, 28), Span(-45, 45), "degrees from vertical"),
            Parameter("peak", Span(0.2, 0.5), Span(0, 1), "of white"),
            Parameter("width", Span(1, 2), Span(0.5, 20), "pixels"),
            Parameter("depth", Span(2, 2), Span(1, 10), "times the nearest drop's distance"),
            Parameter("spread", Span(2, 2), Span(0, 20), "degrees"),
            Parameter("soft", Span(1, 1), Span(0, 1), "of a half wave"),
        ),
    ),
    "sensor": Kind(
        sensor,
        "a camera in poor light: mosaic, noise, demosaicing, noise reduction, sharpening, size, JPEG",
        "sensor:400-12800,curve=1,demosaic=0-1,scale=1",
        (
            Parameter("iso", Span(100, 12800), Span(50, 102400), "ISO", log=True),
            Parameter("curve", Span(0, 1), Span(0, 1), "(0 phone, 1 large sensor)", whole=True),
            Parameter("demosaic", Span(0, 2), Span(0, 2), "(0 bilinear, 1 Malvar, 2 directed)", whole=True),
            Parameter("dark", Span(0, 0), Span(0, 8), "stops"),
            Parameter("scale", Span(0.5, 1.5), Span(0.25, 2), "of the sensor's size, 1 at most"),
            Parameter("denoise", Span(0.1, 0.8), Span(0, 1), "of the noise"),
            Parameter("chroma", Span(0.6, 1), Span(0, 1), "of the colours' noise"),
            Parameter("sharpen", Span(0, 1), Span(0, 3), "of the detail"),
            Parameter("jpeg", Span(75, 98), Span(0, 100), "of libjpeg's scale, 0 for none", whole=True),
        ),
        reach=lambda **_: 8.0,
        pair=sensor_pair,
    ),
    "shake": Kind(
        shake,
        "a camera or things that move while the shutter is open, in linear light, differently over the picture",
        "shake:0-40,path=0-1,moving=0+sensor:100-3200",
        (
            Parameter("extent", Span(0, 40), Span(0, 100), "pixels"),
            Parameter("path", Span(0, 2), Span(0, 2), "(0 tremor, 1 nearly straight, 2 strokes)", whole=True),
            Parameter("layers", Span(1, 3), Span(1, 4), "depths", whole=True),
            Parameter("moving", Span(0, 2), Span(0, 2), "(0 the camera, 1 a thing, 2 both)", whole=True),
            Parameter("frames", Span(0, 0), Span(0, 64), "sharp frames, 0 for all the time", whole=True),
            Parameter("highlights", Span(1, 6), Span(1, 20), "times white"),
        ),
        reach=lambda extent, **_: extent / 2 + 1,
    ),
    "lens": Kind(
        lens,
        "a lens out of focus, by the layers of a scene, in linear light, with cat's eyes and fringes",
        "lens:0-15,blades=0+sensor:100-3200",
        (
            Parameter("radius", Span(0, 15), Span(0, 50), "pixels"),
            Parameter("layers", Span(1, 3), Span(1, 4), "depths", whole=True),
            Parameter("blades", Span(4, 9), Span(0, 11), "(below 5: a disc)", whole=True),
            Parameter("cut", Span(0, 0.8), Span(0, 1), "of the radius"),
            Parameter("fringe", Span(0, 0.5), Span(0, 2), "pixels"),
            Parameter("highlights", Span(1, 6), Span(1, 20), "times white"),
        ),
        reach=lambda radius, fringe, **_: radius + fringe + 1,
    ),
    "rainfall": Kind(
        rainfall,
        "layers of streaks that cover what is behind, thin or bright, and mist; clipped to [0, 1]",
        "rainfall:2-10,kind=0-1,tilt=-30..30",
        (
            Parameter("amount", Span(2, 10), Span(0, 30), "% of pixels"),
            Parameter("kind", Span(0, 3), Span(0, 3), "(0 long, 1 short, 2 fine, 3 all)", whole=True),
            Parameter("tilt", Span(-60, 60), Span(-75, 75), "degrees from vertical"),
            Parameter("jitter", Span(0, 5), Span(0, 20), "degrees"),
            Parameter("opacity", Span(0.4, 1), Span(0, 1), "of the picture"),
            Parameter("veil", Span(0, 0.15), Span(0, 1), "of the picture"),
        ),
    ),
    "jpeg": Kind(
        jpeg,
        "an 8-bit JPEG file",
        "jpeg:70-95",
        (
            Parameter("quality", Span(70, 95), Span(1, 100), "of libjpeg's scale", whole=True),
            Parameter("subsampling", Span(420, 420), Span(420, 444), "", choices=(420, 422, 444)),
        ),
    ),
    "clip": Kind(clip, "clamp to [0, 1]", "gaussian:25+clip"),
    "round8": Kind(round8, "clamp to [0, 1] and round to 8 bits", "gaussian:25+round8"),
}
