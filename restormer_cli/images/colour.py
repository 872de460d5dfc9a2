"""What a picture's numbers mean, and the sRGB-like picture that a network is shown instead.

    colour = read_colour(icc, chunks, exif)                  # whatever the file says it by
    working = working_space(colour, pixels, floats)          # None: the numbers are sRGB's, or as good as
    shown = working.show(pixels)                             # what the network has been trained on
    result = working.carry(pixels, shown, restore(shown))    # the change, in the picture's own numbers

Networks are trained on sRGB. Linear light, PQ, HLG and wide gamuts spread the same scene over other numbers, so the
noise in them has another size and the edges another contrast. The change alone is carried back, so that what the
network leaves alone stays exactly as it was, and what sRGB cannot show (colours beyond its gamut, light beyond white)
fades out of the restoration over a margin.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np

from restormer_cli.images.formats.exif_icc import icc_space, is_adobe_rgb
from restormer_cli.images.light import (
    BY_CODE,
    D50_XYZ,
    D65,
    LINEAR,
    PRIMARIES,
    SRGB,
    SRGB_POINTS,
    VIDEO,
    Curve,
    Numbers,
    gamma_curve,
    odd,
    of_points,
    to_xyz_d50,
)

ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
ADOBE_GAMMA = 563 / 256
SAME = 0.012
"""How far two colours may lie apart and count as one: profiles round their numbers."""
NARROW = 0.45
"""Largest step of a matrix from the identity at which numbers pass for sRGB's: Display P3 has 0.22, Adobe RGB 0.40,
Rec. 2020 0.66, ProPhoto 1.03."""
ALIKE = 0.035
"""How far a curve may lie from sRGB's for the numbers to be shown as they are: gamma 2.2 does."""
MARGIN = 0.1
"""Beyond [0, 1], on the scale of what is shown: where the change has faded to nothing."""
ROWS = 1 << 20
"""Pixels that are converted at once."""


# --- Colours ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Colour:
    """What numbers mean: how light follows from them, and which lights red, green and blue are.

    curves: one, or one for each channel. to_srgb: linear light -> sRGB's linear light, 3 × 3; None for gray.
    code: primaries and transfer by H.273, where they have numbers there.
    """

    curves: tuple[Curve, ...]
    to_srgb: np.ndarray | None = None
    code: tuple[int, int] | None = None

    @cached_property
    def narrow(self) -> bool:
        """Whether the primaries are so near to sRGB's that the numbers may pass for sRGB's."""
        return self.to_srgb is None or float(np.abs(self.to_srgb - np.eye(3)).max()) < NARROW

    @cached_property
    def alike(self) -> bool:
        """Whether the curves pass for sRGB's."""
        signal = np.linspace(0, 1, 256)
        return all(float(np.abs(SRGB.signal(curve.light(signal)) - signal).max()) < ALIKE for curve in self.curves)


@dataclass(frozen=True, eq=False)
class TableColour:
    """What numbers mean by the tables of an ICC profile, both ways: through lcms, relative colorimetric, in floats."""

    icc: bytes = field(repr=False)

    narrow = alike = False

    def light(self, values: Numbers) -> Numbers:
        """(h, w, 3) in the profile's numbers -> sRGB's linear light, in which colours beyond sRGB are negative."""
        return self._through(values, self.icc, linear_srgb())

    def numbers(self, light: Numbers) -> Numbers:
        """The inverse, as far as the profile's tables reach."""
        return self._through(light, linear_srgb(), self.icc)

    def _through(self, values: Numbers, source: bytes, target: bytes) -> Numbers:
        import imagecodecs

        return imagecodecs.cms_transform(
            np.ascontiguousarray(values, np.float32),
            source,
            target,
            colorspace="rgb",
            outcolorspace="rgb",
            outdtype="float32",
            intent=RELATIVE,
        )


RELATIVE = 1
"""lcms's number of the relative colorimetric intent."""


@cache
def linear_srgb() -> bytes:
    """A profile of linear light with sRGB's primaries."""
    import imagecodecs

    primaries = [number for x, y in SRGB_POINTS for number in (x, y, 1.0)]
    return bytes(imagecodecs.cms_profile("rgb", whitepoint=[*D65, 1.0], primaries=primaries, gamma=1.0))


def is_srgb(colour: Colour | TableColour) -> bool:
    """Whether the numbers are sRGB's own, within what profiles round."""
    return isinstance(colour, Colour) and _near(colour, Colour((SRGB,), np.eye(3)))


