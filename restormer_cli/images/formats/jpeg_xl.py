"""JPEG XL: its boxes and header, decoding and encoding."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from restormer_cli.images.formats.exif_icc import EXIF_PREFIX, sound_exif
from restormer_cli.images.formats.raster import (
    FLOAT_BITS,
    MAX_METADATA,
    SRGB,
    TRUNCATED,
    Beside,
    Options,
    Raster,
    Unreadable,
    check_size,
    cicp_of,
    damaged,
    with_channels,
)
from restormer_cli.images.light import BY_CODE, HLG_WHITE, PRIMARIES, WHITE_NITS, odd, of_points, to_xyz_d65
from restormer_cli.images.light import SRGB as SRGB_CURVE


def decode_jxl(data: bytes, max_pixels: int) -> Raster:
    """Up to 16-bit integers and floats. libjxl turns the picture upright itself."""
    jxl = read_jxl(data)
    check_size(jxl.width, jxl.height, max_pixels)
    if jxl.extra_channels > 4:
        raise Unreadable(f"{jxl.extra_channels} extra channels are not supported; save it without them")
    import imagecodecs

    samples = with_channels(imagecodecs.jpegxl_decode(data, index=0, numthreads=1))
    bits = FLOAT_BITS if samples.dtype.kind == "f" else jxl.bits
    notes = []
    if jxl.icc and jxl.lossy:
        # Without a colour engine libjxl hands these out as linear light with sRGB's primaries
        # (test_a_lossy_jpeg_xl_with_a_profile_is_as_bright_as_it_was).
        samples = _linear_to_srgb(samples)
        notes.append("its colours are converted from its profile to sRGB")
    elif jxl.icc:
        notes.append("its colour profile cannot be read out of JPEG XL and is not kept")
    elif jxl.cicp is None:
        notes.append("its own colour description is not kept; colours may look different")
    if bits == FLOAT_BITS:
        samples = samples.astype(np.float32)
    if jxl.animated:
        notes.append("the file is animated; only its first frame is read")
    if jxl.extra_channels:
        notes.append(f"{jxl.extra_channels} extra channel(s) without a meaning are not kept")
    return Raster(
        samples=samples,
        bits=bits,
        exif=sound_exif(lambda: _jxl_exif(data), notes),
        beside=Beside(xmp=_jxl_box(data, b"xml ")),
        orientation=1,
        colour=() if jxl.cicp in (None, SRGB) else ((b"cICP", bytes([*jxl.cicp, 0, 1])),),
        lossless=not jxl.lossy and not _of_jpeg(data),
        premultiplied=jxl.premultiplied,
        notes=tuple(notes),
    )


def _of_jpeg(data: bytes) -> bool:
    """Whether a JPEG can be made of it again: it keeps what that had lost, and a result is written as a JPEG's is."""
    return not data.startswith(JXL_CODESTREAM) and any(kind == b"jbrd" for kind, _ in boxes(data))


def _jxl_exif(data: bytes) -> bytes | None:
    """The Exif box, plain or in a Brotli box: four bytes of offset, then the TIFF structure."""
    body = _jxl_box(data, b"Exif")
    if body is None or len(body) <= 4:
        return None
    return body[4 + int.from_bytes(body[:4], "big") :].removeprefix(EXIF_PREFIX)


def _jxl_box(data: bytes, wanted: bytes) -> bytes | None:
    """The first box of a kind, plain or compressed by Brotli."""
    if data.startswith(JXL_CODESTREAM):
        return None
    for kind, body in boxes(data):
        if kind == b"brob" and body[:4] == wanted:
            import imagecodecs

            # `out` bounds what a Brotli bomb can become.
            return bytes(imagecodecs.brotli_decode(bytes(body[4:]), out=MAX_METADATA))
        if kind == wanted:
            return bytes(body)
    return None


