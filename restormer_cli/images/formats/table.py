"""Capabilities of each format, and the two functions that read and write it."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

from restormer_cli.images.formats.avif import avif_keeps, decode_avif, encode_avif
from restormer_cli.images.formats.heic import decode_heic, encode_heic, heic_keeps
from restormer_cli.images.formats.jpeg_xl import decode_jxl, encode_jxl, jxl_keeps
from restormer_cli.images.formats.pillow import decode_bmp, decode_jpeg, encode_bmp, encode_jpeg
from restormer_cli.images.formats.png import decode_png, encode_png
from restormer_cli.images.formats.raster import FLOAT_BITS, Options, Raster
from restormer_cli.images.formats.raw import decode_raw, encode_dng
from restormer_cli.images.formats.tiff import decode_tiff, encode_tiff
from restormer_cli.images.formats.webp import decode_webp, encode_webp

UNLIMITED = 2**31 - 1
XMP = frozenset({"xmp"})
Colour = tuple[tuple[bytes, bytes], ...]


class Codec(NamedTuple):
    """Capabilities of a format, and the two functions that read and write it."""

    decode: Callable[[bytes, int], Raster]
    encode: Callable[[Raster, Options], bytes]
    depths: tuple[int, ...]  # bits per sample, ascending; 32 is float
    max_side: int  # pixels
    gray: bool = True  # one channel stays one channel
    alpha: bool = True
    exact_alpha: bool = True  # alpha is kept exactly even where colour is not
    premultiplied: bool = False  # can say that colour is multiplied by alpha
    icc: bool = True
    exif_limit: int = UNLIMITED  # bytes
    beside: frozenset[str] = frozenset()  # fields of `Beside`
    colour: Callable[[Colour, int, bool], bool] = lambda colour, bits, lossless: False  # says what the numbers mean
    metadata_depth: int = FLOAT_BITS  # the largest depth at which we can write ICC and EXIF
    floats: bool = False  # takes pixels as they are, neither clamped nor rounded


CODECS = {
    "png": Codec(
        decode_png, encode_png, (8, 16), 1_000_000, beside=frozenset({"xmp", "iptc", "text"}), colour=lambda *_: True
    ),
    "jpg": Codec(
        decode_jpeg, encode_jpeg, (8,), 65_500, alpha=False, exif_limit=65_527,
        beside=frozenset({"xmp", "iptc", "comment", "extended"}),
    ),
    "tif": Codec(
        decode_tiff, encode_tiff, (8, 16, 32), UNLIMITED, premultiplied=True,
        beside=frozenset({"xmp", "iptc", "tags"}),
    ),
    "webp": Codec(decode_webp, encode_webp, (8,), 16_383, gray=False, beside=XMP),
    "bmp": Codec(decode_bmp, encode_bmp, (8,), UNLIMITED, icc=False, exif_limit=0),
    "jxl": Codec(decode_jxl, encode_jxl, (8, 16, 32), 1 << 30, icc=False, beside=XMP, colour=jxl_keeps),
    "avif": Codec(
        decode_avif, encode_avif, (8, 10, 12), 65_535, exact_alpha=False, metadata_depth=8,
        beside=XMP, colour=avif_keeps,
    ),
    "heic": Codec(
        decode_heic, encode_heic, (8, 10, 12), 16_384, exact_alpha=False, beside=XMP, colour=heic_keeps,
    ),
    "dng": Codec(
        decode_raw, encode_dng, (16,), UNLIMITED, gray=False, alpha=False, icc=False, beside=XMP, floats=True,
    ),
}  # fmt: skip


class About(NamedTuple):
    """What docs/reference/formats.md says of a format beside its `Codec`."""

    name: str
    also: str
    """What else is read, and as what."""
    lossless: str
    written: str
    """By which library, as below."""
    read: str
    why: str
    """Why not all of it by imageio."""


_IMAGEIO = "imageio's Pillow plugin: ICC, EXIF, XMP, quality, subsampling pass through"
_PILLOW = (
    "imageio's reader tries every format and refuses over 358 megapixels; ours checks the header first: size, scans, "
    "plausible length, 12-bit JPEG"
)
ABOUT = {
    "png": About(
        "PNG", "palettes and 1, 2, 4 bits become 8", "yes", "imagecodecs", "imagecodecs",
        "imageio reads 16-bit colour as 8 bits and loses colour chunks",
    ),
    "jpg": About(
        "JPEG", "12 bits; CMYK becomes colour, through its profile", "no", _IMAGEIO, "Pillow's class of that format",
        _PILLOW,
    ),
    "tif": About(
        "TIFF", "CMYK and CIE Lab become colour; fax (CCITT), JPEG 2000 and WebP inside are read", "yes",
        "our own directory", "tifffile, after the header is checked",
        "its plugin, tifffile too, places no EXIF directory",
    ),
    "webp": About("WebP", "", "as the input was", _IMAGEIO, "Pillow's class of that format", _PILLOW),
    "bmp": About(
        "BMP", "", "yes", "as JPEG; with alpha our own header",
        "Pillow's class of that format; 16-bit masks by ourselves",
        "Pillow can neither write alpha nor read such masks",
    ),
    "jxl": About(
        "JPEG XL", "", "as the input was; lossy where that was made of a JPEG", "imagecodecs", "imagecodecs",
        "no plugin",
    ),
    "avif": About(
        "AVIF", "", "no", "8 bits as JPEG; 10 and 12 bits imagecodecs",
        "8 bits Pillow's class; 10 and 12 bits imagecodecs", "no plugin for 10 and 12 bits",
    ),
    "heic": About("HEIC", "", "no", "pillow-heif", "pillow-heif", "through Pillow 8 bits only"),
    "dng": About(
        "DNG", "raw files of cameras are read", "yes", "our own directory", "rawpy",
        "its plugin does not give the camera's own white balance and lens",
    ),
}  # fmt: skip
"""As `CODECS`. Pictures in pages and previews, and validation pictures, are written by imageio."""

READABLE = {
    ".png": "png", ".apng": "png",
    ".jpg": "jpg", ".jpeg": "jpg", ".jpe": "jpg", ".jfif": "jpg", ".mpo": "jpg",
    ".tif": "tif", ".tiff": "tif",
    ".webp": "webp",
    ".bmp": "bmp", ".dib": "bmp",
    ".jxl": "jxl",
    ".avif": "avif",
    ".heic": "heic", ".heif": "heic", ".hif": "heic",
    **dict.fromkeys((
        ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw",
        ".3fr", ".iiq", ".x3f", ".erf", ".mrw", ".kdc", ".dcr", ".rwl", ".mos", ".mef", ".gpr",
    ), "dng"),
}  # fmt: skip
"""Extension (lower case) -> format: what `find_pictures` looks for. What a file *is* its first bytes say."""

WRITABLE = {
    extension: form
    for extension, form in READABLE.items()
    if extension not in (".apng", ".mpo") and (form != "dng" or extension == ".dng")
}
"""Extension (lower case) -> format: how `write_picture` chooses the format."""

EXTRAS = {"heic": ("pillow_heif", "heic"), "dng": ("rawpy", "raw")}
"""Formats that need a package of an extra: its module, and the extra's name."""


@cache
def missing_extra(form: str) -> str | None:
    """The extra without which this format is not read, where it is not installed; its package is not imported."""
    module, extra = EXTRAS.get(form, ("", ""))
    return extra if module and find_spec(module) is None else None