def code_of(colour: Colour | TableColour) -> tuple[int, int] | None:
    """Primaries and transfer by H.273's numbers; None where it has none for them."""
    if isinstance(colour, TableColour):
        return None
    if colour.code is not None:
        return colour.code
    for primaries in (1, 12, 9):
        for transfer, curve in BY_CODE.items():
            if _near(colour, Colour((curve,), of_points(*PRIMARIES[primaries]))):
                return primaries, transfer
    return None


def _near(one: Colour, other: Colour) -> bool:
    matrices = one.to_srgb, other.to_srgb
    if matrices[0] is not None and matrices[1] is not None and np.abs(matrices[0] - matrices[1]).max() > SAME:
        return False
    light = np.linspace(0, 1, 256)
    return all(np.abs(curve.signal(light) - other.curves[0].signal(light)).max() < SAME for curve in one.curves)


def of_code(primaries: int, transfer: int) -> Colour | None:
    """By H.273's numbers; None where these leave it open or mean sRGB."""
    if primaries == 2 and transfer == 2:
        return None
    points, white = PRIMARIES.get(primaries, PRIMARIES[1])
    curve = SRGB if transfer in VIDEO else BY_CODE.get(transfer, SRGB)
    return Colour((curve,), of_points(points, white), (primaries, transfer))


def read_colour(
    icc: bytes | None, chunks: Sequence[tuple[bytes, bytes]] = (), exif: bytes | None = None
) -> Colour | TableColour | None:
    """What a file says by an ICC profile, PNG's chunks (AVIF, HEIC and JPEG XL give theirs as cICP) or EXIF.

    None where it says nothing, or nothing that can be undone (profiles whose tables lead one way only).
    """
    known = dict(chunks)
    if len(body := known.get(b"cICP", b"")) == 4:
        return of_code(body[0], body[1])
    if icc:
        return of_icc(icc)
    if b"sRGB" in known:
        return None
    if b"gAMA" in known or b"cHRM" in known:
        return _of_png(known.get(b"gAMA", b""), known.get(b"cHRM", b""))
    if exif and is_adobe_rgb(exif):
        return Colour((gamma_curve(ADOBE_GAMMA),), of_points(ADOBE, D65))
    return None


def _of_png(gamma: bytes, points: bytes) -> Colour | None:
    exponent = int.from_bytes(gamma, "big") / 100_000 if len(gamma) == 4 else 0
    curve = SRGB if exponent <= 0 or abs(exponent - 0.45455) < 0.007 else gamma_curve(1 / exponent)
    matrix = np.eye(3)
    if len(points) == 32:
        values = [value / 100_000 for value in struct.unpack(">8I", points)]
        pairs = list(zip(values[::2], values[1::2], strict=True))
        try:
            matrix = of_points(pairs[1:], pairs[0])
        except (np.linalg.LinAlgError, ZeroDivisionError):
            return None
    return Colour((curve,), matrix) if np.isfinite(matrix).all() else None


# --- ICC profiles -------------------------------------------------------------------------------------------------


def of_icc(icc: bytes) -> Colour | TableColour | None:
    """A profile of a matrix and curves, of one curve for gray, or of tables both ways; None for another, or a damaged
    one, or tables that say sRGB."""
    try:
        return _of_icc(icc)
    except (struct.error, ValueError, IndexError, np.linalg.LinAlgError):
        return None


MAX_TAGS = 200


