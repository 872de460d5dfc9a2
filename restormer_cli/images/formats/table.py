"""Capabilities of each format, and the two functions that read and write it."""

from collections.abc import Callable
from typing import NamedTuple

from restormer_cli.images.formats.avif import avif_keeps, decode_avif, encode_avif
from restormer_cli.images.formats.jpeg_xl import decode_jxl, encode_jxl, jxl_keeps
from restormer_cli.images.formats.pillow import decode_bmp, decode_jpeg, encode_bmp, encode_jpeg
from restormer_cli.images.formats.png import decode_png, encode_png
from restormer_cli.images.formats.raster import FLOAT_BITS, Options, Raster
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


CODECS = {
    "png": Codec(
        decode_png, encode_png, (8, 16), 1_000_000, beside=frozenset({"xmp", "text"}), colour=lambda *_: True
    ),
    "jpg": Codec(
        decode_jpeg, encode_jpeg, (8,), 65_500, alpha=False, exif_limit=65_527,
        beside=frozenset({"xmp", "iptc", "comment"}),
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
}  # fmt: skip

READABLE = {
    ".png": "png", ".apng": "png",
    ".jpg": "jpg", ".jpeg": "jpg", ".jpe": "jpg", ".jfif": "jpg", ".mpo": "jpg",
    ".tif": "tif", ".tiff": "tif",
    ".webp": "webp",
    ".bmp": "bmp", ".dib": "bmp",
    ".jxl": "jxl",
    ".avif": "avif",
}  # fmt: skip
"""Extension (lower case) -> format: what `find_pictures` looks for. What a file *is* its first bytes say."""

WRITABLE = {extension: form for extension, form in READABLE.items() if extension not in (".apng", ".mpo")}
"""Extension (lower case) -> format: how `write_picture` chooses the format."""
