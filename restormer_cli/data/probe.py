"""The size of a picture from its header, without reading the rest of the file."""

import struct
from pathlib import Path
from typing import BinaryIO

from restormer_cli.data.containers import PNG_MAGIC, read_jxl, sniff
from restormer_cli.data.metadata import ORIENTATION
from restormer_cli.data.raster import Unreadable, one_line, third_party
from restormer_cli.errors import UserError

HEAD = 64
"""Bytes that tell the format, and a PNG's size."""


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
        return height, width
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
        height, width = page.imagelength, page.imagewidth
        return (width, height) if tag is not None and tag.value in (5, 6, 7, 8) else (height, width)


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
    width, height = image.size
    return (width, height) if image.getexif().get(ORIENTATION) in (5, 6, 7, 8) else (height, width)
