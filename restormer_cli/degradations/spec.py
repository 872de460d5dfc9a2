"""The small language that names degradations. `KINDS`, at the end, is the whole catalogue; recipes and the
command line write it as a spec:

    gaussian:25                      a kind and its main parameter
    gaussian:0-50                    a range, drawn uniformly for each picture
    motion:5-25,angle=-90..90        more parameters by name; `..` where a bound is negative
    defocus:3+gaussian:2             one after the other
    jpeg:70-95@0.5                   applied to half of the pictures
    gaussian:0-50|poisson_gaussian   one of the alternatives, all equally likely (repeat one to weigh it)

A kind that changes what is to be found in the degraded picture too, as `sensor` and `gray` do, gives both: see `pair`.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from zlib import crc32

import numpy as np

from restormer_cli.degradations.lens import lens
from restormer_cli.degradations.operators import (
    Image,
    clip,
    defocus,
    gaussian,
    gray,
    gray_pair,
    jpeg,
    motion,
    poisson_gaussian,
    rain,
    round8,
)
from restormer_cli.degradations.rain import rainfall
from restormer_cli.degradations.sensor import sensor, sensor_pair
from restormer_cli.degradations.shake import shake
from restormer_cli.errors import UserError

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
    """Error of a parameter; `_parse_operation` adds where, and an example."""


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
        # No point of a straight path is farther from its mean than half its length; of a shaken one, which may linger
        # at an end, than its length. One more pixel to interpolate.
        reach=lambda length, shake, **_: length * (1 if shake else 0.5) + 1,
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
    "gray": Kind(
        gray,
        "black and white: no colours, to be found without them",
        "gaussian:0-50+gray@0.2",
        (Parameter("of", Span(0, 1), Span(0, 1), "(0 luma, 1 green)", whole=True),),
        pair=gray_pair,
    ),
    "clip": Kind(clip, "clamp to [0, 1]", "gaussian:25+clip"),
    "round8": Kind(round8, "clamp to [0, 1] and round to 8 bits", "gaussian:25+round8"),
}
