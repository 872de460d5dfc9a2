"""The boxes that pictures come in: magic numbers, PNG and WebP chunks, ISO boxes, JPEG XL's header.

Read before any decoder runs. Native decoders allocate what a header claims, and some abort the process on
bytes that they did not expect, so what can be checked cheaply is checked here, with every length bounded by
the file. Raises `Unreadable`.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from restormer_cli.images.formats.raster import COPY_AGAIN, TRUNCATED, Unreadable, damaged
from restormer_cli.errors import one_line

# --- Magic numbers ------------------------------------------------------------------------------------------

MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"II*\x00", "tif"),
    (0, b"MM\x00*", "tif"),
    (0, b"II+\x00", "tif"),  # BigTIFF
    (0, b"MM\x00+", "tif"),
    (8, b"WEBP", "webp"),
    (0, b"\xff\x0a", "jxl"),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jxl"),
    (4, b"ftypavif", "avif"),
    (4, b"ftypavis", "avif"),
    (0, b"BM", "bmp"),
)
"""Offset, bytes, format."""

FOREIGN = (
    (0, b"GIF8", "a GIF"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (4, b"ftypcrx", "a camera's raw file"),
    (0, b"FUJIFILM", "a camera's raw file"),
    (4, b"ftyphei", "a HEIC"),
    (4, b"ftypmif1", "a HEIF"),
    (4, b"ftyp", "a video"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000"),
    (0, b"v/1\x01", "an OpenEXR"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"<", "a web page or an SVG"),
    (0, b"version https://git-lfs", "a Git LFS pointer"),
)
"""Offset, bytes, name: what people hand us that we do not read, so that the error can say what it is."""


def sniff(data: bytes) -> str:
    """The format by the first bytes. Raises Unreadable with the best name for anything else."""
    if not data:
        raise Unreadable(f"is empty; {COPY_AGAIN}")
    for offset, magic, form in MAGIC:
        if data.startswith(magic, offset):
            return form
    if data[4:8] == b"ftyp" and b"avif" in data[16 : min(64, int.from_bytes(data[:4], "big"))]:
        return "avif"  # a general brand first, ours among the compatible ones
    for offset, magic, name in FOREIGN:
        if data.startswith(magic, offset):
            raise Unreadable(f"is {name}, which is not read; convert it to PNG or TIFF first")
    raise Unreadable("is not a picture of a known format; convert it to PNG or TIFF first")


# --- PNG (https://www.w3.org/TR/png-3/) ---------------------------------------------------------------------

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
    notes: tuple[str, ...] = ()

    @property
    def raw_bytes(self) -> int:
        """What the compressed data must inflate to: a filter byte and the samples, by row and by pass."""
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


# --- WebP (RFC 9649) ----------------------------------------------------------------------------------------


@dataclass
class WebP:
    """What a WebP says about itself."""

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


# --- ISO boxes (JPEG XL, AVIF) ------------------------------------------------------------------------------


def boxes(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The outermost boxes of an ISO media file: (kind, body)."""
    view, at = memoryview(data), 0
    while at + 8 <= len(view):
        size, kind = struct.unpack_from(">I4s", view, at)
        start = at + 8
        if size == 1 and at + 16 <= len(view):
            size, start = struct.unpack_from(">Q", view, at + 8)[0], at + 16
        end = len(view) if size == 0 else at + size
        if end < start or end > len(view):
            raise Unreadable(TRUNCATED)
        yield kind, view[start:end]
        at = end


def box(kind: bytes, body: bytes) -> bytes:
    """An ISO box; bodies beyond 4 GB get the long form."""
    if len(body) + 8 < 2**32:
        return struct.pack(">I", len(body) + 8) + kind + body
    return struct.pack(">I4sQ", 1, kind, len(body) + 16) + body


# --- JPEG XL (ISO/IEC 18181-1, annex D) ---------------------------------------------------------------------

JXL_CODESTREAM = b"\xff\x0a"


@dataclass
class Jxl:
    """What a JPEG XL codestream says about itself."""

    width: int
    height: int
    bits: int
    animated: bool = False
    alpha: bool = False
    premultiplied: bool = False
    extra_channels: int = 0  # besides alpha
    lossy: bool = True  # XYB-encoded
    icc: bool = False