def encode_jxl(raster: Raster, options: Options) -> bytes:
    """A picture that libjxl boxed, with EXIF and XMP in boxes behind it where there are any.

    The binding takes numbers for sRGB's, or beyond 8 bits for linear light, and cannot be told. A lossless file's
    numbers are what they are, so that only the header is put right. A lossy file holds colours as they are seen, and
    the header says what a decoder makes of them: its numbers go in as linear light of sRGB's primaries, in floats that
    may lie beyond [0, 1] (test_jpeg_xl_says_what_its_colours_are).
    """
    import imagecodecs

    primaries, transfer = cicp_of(raster.colour) or SRGB
    samples, plain = raster.samples, (primaries, transfer) == SRGB
    if not options.lossless and not plain:
        samples = _linear_floats(samples, primaries, transfer)
    elif not options.lossless and samples.dtype != np.uint8:
        samples = _srgb_to_linear(samples)
    boxed = bytes(
        imagecodecs.jpegxl_encode(
            samples,
            level=None if options.lossless else options.quality,
            lossless=options.lossless,
            usecontainer=True,
            numthreads=1,
        )
    )
    if not plain or raster.samples.dtype != np.uint8:
        boxed = b"".join(
            box(kind, _declared(bytes(body), raster.bits, primaries, transfer) if kind == b"jxlc" else bytes(body))
            for kind, body in boxes(boxed)
        )
    if raster.exif:
        boxed += box(b"Exif", b"\0\0\0\0" + raster.exif)
    return boxed + box(b"xml ", raster.beside.xmp) if raster.beside.xmp else boxed


def jxl_keeps(colour: tuple[tuple[bytes, bytes], ...], bits: int, lossless: bool) -> bool:
    """Whether a file that we write says what these colours mean: primaries and transfers that JPEG XL numbers.

    Of a lossy file those whose light we know as decoders do: not H.273's 1, which is shown as sRGB is.
    """
    if (cicp := cicp_of(colour)) is None:
        return False
    primaries, transfer = cicp
    return primaries in JXL_PRIMARIES.values() and transfer in (LOSSLESS if lossless else LOSSY)


LINEAR, PQ, HLG = 8, 16, 18
LOSSY = (LINEAR, SRGB[1], PQ, HLG)
LOSSLESS = (1, *LOSSY)
"""Transfers by H.273's numbers, which are JPEG XL's."""
FULL_NITS = 255
"""What 1 of linear light means, in candelas per square metre, where the header does not say so."""


def _linear_floats(samples: np.ndarray, primaries: int, transfer: int) -> np.ndarray:
    """Numbers of these colours as linear light of sRGB's primaries, float32; alpha, if there is one, from 0 to 1."""
    top = 1 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max
    result = samples.astype(np.float32) / top
    colours = 3 if samples.shape[2] >= 3 else 1
    values = result[..., :colours].astype(np.float64)
    light = odd(BY_CODE[transfer].light, values)
    if transfer == PQ:
        light *= WHITE_NITS / FULL_NITS
    elif transfer == HLG:  # as a screen of FULL_NITS shows it (ITU-R BT.2100, BT.2408)
        light *= HLG_WHITE
        luma = to_xyz_d65(PRIMARIES[primaries][0])[1] if colours == 3 else np.ones(1)
        light *= np.maximum(np.abs(light) @ luma, 1e-9)[..., None] ** (HLG_GAMMA - 1)
    result[..., :colours] = light @ of_points(*PRIMARIES[primaries]).T if colours == 3 else light
    return result


HLG_GAMMA = 1.2 * 1.111 ** np.log2(FULL_NITS / 1000)
"""By how much a screen of FULL_NITS raises the contrast of an HLG scene."""


