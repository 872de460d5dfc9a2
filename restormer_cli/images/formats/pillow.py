"""One function per format and direction, bytes <-> Raster, and `CODECS`: what each format can hold.

Each decoder refuses by the header, before it decodes. Heavy libraries are imported by the function that needs
them. What third-party code raises is left to the caller (`raster.third_party`).
"""

import math
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from restormer_cli.images.formats.exif_icc import EXIF_PREFIX, cmyk_to_rgb, sound_exif
from restormer_cli.images.formats.raster import (
    FLOAT_BITS,
    Options,
    Raster,
    Unreadable,
    check_plausible,
    check_size,
    damaged,
    peak,
)
from restormer_cli.images.formats.sniff import (
    JXL_CODESTREAM,
    PNG_MAGIC,
    box,
    boxes,
    inflate,
    png_chunk,
    read_jxl,
    read_png,
    read_webp,
)
from restormer_cli.images.formats.tiff import decode_tiff, encode_tiff

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_METADATA = 16 << 20  # bytes of ICC or EXIF after decompression
MAX_SCANS = 200  # an honest progressive JPEG has about ten; each costs a pass over the whole picture


# --- PNG ----------------------------------------------------------------------------------------------------

COLOUR_CHUNKS = (b"cICP", b"gAMA", b"cHRM", b"sRGB")
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
        samples=_with_channels(samples),
        bits=16 if samples.dtype == np.uint16 else 8,
        icc=icc,
        exif=exif.removeprefix(EXIF_PREFIX) if exif else None,
        dpi=_png_density(png.other.get(b"pHYs", b"")),
        colour=colour,
        notes=tuple(notes),
    )


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

    chunks = list(raster.colour)
    if raster.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(raster.icc)))
    if raster.dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *[round(value / METRE) for value in raster.dpi], 1)))
    if raster.exif:
        chunks.append((b"eXIf", raster.exif))
    png = bytes(imagecodecs.png_encode(np.ascontiguousarray(raster.samples), level=4))
    header_end = len(PNG_MAGIC) + 12 + 13
    return b"".join([png[:header_end], *(png_chunk(*chunk) for chunk in chunks), png[header_end:]])


# --- JPEG ---------------------------------------------------------------------------------------------------


def decode_jpeg(data: bytes, max_pixels: int) -> Raster:
    """Gray, colour or CMYK, the latter converted to RGB through its profile."""
    if data.count(b"\xff\xda") > MAX_SCANS:
        raise damaged(f"it has more than {MAX_SCANS} scans")
    from PIL.JpegImagePlugin import JpegImageFile, jpeg_factory

    image = jpeg_factory(BytesIO(data))
    assert isinstance(image, JpegImageFile)
    check_size(*image.size, max_pixels)
    # Each 8 × 8 block costs a bit at the least, so a byte holds 512 pixels at the most.
    check_plausible(len(data), image.width * image.height, 512, "JPEG")
    raster = _from_pillow(image)
    raster.lossless = False
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raster.notes = (f"the file holds {frames} pictures; only the first is read",)
    if image.mode == "CMYK":
        raster.samples, raster.icc = cmyk_to_rgb(raster.samples, raster.icc, 8), None
        raster.notes += ("converted from CMYK to RGB",)
    return raster


def encode_jpeg(raster: Raster, options: Options) -> bytes:
    """8-bit gray or YCbCr."""
    return _save(raster, "JPEG", quality=options.quality, subsampling=options.subsampling, dpi=_whole_dpi(raster.dpi))


# --- BMP ----------------------------------------------------------------------------------------------------


def decode_bmp(data: bytes, max_pixels: int) -> Raster:
    """Any depth that Pillow reads; 16-bit pixels come out as 8 bits per channel."""
    from PIL.BmpImagePlugin import BmpImageFile

    image = BmpImageFile(BytesIO(data))
    check_size(*image.size, max_pixels)
    codec, _, _, arguments = image.tile[0]
    if codec == "raw" and isinstance(arguments, tuple):
        bytes_per_row = int(arguments[1])
        check_plausible(len(data), bytes_per_row * image.height, 1, "pixels")
    return _from_pillow(image)


def encode_bmp(raster: Raster, options: Options) -> bytes:
    """8-bit gray or RGB, uncompressed."""
    return _save(raster, "BMP", dpi=_whole_dpi(raster.dpi))


# --- WebP ---------------------------------------------------------------------------------------------------


def decode_webp(data: bytes, max_pixels: int) -> Raster:
    """Lossy and lossless; of an animation the first frame."""
    webp = read_webp(data)
    check_size(webp.width, webp.height, max_pixels)
    from PIL.WebPImagePlugin import WebPImageFile

    raster = _from_pillow(WebPImageFile(BytesIO(data)))
    raster.lossless = webp.lossless
    if webp.animated:
        raster.notes = ("the file is animated; only its first frame is read",)
    return raster


