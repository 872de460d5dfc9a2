"""PNG (https://www.w3.org/TR/png-3/): its chunks, its size, decoding and encoding with 16 bits and metadata kept."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from restormer_cli.errors import one_line
from restormer_cli.images.formats.exif_icc import EXIF_PREFIX, upright
from restormer_cli.images.formats.raster import (
    MAX_METADATA,
    TRUNCATED,
    Beside,
    Options,
    Raster,
    Unreadable,
    check_size,
    damaged,
    with_channels,
)

COLOUR_CHUNKS = (b"cICP", b"gAMA", b"cHRM", b"sRGB", b"mDCV", b"cLLI", b"mDCv", b"cLLi", b"sBIT")
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
XMP_KEYWORD = b"XML:com.adobe.xmp"
METRE = 0.0254  # metres per inch


def decode_png(data: bytes, max_pixels: int) -> Raster:
    """Through imagecodecs: Pillow and imageio silently reduce 16-bit colour to 8 bits."""
    png = read_png(data)
    check_size(png.width, png.height, max_pixels)
    import imagecodecs

    notes = list(png.notes)
    if b"acTL" in png.other:
        notes.append("the file is animated; only its first frame is read")
    icc = _png_profile(png.other.get(b"iCCP", b""))
    if b"iCCP" in png.other and icc is None:
        notes.append("its colour profile is damaged and not kept")
    colour = tuple((kind, png.other[kind]) for kind in COLOUR_CHUNKS if kind in png.other)
    samples = imagecodecs.png_decode(png.essential())
    exif = png.other.get(b"eXIf")
    return Raster(
        samples=with_channels(samples),
        bits=16 if samples.dtype == np.uint16 else 8,
        icc=icc,
        exif=exif.removeprefix(EXIF_PREFIX) if exif else None,
        dpi=_png_density(png.other.get(b"pHYs", b"")),
        colour=colour,
        notes=tuple(notes),
        beside=_png_beside(png.text),
    )


def _png_beside(chunks: list[tuple[bytes, bytes]]) -> Beside:
    """XMP on its own, all other text as it is."""
    xmp, text = None, []
    for kind, body in chunks:
        keyword, _, rest = body.partition(b"\0")
        if kind != b"iTXt" or keyword != XMP_KEYWORD:
            text.append((kind, body))
            continue
        packed, packet = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
        xmp = inflate(packet, MAX_METADATA) if packed else packet
    return Beside(xmp=xmp, text=tuple(text))


def _png_profile(chunk: bytes) -> bytes | None:
    """The profile in an iCCP chunk: a name, a zero, a zero for deflate, the compressed profile."""
    _, zero, rest = chunk.partition(b"\0")
    return inflate(rest[1:], MAX_METADATA) if zero and rest[:1] == b"\0" else None


def _png_density(chunk: bytes) -> tuple[float, float] | None:
    if len(chunk) != 9 or chunk[8] != 1:  # 1: pixels per metre; otherwise only a ratio
        return None
    across, down = struct.unpack(">II", chunk[:8])
    return (across * METRE, down * METRE)


def encode_png(raster: Raster, options: Options) -> bytes:
    """imagecodecs writes the picture; the chunks that it cannot write go right behind the header."""
    import imagecodecs

    channels = raster.samples.shape[2]
    chunks = [(kind, body) for kind, body in raster.colour if kind != b"sBIT" or _fits(body, channels, raster.bits)]
    if raster.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(raster.icc)))
    if raster.dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *[round(value / METRE) for value in raster.dpi], 1)))
    if raster.exif:
        chunks.append((b"eXIf", raster.exif))
    chunks += raster.beside.text
    if raster.beside.xmp:
        chunks.append((b"iTXt", XMP_KEYWORD + b"\0\0\0\0\0" + raster.beside.xmp))
    png = bytes(imagecodecs.png_encode(np.ascontiguousarray(raster.samples), level=4))
    header_end = len(PNG_MAGIC) + 12 + 13
    return b"".join([png[:header_end], *(png_chunk(*chunk) for chunk in chunks), png[header_end:]])


def _fits(significant: bytes, channels: int, bits: int) -> bool:
    """Whether sBIT speaks of these channels at this depth."""
    return len(significant) == channels and all(0 < count <= bits for count in significant)


PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type: gray, RGB, palette, gray + alpha, RGBA
PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
PNG_MAX_SIDE = 1_000_000  # libpng's own limit; it complains on stderr beyond


@dataclass
class Png:
    """A PNG taken apart, every checksum verified."""

    width: int
    height: int
    bits: int
    colour_type: int
    interlaced: bool
    header: bytes
    data: list[memoryview] = field(default_factory=list)
    other: dict[bytes, bytes] = field(default_factory=dict)  # the first chunk of each kind
    text: list[tuple[bytes, bytes]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def raw_bytes(self) -> int:
        """Bytes of the inflated data: a filter byte and the samples, by row and by pass."""
        per_pixel = PNG_CHANNELS[self.colour_type] * self.bits
        total = 0
        for left, top, across, down in ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            columns, rows = -((left - self.width) // across), -((top - self.height) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + (columns * per_pixel + 7) // 8)
        return total

    def essential(self) -> bytes:
        """The same picture with only what a decoder needs, and nothing that libpng could stumble over.

        No text, profile or animation; the pixel data inflated under a bound and stored uncompressed, which
        saves libpng that work.
        """
        chunks = [(b"IHDR", self.header)]
        if self.colour_type == 3:
            palette = self.other.get(b"PLTE", b"")
            if not palette or len(palette) % 3 or len(palette) > 3 * 2**self.bits:
                raise damaged("its palette is missing or has a wrong length")
            chunks.append((b"PLTE", palette))
        transparency = self.other.get(b"tRNS")
        lengths = {0: (2,), 2: (6,), 3: range(1, 2**self.bits + 1)}.get(self.colour_type, ())
        if transparency is not None and len(transparency) in lengths:
            chunks.append((b"tRNS", transparency))
        chunks += [(b"IDAT", piece) for piece in self._stored()]
        return b"".join([PNG_MAGIC, *(png_chunk(*chunk) for chunk in [*chunks, (b"IEND", b"")])])

    def _stored(self) -> Iterator[bytes]:
        """The pixel data as an uncompressed zlib stream of exactly `raw_bytes`, in pieces."""
        inflater, storer, left = zlib.decompressobj(), zlib.compressobj(0), self.raw_bytes
        try:
            for body in self.data:
                rest: bytes | memoryview = body
                while len(rest) and left >= 0:
                    # One byte more than is left, so that the end of the stream and its checksum are seen.
                    piece = inflater.decompress(rest, min(left + 1, PIECE))
                    yield storer.compress(piece[:left])
                    left, rest = left - len(piece), inflater.unconsumed_tail
        except zlib.error as error:
            raise damaged("its compressed data are corrupt") from error
        if left > 0:
            raise Unreadable(TRUNCATED)
        yield storer.flush()


PIECE = 1 << 24
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""PNG's interlacing: left, top, step across, step down of each pass."""


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk: its length, kind, body and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def read_png(data: bytes) -> Png:
    """Take a PNG apart. A damaged chunk that the picture does not need is skipped, with a note."""
    png: Png | None = None
    unsound: set[str] = set()
    for kind, body, sound in _png_chunks(data):
        if png is None:
            if kind != b"IHDR" or len(body) != 13:
                raise damaged("it does not begin with its header")
            png = _png_header(bytes(body))
        elif kind == b"IDAT":
            png.data.append(body)
        elif sound and kind in TEXT_CHUNKS:
            png.text.append((kind, bytes(body)))
        elif sound:
            png.other.setdefault(kind, bytes(body))
        else:
            unsound.add(one_line(kind.decode("latin-1")))
    if png is None or not any(len(body) for body in png.data):
        raise damaged("there is no picture in it")
    if unsound:
        png.notes = (f"damaged parts are not kept: {', '.join(sorted(unsound))}",)
    return png


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    view, at = memoryview(data), len(PNG_MAGIC)
    while at + 12 <= len(view):
        size, kind = struct.unpack_from(">I4s", view, at)
        body, end = view[at + 8 : at + 8 + size], at + 8 + size
        if end + 4 > len(view):
            break
        sound = zlib.crc32(body, zlib.crc32(kind)) == struct.unpack_from(">I", view, end)[0]
        if not sound and not kind[0] & 0x20:  # upper case: the picture cannot be read without it
            raise damaged("a checksum does not match")
        if kind == b"IEND":
            return
        yield kind, body, sound
        at = end + 4
    raise Unreadable(TRUNCATED)


def _png_header(header: bytes) -> Png:
    width, height, bits, colour_type, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
    if bits not in PNG_DEPTHS.get(colour_type, ()) or compression or filtering or interlace > 1:
        raise damaged("its header makes no sense")
    if max(width, height) > PNG_MAX_SIDE:
        raise damaged(f"its header claims {width} × {height} pixels")
    return Png(width, height, bits, colour_type, bool(interlace), header)


def inflate(data: bytes, limit: int) -> bytes | None:
    """Decompress zlib data of at most `limit` bytes; None when it is damaged or longer (a bomb)."""
    stream = zlib.decompressobj()
    try:
        result = stream.decompress(data, limit)
    except zlib.error:
        return None
    return result if stream.eof else None


MAX_CHUNKS = 10_000


def png_orientation(file: BinaryIO) -> int:
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