def _declared(codestream: bytes, depth: int, primaries: int, transfer: int) -> bytes:
    """A codestream of the binding's with another depth (32: floats), primaries and transfer in its header."""
    bits, head = _Bits(codestream[2:JXL_HEADER]), _Header()
    _jxl_size(bits)
    head.copy(bits, 0)
    alone = bits(1)  # all_default
    gray = False
    head.add(0, 1)
    if not alone:
        if bits(1):
            raise damaged("its header is not as it was written")
        _jxl_depth(bits)
    head.add(0, 1)  # no extra fields
    head.depth(depth)
    if alone:
        head.add(1, 1)  # modular_16_bit_buffers
        head.add(0, 2)  # no extra channels
        head.add(1, 1)  # XYB
    else:
        begin, seen = bits.at, Jxl(1, 1, 8)
        bits(1)
        for _ in range(bits.u32(0, 1, (2, 4), (1, 12))):
            _jxl_extra_channel(bits, seen)
        bits(1)
        head.copy(bits, begin)
        if not bits(1):
            bits(1)
            gray = bits.u32(*ENUM) == 1
            _jxl_colours(bits, seen, int(gray))
            bits.u32(*ENUM)  # rendering intent
        if bits(2) or not bits(1):  # extensions, and a transform of its own
            raise damaged("its header is not as it was written")
    own = next(number for number, known in JXL_PRIMARIES.items() if known == primaries)
    head.add(0, 2)  # neither the default nor ICC
    for value in (int(gray), 1, *(() if gray else (own,))):  # space, white of D65, primaries
        head.enum(value)
    head.add(0, 1)  # no gamma
    head.enum(transfer)
    head.enum(1)  # relative intent
    head.add(0, 2)  # no extensions
    head.add(1, 1)  # no transform of its own
    end = 2 + -(-(bits.at + 3 * alone) // 8)  # frames begin with a byte
    return codestream[:2] + head.bytes() + codestream[end:]


class _Header:
    """Bits being written, from the least significant one up."""

    def __init__(self) -> None:
        self.value = self.length = 0

    def add(self, value: int, count: int) -> None:
        self.value |= value << self.length
        self.length += count

    def copy(self, bits: "_Bits", begin: int) -> None:
        """What has been read since a place."""
        self.add(bits.whole >> begin & (1 << bits.at - begin) - 1, bits.at - begin)

    def enum(self, value: int) -> None:
        """As `_Bits.u32(*ENUM)` reads it."""
        if value < 2:
            self.add(value, 2)
        elif value < 18:
            self.add(2 | value - 2 << 2, 6)
        else:
            self.add(3 | value - 18 << 2, 8)

    def depth(self, bits: int) -> None:
        if bits == FLOAT_BITS:
            self.add(1 | 0 << 1 | 7 << 3, 7)  # floats: 32 bits, of them 8 of exponent, less one
        else:
            self.add(0, 1)
            self.add(*((0, 2) if bits == 8 else (3 | bits - 1 << 2, 8)))

    def bytes(self) -> bytes:
        return self.value.to_bytes(-(-self.length // 8), "little")


def _srgb_to_linear(samples: np.ndarray) -> np.ndarray:
    """sRGB's transfer undone in colour, not in alpha; odd around zero, so that floats beyond [0, 1] come back."""
    return _through(samples, SRGB_CURVE.light)


def _linear_to_srgb(samples: np.ndarray) -> np.ndarray:
    """The inverse of `_srgb_to_linear`."""
    return _through(samples, SRGB_CURVE.signal)


def _through(samples: np.ndarray, curve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    top = 1 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max
    colours = 3 if samples.shape[2] >= 3 else 1
    value = samples[..., :colours].astype(np.float32) / top
    value = odd(curve, value) * top
    result = samples.copy()
    result[..., :colours] = value if top == 1 else np.rint(value)
    return result


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
    """Header of a JPEG XL codestream."""

    width: int
    height: int
    bits: int
    animated: bool = False
    alpha: bool = False
    premultiplied: bool = False
    extra_channels: int = 0  # besides alpha
    lossy: bool = True  # XYB-encoded
    icc: bool = False
    cicp: tuple[int, int] | None = SRGB  # primaries and transfer by ITU-T H.273; None: it has no number for them


class _Bits:
    """Bits from the least significant one up, as JPEG XL packs its header."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "little"), 8 * len(data)
        self.length, self.whole = self.left, self.value

    @property
    def at(self) -> int:
        """Bits that have been read."""
        return self.length - self.left

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
    if bits(1):  # ColourEncoding: all_default
        return jxl
    jxl.icc = bool(bits(1))
    space = bits.u32(*ENUM)
    if not jxl.icc:
        _jxl_colours(bits, jxl, space)
    return jxl


ENUM = (0, 1, (2, 4), (18, 6))
JXL_PRIMARIES = {1: 1, 9: 9, 11: 12}  # ours -> H.273's, with a white point of D65


def _jxl_colours(bits: _Bits, jxl: Jxl, space: int) -> None:
    """White point, primaries and transfer; each can be a number or be spelled out."""

    def point() -> None:
        for _ in range(2):
            bits.u32((0, 19), (524288, 19), (1048576, 20), (2097152, 21))

    gray, white, primaries = space == 1, 1, 1
    if space != 2:
        white = bits.u32(*ENUM)
        if white == 2:
            point()
        if not gray:
            primaries = bits.u32(*ENUM)
            for _ in range(3 if primaries == 2 else 0):
                point()
    if bits(1):  # a gamma
        bits(24)
        transfer = None
    else:
        choice = bits(2)
        transfer = (0, 1)[choice] if choice < 2 else 2 + bits(4) if choice == 2 else 18 + bits(6)
    known = white == 1 and primaries in JXL_PRIMARIES and transfer not in (None, 0, 2)
    jxl.cicp = (JXL_PRIMARIES[primaries], int(transfer or 0)) if known else None


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