def encode_webp(raster: Raster, options: Options) -> bytes:
    """Colour, 8 bits; `exact` keeps the colour under full transparency."""
    return _save(raster, "WEBP", quality=options.quality, lossless=options.lossless, exact=True)


# --- AVIF ---------------------------------------------------------------------------------------------------


def decode_avif(data: bytes, max_pixels: int) -> Raster:
    """Through Pillow, which knows EXIF, ICC and rotation; pixels of 10 and 12 bits through imagecodecs."""
    from PIL.AvifImagePlugin import AvifImageFile

    image = AvifImageFile(BytesIO(data))
    check_size(*image.size, max_pixels)
    bits, gray = _av1_configuration(data)
    animated = image.n_frames > 1
    notes = ("the file is animated; only its first frame is read",) if animated else ()
    if bits > 8 and animated:
        # imagecodecs aborts the process on sequences (seen with 2026.3.6), so these come at Pillow's 8 bits.
        bits, notes = 8, (*notes, f"its {bits} bits are read as 8")
    raster = _from_pillow(image, pixels=bits == 8)
    if bits > 8:
        import imagecodecs

        raster.samples, raster.bits = _with_channels(imagecodecs.avif_decode(data)), bits
        turned = (image.height, image.width) == raster.samples.shape[:2]
        if not turned and (image.width, image.height) != raster.samples.shape[:2]:
            raise damaged("its header and its pixels differ in size")
        if raster.samples.max() > peak(bits):
            raise damaged(f"its samples exceed {bits} bits")
    elif gray and raster.samples.shape[2] >= 3:
        raster.samples = raster.samples[..., [0, 3] if raster.samples.shape[2] == 4 else [0]]
    raster.lossless, raster.notes = False, notes
    return raster


def _av1_configuration(data: bytes) -> tuple[int, bool]:
    """Bits per sample and whether it is gray, from the first av1C box."""
    at = data.find(b"av1C")
    if at < 0 or at + 8 > len(data):
        raise damaged("there is no AV1 picture in it")
    flags = data[at + 6]
    bits = 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    return bits, bool(flags & 0x10)


def encode_avif(raster: Raster, options: Options) -> bytes:
    """8 bits through Pillow; 10 and 12 through imagecodecs, which cannot write ICC or EXIF."""
    if raster.bits == 8:
        subsampling = "4:0:0" if raster.samples.shape[2] == 1 else options.subsampling
        return _save(raster, "AVIF", quality=options.quality, subsampling=subsampling)
    import imagecodecs

    return bytes(
        imagecodecs.avif_encode(
            raster.samples,
            level=options.quality,
            bitspersample=raster.bits,
            pixelformat=None if raster.samples.shape[2] < 3 else options.subsampling.replace(":", ""),
        )
    )


# --- JPEG XL ------------------------------------------------------------------------------------------------


def decode_jxl(data: bytes, max_pixels: int) -> Raster:
    """Up to 16-bit integers and floats. libjxl turns the picture upright itself."""
    jxl = read_jxl(data)
    check_size(jxl.width, jxl.height, max_pixels)
    if jxl.extra_channels > 4:
        raise Unreadable(f"{jxl.extra_channels} extra channels are not supported; save it without them")
    import imagecodecs

    samples = _with_channels(imagecodecs.jpegxl_decode(data, index=0, numthreads=1))
    bits = FLOAT_BITS if samples.dtype.kind == "f" else jxl.bits
    if bits == FLOAT_BITS:
        samples = samples.astype(np.float32)
    notes = []
    if jxl.animated:
        notes.append("the file is animated; only its first frame is read")
    if jxl.extra_channels:
        notes.append(f"{jxl.extra_channels} extra channel(s) without a meaning are not kept")
    if jxl.icc:
        notes.append("its colour profile cannot be read out of JPEG XL and is not kept")
    return Raster(
        samples=samples,
        bits=bits,
        exif=sound_exif(lambda: _jxl_exif(data), notes),
        orientation=1,
        lossless=not jxl.lossy,
        premultiplied=jxl.premultiplied,
        notes=tuple(notes),
    )


def _jxl_exif(data: bytes) -> bytes | None:
    """The Exif box, plain or in a Brotli box: four bytes of offset, then the TIFF structure."""
    if data.startswith(JXL_CODESTREAM):
        return None
    for kind, body in boxes(data):
        if kind == b"brob" and body[:4] == b"Exif":
            import imagecodecs

            # `out` bounds what a Brotli bomb can become.
            plain = imagecodecs.brotli_decode(bytes(body[4:]), out=MAX_METADATA)
            kind, body = b"Exif", memoryview(plain)
        if kind == b"Exif" and len(body) > 4:
            return bytes(body[4 + int.from_bytes(body[:4], "big") :]).removeprefix(EXIF_PREFIX)
    return None


