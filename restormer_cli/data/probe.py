"""The size of a picture from its header, without reading the rest of the file."""

import struct
from pathlib import Path
from typing import BinaryIO

from restormer_cli.errors import UserError
from restormer_cli.images.formats.exif_icc import EXIF_PREFIX, ORIENTATION, upright
from restormer_cli.images.formats.raster import Unreadable, third_party
from restormer_cli.errors import one_line
from restormer_cli.images.formats.sniff import PNG_MAGIC, read_jxl, sniff

HEAD = 64
"""Bytes that tell the format, and a PNG's size."""
MAX_CHUNKS = 10_000


def picture_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as the picture will be read, upright; what follows the header may still be damaged.

    Raises UserError, one line, where there is no picture.
    """
    path = Path(path)
    name = one_line(str(path))
    try:
        with path.open("rb") as file, third_party():
            return _size(file)
    except Unreadable as reason:
        raise UserError(f"{name}: {reason}") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror or error}") from None


def _size(file: BinaryIO) -> tuple[int, int]:
    head = file.read(HEAD)
    form = sniff(head)
    file.seek(0)
    if form == "png" and head[12:16] == b"IHDR" and head.startswith(PNG_MAGIC):
        width, height = struct.unpack(">II", head[16:24])
        return _upright(height, width, _png_orientation(file))
    if form == "jxl":
        jxl = read_jxl(file.read())
        return jxl.height, jxl.width
    if form == "tif":
        return _tiff_size(file)
    return _pillow_size(file, form)


def _tiff_size(file: BinaryIO) -> tuple[int, int]:
    from tifffile import TiffFile, TiffPage

    with TiffFile(file) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, TiffPage)
        tag = page.tags.get(ORIENTATION)
        return _upright(page.imagelength, page.imagewidth, tag.value if tag is not None else 1)


def _pillow_size(file: BinaryIO, form: str) -> tuple[int, int]:
    """By the format's own class: `Image.open` would warn of large pictures and try every other format."""
    if form == "jpg":
        from PIL.JpegImagePlugin import JpegImageFile as Opened
    elif form == "webp":
        from PIL.WebPImagePlugin import WebPImageFile as Opened
    elif form == "avif":
        from PIL.AvifImagePlugin import AvifImageFile as Opened
    elif form == "bmp":
        from PIL.BmpImagePlugin import BmpImageFile as Opened
    else:
        raise Unreadable("has no header that is understood")
    image = Opened(file)
    return _upright(image.height, image.width, image.getexif().get(ORIENTATION, 1))


def _png_orientation(file: BinaryIO) -> int:
    """From chunk to chunk, over the pixels, to the EXIF."""
    file.seek(len(PNG_MAGIC))
    for _ in range(MAX_CHUNKS):
        length, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
        if kind == b"eXIf":
            return upright(file.read(length).removeprefix(EXIF_PREFIX))[0]
        if kind in (b"IEND", b"\0\0\0\0"):
            break
        file.seek(length + 4, 1)
    return 1


def _upright(height: int, width: int, orientation: object) -> tuple[int, int]:
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)
