"""Input and output of every codec: samples as the file stores them, and what travels beside them."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from restormer_cli.errors import RestormerError, one_line

FLOAT_BITS = 32
COPY_AGAIN = "copy or download it again"
TRUNCATED = f"truncated: the file ends too early; {COPY_AGAIN}"


class Unreadable(ValueError):
    """Why these bytes are no picture that we can read; `images` puts the file's name in front."""


def damaged(what: str) -> Unreadable:
    """The error for bytes that contradict themselves."""
    return Unreadable(f"damaged ({what}); {COPY_AGAIN}")


@contextmanager
def third_party() -> Iterator[None]:
    """Third-party codecs run in here: whatever they raise becomes `Unreadable`, and nothing reaches stderr.

    The only broad `except` of these modules. Decoders meet hostile bytes, and they answer with anything:
    IndexError, struct.error, UnicodeDecodeError, AssertionError, RuntimeErrors of their own.
    """
    # What they warn of reaches the user as an error or a note. Both calls are idempotent.
    warnings.filterwarnings("ignore", module=r"(PIL|imageio|tifffile|imagecodecs)\b")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    try:
        yield
    except (Unreadable, RestormerError, MemoryError):
        raise
    except Exception as error:
        # A decoder that stumbled over the bytes has no reason worth showing; one that refused them has.
        stumbled = isinstance(error, (UnicodeError, TypeError, AttributeError, AssertionError, LookupError))
        reason = "" if stumbled else one_line(str(error))[:160]
        if "truncated" in reason:
            raise Unreadable(TRUNCATED) from error
        raise Unreadable(f"damaged{f' ({reason})' if reason else ''}; {COPY_AGAIN}") from error


@dataclass
class Raster:
    """A picture as its file holds it.

    samples: (h, w, 1..4), that is gray, gray + alpha, RGB or RGBA; uint8 or uint16 holding 0 .. 2**bits - 1,
        or float32 when bits is 32, or when they come from a camera's sensor. Not yet turned upright.
    orientation: EXIF's 1 to 8, or None: as the EXIF says.
    exif: a TIFF structure, without the "Exif\\0\\0" that JPEG puts in front.
    dpi: pixels per inch, horizontal and vertical.
    colour: PNG chunks that say what the numbers mean (gAMA, cHRM, ...), verbatim; from AVIF and JPEG XL as cICP.
    lossless: whether the file keeps every sample exactly.
    premultiplied: whether colour is already multiplied by alpha.
    """

    samples: np.ndarray
    bits: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    orientation: int | None = None
    dpi: tuple[float, float] | None = None
    colour: tuple[tuple[bytes, bytes], ...] = ()
    lossless: bool = True
    premultiplied: bool = False
    notes: tuple[str, ...] = ()
    beside: "Beside" = field(default_factory=lambda: Beside())
    camera: "Camera | None" = None


@dataclass(frozen=True, eq=False)
class Camera:
    """A sensor's colours, for a DNG.

    from_srgb: sRGB's linear light -> the sensor's after white balance, 3 × 3. neutral: what white was on the sensor, at
    most 1. from_xyz: XYZ -> the sensor's before white balance, as DNG's ColorMatrix1 under D65; None: sRGB's.
    """

    from_srgb: np.ndarray = field(default_factory=lambda: np.eye(3))
    neutral: np.ndarray = field(default_factory=lambda: np.ones(3))
    from_xyz: np.ndarray | None = None


@dataclass(frozen=True)
class Beside:
    """Metadata of people and programs, carried as it is; a format holds what its row says.

    xmp: an XMP packet. iptc: IPTC-IIM records. comment: JPEG's, bytes of no fixed encoding.
    text: PNG's tEXt, zTXt and iTXt chunks, but for XMP. tags: GeoTIFF's and GDAL's in TIFF: number, type, count and
    the values in little-endian order. extended: the XMP that a JPEG keeps apart since it is long.
    """

    xmp: bytes | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    text: tuple[tuple[bytes, bytes], ...] = ()
    tags: tuple[tuple[int, int, int, bytes], ...] = ()
    extended: bytes | None = None

    def names(self) -> dict[str, str]:
        """Field -> what people call it, of those that are there."""
        keywords = sorted({one_line(body.partition(b"\0")[0].decode("latin-1")) for _, body in self.text})
        words = {
            "xmp": "XMP",
            "iptc": "IPTC",
            "comment": "comment",
            "text": f"text ({', '.join(keywords)[:80]})",
            "tags": "georeference",
            "extended": "extended XMP",
        }
        return {name: word for name, word in words.items() if getattr(self, name)}


ORIENTATION_IN_XMP = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))[2-8]""")


def upright_xmp(xmp: bytes) -> bytes:
    """The packet of a picture that has been turned upright; its length stays."""
    return ORIENTATION_IN_XMP.sub(rb"\g<1>1", xmp)


SRGB = (1, 13)
"""Primaries and transfer of sRGB by ITU-T H.273, which PNG's cICP, AVIF and JPEG XL count by."""


def cicp_of(colour: tuple[tuple[bytes, bytes], ...]) -> tuple[int, int] | None:
    """Primaries and transfer that a cICP chunk names, or gAMA's 1.0 (linear light); None where nothing does."""
    chunks = dict(colour)
    if len(body := chunks.get(b"cICP", b"")) == 4:
        return body[0], body[1]
    if b"sRGB" not in chunks and chunks.get(b"gAMA") == (100_000).to_bytes(4, "big") and b"cHRM" not in chunks:
        return SRGB[0], 8
    return None


SUBSAMPLING = ("4:4:4", "4:2:2", "4:2:0")


@dataclass(frozen=True)
class Options:
    """How lossy formats are written; each encoder takes what concerns it.

    quality: 1 to 100. subsampling: of the colour channels, one of SUBSAMPLING. lossless: in WebP and JPEG XL.
    """

    quality: int = 95
    subsampling: str = "4:4:4"
    lossless: bool = False


def peak(bits: int) -> int:
    """The sample that means 1.0: 255 at 8 bits, 65535 at 16, 1 for floats."""
    return 1 if bits == FLOAT_BITS else 2**bits - 1


def sample_type(bits: int) -> type[np.generic]:
    """The numpy type that holds samples of so many bits."""
    return np.float32 if bits == FLOAT_BITS else np.uint16 if bits > 8 else np.uint8


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture by the size that its header claims, before anything is decoded or allocated."""
    if width < 1 or height < 1:
        raise damaged(f"its header claims {width} × {height} pixels")
    if width * height > max_pixels:
        raise Unreadable(
            f"its header claims {width} × {height} pixels, more than the limit of {max_pixels:,}; "
            "raise the limit or make the picture smaller"
        )


def check_plausible(size: int, decoded: int, ratio: float, what: str) -> None:
    """Refuse `size` bytes that claim to hold `decoded` ones, when the compression cannot exceed `ratio`.

    A tiny file that claims a huge picture is turned away here instead of costing gigabytes of zeros.
    """
    if decoded > ratio * size + 1024:
        raise damaged(f"{size:,} bytes of {what} cannot hold the {decoded:,} that it claims")


MAX_METADATA = 16 << 20  # bytes of ICC or EXIF after decompression


def with_channels(samples: np.ndarray) -> np.ndarray:
    """(h, w) or (h, w, c) -> (h, w, c), c at most 4."""
    samples = samples[..., None] if samples.ndim == 2 else samples
    if samples.ndim != 3 or not 1 <= samples.shape[2] <= 4 or samples.size == 0:
        raise Unreadable(f"its samples have the shape {samples.shape}, which is no gray or colour picture")
    return samples