def encode_jxl(raster: Raster, options: Options) -> bytes:
    """A picture that libjxl boxed, with the EXIF in a box behind it where there is one."""
    import imagecodecs

    level = None if options.lossless else options.quality
    boxed = bytes(
        imagecodecs.jpegxl_encode(
            raster.samples, level=level, lossless=options.lossless, usecontainer=True, numthreads=1
        )
    )
    return boxed + box(b"Exif", b"\0\0\0\0" + raster.exif) if raster.exif else boxed


# --- Shared -------------------------------------------------------------------------------------------------


def _with_channels(samples: np.ndarray) -> np.ndarray:
    """(h, w) or (h, w, c) -> (h, w, c), c at most 4."""
    samples = samples[..., None] if samples.ndim == 2 else samples
    if samples.ndim != 3 or not 1 <= samples.shape[2] <= 4 or samples.size == 0:
        raise Unreadable(f"its samples have the shape {samples.shape}, which is no gray or colour picture")
    return samples


DIRECT = ("L", "LA", "RGB", "RGBA", "CMYK")


def _from_pillow(image: "Image", *, pixels: bool = True) -> Raster:
    """Decode an opened picture at 8 bits; metadata only where the pixels come from elsewhere."""
    samples = np.zeros((1, 1, 1), np.uint8)
    if pixels:
        if image.mode not in DIRECT:
            image = _direct(image)
        samples = _with_channels(np.asarray(image))
    exif = image.info.get("exif")
    dpi = image.info.get("dpi")
    return Raster(
        samples=samples,
        icc=image.info.get("icc_profile") or None,
        exif=exif.removeprefix(EXIF_PREFIX) if exif else None,
        dpi=dpi if dpi and all(0 < value < 1e6 and math.isfinite(value) for value in dpi) else None,
    )


def _direct(image: "Image") -> "Image":
    """Palettes, 1-bit and padded modes to the nearest of DIRECT, keeping `info`."""
    if image.mode == "1":
        mode = "L"
    elif image.mode == "P":
        mode = "RGBA" if "transparency" in image.info else "RGB"
    elif image.mode in ("RGBX", "YCbCr"):
        mode = "RGB"
    else:
        raise Unreadable(f"pixels of the kind {image.mode} are not supported; convert it to RGB first")
    info, result = image.info, image.convert(mode)
    result.info.update(info)
    return result


def _save(raster: Raster, form: str, **options: object) -> bytes:
    """Encode 8-bit samples through Pillow with their ICC profile and EXIF."""
    from PIL import Image

    samples = raster.samples
    if form in ("WEBP", "AVIF") and samples.shape[2] == 2:  # neither can hold gray with alpha
        samples = samples[..., [0, 0, 0, 1]]
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else np.ascontiguousarray(samples))
    if raster.icc:
        options["icc_profile"] = raster.icc
    if raster.exif:
        options["exif"] = EXIF_PREFIX + raster.exif
    out = BytesIO()
    image.save(out, form, **{name: value for name, value in options.items() if value is not None})
    return out.getvalue()


def _whole_dpi(dpi: tuple[float, float] | None) -> tuple[int, int] | None:
    """JPEG and BMP headers hold whole numbers."""
    return dpi and (round(dpi[0]), round(dpi[1]))


# --- The table ----------------------------------------------------------------------------------------------

UNLIMITED = 2**31 - 1


class Codec(NamedTuple):
    """What a format can hold, and the two functions that read and write it."""

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
    metadata_depth: int = FLOAT_BITS  # the largest depth at which we can write ICC and EXIF


CODECS = {
    "png": Codec(decode_png, encode_png, (8, 16), 1_000_000),
    "jpg": Codec(decode_jpeg, encode_jpeg, (8,), 65_500, alpha=False, exif_limit=65_527),
    "tif": Codec(decode_tiff, encode_tiff, (8, 16, 32), UNLIMITED, premultiplied=True),
    "webp": Codec(decode_webp, encode_webp, (8,), 16_383, gray=False),
    "bmp": Codec(decode_bmp, encode_bmp, (8,), UNLIMITED, alpha=False, icc=False, exif_limit=0),
    "jxl": Codec(decode_jxl, encode_jxl, (8, 16, 32), 1 << 30, icc=False),
    "avif": Codec(decode_avif, encode_avif, (8, 10, 12), 65_535, exact_alpha=False, metadata_depth=8),
}

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