class _Bits:
    """Bits from the least significant one up, as JPEG XL packs its header."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "little"), 8 * len(data)

    def __call__(self, count: int) -> int:
        if count > self.left:
            raise Unreadable(TRUNCATED)
        result = self.value & (1 << count) - 1
        self.value >>= count
        self.left -= count
        return result

    def u32(self, *choices: int | tuple[int, int]) -> int:
        """The standard's U32: two bits choose a constant, or (offset, bits): an offset plus so many bits."""
        choice = choices[self(2)]
        return choice if isinstance(choice, int) else choice[0] + self(choice[1])


def jxl_codestream(data: bytes) -> bytes:
    """The beginning of the codestream, bare or boxed: enough for its header."""
    if data.startswith(JXL_CODESTREAM):
        return data[:JXL_HEADER]
    start = b""
    for kind, body in boxes(data):
        if kind == b"jxlc":
            return bytes(body[:JXL_HEADER])
        if kind == b"jxlp":  # the codestream in parts, each behind a counter
            start += bytes(body[4 : 4 + JXL_HEADER])
            if len(start) >= JXL_HEADER:
                break
    return start[:JXL_HEADER]


JXL_HEADER = 4096  # bytes; beyond lie only absurd numbers of extra channels


def read_jxl(data: bytes) -> Jxl:
    """Size, depth and kind from a JPEG XL header: SizeHeader, then ImageMetadata."""
    codestream = jxl_codestream(data)
    if not codestream.startswith(JXL_CODESTREAM):
        raise damaged("there is no picture in it")
    bits = _Bits(codestream[2:])
    jxl = Jxl(*_jxl_size(bits), bits=8)
    if bits(1):  # all_default
        return jxl
    if bits(1):  # extra_fields
        bits(3)  # orientation, which the decoder applies
        if bits(1):
            _jxl_size(bits)  # intrinsic size
        if bits(1):
            _jxl_preview(bits)
        jxl.animated = bool(bits(1))
        if jxl.animated:
            bits.u32(100, 1000, (1, 10), (1, 30))
            bits.u32(1, 1001, (1, 8), (1, 10))
            bits.u32(0, (0, 3), (0, 16), (0, 32))
            bits(1)
    jxl.bits = _jxl_depth(bits)
    bits(1)  # modular_16_bit_buffers
    for _ in range(bits.u32(0, 1, (2, 4), (1, 12))):
        _jxl_extra_channel(bits, jxl)
    jxl.lossy = bool(bits(1))
    jxl.icc = not bits(1) and bool(bits(1))  # ColourEncoding: all_default, want_icc
    return jxl


RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _jxl_size(bits: _Bits) -> tuple[int, int]:
    eighths = bits(1)

    def side() -> int:
        return 8 * (bits(5) + 1) if eighths else bits.u32((1, 9), (1, 13), (1, 18), (1, 30))

    height, ratio = side(), bits(3)
    if ratio == 0:
        return side(), height
    across, down = RATIOS[ratio - 1]
    return height * across // down, height


def _jxl_preview(bits: _Bits) -> None:
    eighths = bits(1)

    def side() -> int:
        if eighths:
            return bits.u32(16, 32, (1, 5), (33, 9))
        return bits.u32((1, 6), (65, 8), (321, 10), (1345, 12))

    side()
    if bits(3) == 0:
        side()


def _jxl_depth(bits: _Bits) -> int:
    """Bits per sample; any float counts as 32."""
    if bits(1):
        bits.u32(32, 16, 24, (1, 6))
        bits(4)
        return 32
    depth = bits.u32(8, 10, 12, (1, 6))
    if depth > 16:
        raise Unreadable(f"{depth}-bit integers; only up to 16 bits are read; convert it first")
    return depth


def _jxl_extra_channel(bits: _Bits, jxl: Jxl) -> None:
    if bits(1):  # all_default: 8 bits of alpha
        jxl.extra_channels += jxl.alpha
        jxl.alpha = True
        return
    kind = bits.u32(0, 1, (2, 4), (18, 6))
    _jxl_depth(bits)
    bits.u32(0, 3, 4, (1, 3))
    bits(8 * bits.u32(0, (0, 4), (16, 5), (48, 10)))  # its name
    if kind == 0:
        jxl.extra_channels += jxl.alpha
        jxl.alpha = True
        jxl.premultiplied = bool(bits(1))
        return
    if kind == 2:  # spot colour
        bits(64)
    elif kind == 4:
        raise Unreadable("JPEG XL in CMYK is not supported; convert it to RGB first")
    elif kind == 5:  # colour filter array
        bits.u32(1, (0, 2), (3, 4), (19, 8))
    jxl.extra_channels += 1
