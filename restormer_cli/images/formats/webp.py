"""WebP: its chunks, decoding and encoding."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from restormer_cli.images.formats.pillow import from_pillow, save_by_pillow
from restormer_cli.images.formats.raster import TRUNCATED, Options, Raster, Unreadable, check_size, damaged


def decode_webp(data: bytes, max_pixels: int) -> Raster:
    """Lossy and lossless; of an animation the first frame."""
    webp = read_webp(data)
    check_size(webp.width, webp.height, max_pixels)
    from PIL.WebPImagePlugin import WebPImageFile

    raster = from_pillow(WebPImageFile(BytesIO(data)))
    raster.lossless = webp.lossless
    if webp.animated:
        raster.notes = ("the file is animated; only its first frame is read",)
    return raster


def encode_webp(raster: Raster, options: Options) -> bytes:
    """Colour, 8 bits; `exact` keeps the colour under full transparency."""
    return save_by_pillow(raster, "WEBP", quality=options.quality, lossless=options.lossless, exact=True)


@dataclass
class WebP:
    """Header of a WebP."""

    width: int
    height: int
    lossless: bool
    animated: bool


def read_webp(data: bytes) -> WebP:
    """Width, height and kind from the chunks of a WebP."""
    size, lossless, animated = None, False, False
    for kind, body in _riff_chunks(data):
        if kind == b"VP8X" and len(body) >= 10:
            size = (int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1)
            animated = bool(body[0] & 2)
        elif kind == b"VP8L" and len(body) >= 5:
            packed = int.from_bytes(body[1:5], "little")
            size, lossless = size or ((packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1), True
        elif kind == b"VP8 " and len(body) >= 10:
            width, height = struct.unpack_from("<HH", body, 6)
            size = size or (width & 0x3FFF, height & 0x3FFF)
        elif kind == b"ANMF" and len(body) >= 20:
            lossless |= bytes(body[16:20]) == b"VP8L"
    if size is None:
        raise damaged("there is no picture in it")
    return WebP(*size, lossless, animated)


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view = memoryview(data)
    if len(view) < 20 or len(view) < int.from_bytes(view[4:8], "little") + 8:
        raise Unreadable(TRUNCATED)
    at = 12
    while at + 8 <= len(view):
        kind, size = struct.unpack_from("<4sI", view, at)
        yield kind, view[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