def _of_icc(icc: bytes) -> Colour | TableColour | None:
    space, tags = icc_space(icc), {}
    for row in range(min(int.from_bytes(icc[128:132], "big"), MAX_TAGS)):
        name, start, length = struct.unpack_from(">4sII", icc, 132 + 12 * row)
        tags[name] = icc[start : start + length]
    if len(code := tags.get(b"cicp", b"")) >= 12 and space == "RGB":
        return of_code(code[8], code[9])
    if space == "GRAY" and b"kTRC" in tags:
        return Colour((_icc_curve(tags[b"kTRC"]),))
    if space == "RGB" and b"rXYZ" not in tags and b"A2B0" in tags and b"B2A0" in tags:
        return _of_tables(icc)
    if space != "RGB" or not all(name in tags for name in (b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC")):
        return None
    columns = [np.array(struct.unpack_from(">3i", tags[name], 8)) / 65536 for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    matrix = np.linalg.inv(to_xyz_d50(SRGB_POINTS, D65)) @ np.stack(columns, axis=1)
    if abs(np.linalg.det(matrix)) < 1e-6:
        return None
    bodies = [tags[name] for name in (b"rTRC", b"gTRC", b"bTRC")]
    curves = tuple(_icc_curve(body) for body in (bodies[:1] if len(set(bodies)) == 1 else bodies))
    return Colour(curves, matrix)


def _of_tables(icc: bytes) -> TableColour | None:
    colour, steps = TableColour(icc), np.linspace(0, 1, 5)
    tried = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    try:
        light = colour.light(tried)
        again = colour.numbers(np.clip(light, 0, 1))
    except Exception:  # lcms's own kinds: it cannot use this profile
        return None
    sound = np.isfinite(light).all() and np.isfinite(again).all()
    srgb = np.abs(odd(SRGB.signal, light) - tried).max() < SAME
    return colour if sound and not srgb else None


def _icc_curve(body: bytes) -> Curve:
    kind = body[:4]
    if kind == b"curv":
        count = int.from_bytes(body[8:12], "big")
        if count == 0:
            return LINEAR
        if count == 1:
            return gamma_curve(max(0.01, int.from_bytes(body[12:14], "big") / 256))
        return _table_curve(np.array(struct.unpack_from(f">{count}H", body, 12)) / 65535)
    if kind != b"para":
        raise ValueError("no curve")
    form = int.from_bytes(body[8:10], "big")
    count = (1, 3, 4, 5, 7)[form]
    g, a, b, c, d, e, f = (*(value / 65536 for value in struct.unpack_from(f">{count}i", body, 12)), *[0.0] * 7)[:7]
    if form == 0:
        return gamma_curve(max(0.01, g))
    if form in (1, 2):
        c, d, e, f = (c if form == 2 else 0.0), (-b / a if a else 0.0), 0.0, 0.0
        signal = np.linspace(0, 1, 4097)
        return _table_curve(np.where(signal >= d, np.maximum(a * signal + b, 0) ** g + c, c))
    # form 3 and 4: (a v + b)^g + e from d on, c v + f below
    if form == 3:
        e = f = 0.0
    knee = c * d + f

    def light(v: Numbers) -> Numbers:
        return np.where(v >= d, np.maximum(a * v + b, 0) ** g + e, c * v + f)

    def signal_of(v: Numbers) -> Numbers:
        lower = (v - f) / c if c else np.zeros_like(v)
        return np.where(v >= knee, (np.maximum(v - e, 0) ** (1 / g) - b) / a, lower)

    if g <= 0 or a == 0:
        raise ValueError("no curve")
    return Curve(light, signal_of)


def _table_curve(table: np.ndarray) -> Curve:
    rising = np.maximum.accumulate(table)
    if rising[-1] <= rising[0]:
        raise ValueError("no curve")
    places = np.linspace(0, 1, len(table))
    steps = rising + np.linspace(0, 1e-9, len(table))  # strictly rising, for the way back
    top = max(float(rising[-1]), 1e-6)
    return Curve(
        lambda v: np.where(v > 1, top * v, np.interp(v, places, rising)),
        lambda v: np.where(v > top, v / top, np.interp(v, steps, places)),
    )


def make_icc(colour: Colour, name: str) -> bytes:
    """A profile (version 4.3) that says the same: a matrix and curves of 4096 places, and H.273's numbers where known.

    Light beyond white is cut off in the curves; who reads the numbers (tag `cicp`, ICC.1:2022) sees all of it.
    """
    to_xyz = to_xyz_d50(SRGB_POINTS, D65) @ (np.eye(3) if colour.to_srgb is None else colour.to_srgb)

    def text(words: str) -> bytes:
        body = words.encode("utf-16-be")
        return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(body), 28) + body

    def xyz(values: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *[round(float(value) * 65536) for value in values])

    def curve(own: Curve) -> bytes:
        values = np.clip(own.light(np.linspace(0, 1, 4096)), 0, 1) * 65535
        return b"curv\0\0\0\0" + struct.pack(">I", 4096) + np.rint(values).astype(">u2").tobytes()

    curves = [curve(own) for own in colour.curves]
    if colour.to_srgb is None:
        tags = {b"kTRC": curves[0]}
    else:
        tags = {b"rXYZ": xyz(to_xyz[:, 0]), b"gXYZ": xyz(to_xyz[:, 1]), b"bXYZ": xyz(to_xyz[:, 2])}
        tags |= dict(zip((b"rTRC", b"gTRC", b"bTRC"), curves * (3 // len(curves)), strict=True))
    tags |= {b"desc": text(name), b"cprt": text("CC0"), b"wtpt": xyz(D50_XYZ)}
    if colour.code is not None and colour.to_srgb is not None:
        tags[b"cicp"] = b"cicp\0\0\0\0" + bytes([*colour.code, 0, 1])
    table, body, start = b"", b"", 132 + 12 * len(tags)
    places: dict[bytes, int] = {}
    for tag, value in tags.items():
        if value not in places:
            places[value] = start + len(body)
            body += value + b"\0" * (-len(value) % 4)
        table += struct.pack(">4sII", tag, places[value], len(value))
    space = b"GRAY" if colour.to_srgb is None else b"RGB "
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0\0\0\0", 0x04400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp").ljust(44, b"\0")
    head += struct.pack(">3i", *[round(float(value) * 65536) for value in D50_XYZ])
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


# --- The working space -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Working:
    """The way from a picture's numbers to what a network is shown, and back.

    scale: the number that means 1. colour: None: sRGB's own numbers, of which some lie beyond [0, 1].
    """

    scale: float = 1.0
    colour: Colour | TableColour | None = None

    def show(self, pixels: Numbers) -> Numbers:
        """float32 (h, w, 1 or 3) in the picture's numbers -> sRGB's in [0, 1], the same shape."""
        return self._by_rows(lambda rows: np.clip(self._forth(rows), 0, 1), pixels)

    def carry(self, pixels: Numbers, shown: Numbers, restored: Numbers) -> Numbers:
        """The picture with the change from `shown` to `restored`, all (h, w, 1 or 3), in the picture's numbers."""

        def rows(own: Numbers, before: Numbers, after: Numbers) -> Numbers:
            there = self._forth(own)
            beyond = np.abs(there - before).max(axis=2, keepdims=True)  # before is clipped
            weight = np.clip(1 - beyond / MARGIN, 0, 1)
            change = self._back(there + weight * (after - before)) - self._back(there)
            return own + np.where(weight > 0, change, 0)

        return self._by_rows(rows, pixels, shown, restored)

    def convert(self, pixels: Numbers) -> Numbers:
        """The picture in sRGB's numbers; what lies beyond [0, 1] is not clipped."""
        return self._by_rows(self._forth, pixels)

    def _by_rows(self, convert: Callable[..., Numbers], *pictures: Numbers) -> Numbers:
        result = np.empty(pictures[0].shape, np.float32)
        step = max(1, ROWS // pictures[0].shape[1])
        for top in range(0, len(result), step):
            result[top : top + step] = convert(*(picture[top : top + step] for picture in pictures))
        return result

    def _forth(self, pixels: Numbers) -> Numbers:
        values = pixels.astype(np.float32) / np.float32(self.scale)
        if self.colour is None:
            return values
        if isinstance(self.colour, TableColour):
            return odd(SRGB.signal, self.colour.light(values))
        light = self._curved(values, back=False)
        if self.colour.to_srgb is not None and light.shape[2] == 3:
            light = light @ self.colour.to_srgb.T
        return odd(SRGB.signal, light)

    def _back(self, shown: Numbers) -> Numbers:
        if self.colour is None:
            return shown * self.scale
        light = odd(SRGB.light, shown.astype(np.float64))
        if isinstance(self.colour, TableColour):
            return self.colour.numbers(light) * self.scale
        if self.colour.to_srgb is not None and light.shape[2] == 3:
            light = light @ np.linalg.inv(self.colour.to_srgb).T
        return self._curved(light, back=True) * self.scale

    def _curved(self, values: Numbers, *, back: bool) -> Numbers:
        assert isinstance(self.colour, Colour)
        values = values.astype(np.float64)
        curves = self.colour.curves
        parts = [values] if len(curves) == 1 else [values[..., at : at + 1] for at in range(values.shape[2])]
        done = [
            odd(curve.signal if back else curve.light, part)
            for curve, part in zip(curves[: len(parts)], parts, strict=True)
        ]
        return done[0] if len(done) == 1 else np.concatenate(done, axis=2)


def working_space(colour: Colour | TableColour | None, pixels: Numbers, *, floats: bool) -> Working | None:
    """How these pixels are to be shown to a network; None where they can be shown as they are."""
    scale = float_scale(pixels) if floats else 1.0
    plain = colour is None or (colour.alike and colour.narrow)
    inside = not floats or (float(pixels.min()) >= -MARGIN / 4 and float(pixels.max()) <= 1 + MARGIN / 4)
    if plain and scale == 1 and inside:
        return None
    return Working(scale, None if plain else colour)


COUNTS = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)


def float_scale(pixels: Numbers) -> float:
    """What white is in floats that a program has written as it counted: 1, or one less than a power of two.

    Light beyond white lies in few pixels, so that the middle of them tells the two apart; counts are whole numbers.
    """
    top = float(pixels.max())
    if top <= 16:
        return 1.0
    some = pixels.reshape(-1)[:: max(1, pixels.size // 100_000)]
    whole = float((some == np.rint(some)).mean()) > 0.9
    if not whole and float(np.median(some)) <= 2:
        return 1.0
    return next((count for count in COUNTS if top <= count * 1.02), top)
