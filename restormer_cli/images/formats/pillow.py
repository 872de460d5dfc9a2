"""JPEG and BMP, which Pillow reads and writes whole, and what other formats need of it: bytes <-> Raster.

Each decoder refuses by the header, before it decodes. Heavy libraries are imported by the function that needs
them. What third-party code raises is left to the caller (`raster.third_party`).
"""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from restormer_cli.images.formats.exif_icc import EXIF_PREFIX, ORIENTATION, cmyk_to_rgb, upright_size
from restormer_cli.images.formats.raster import (
    TRUNCATED,
    Beside,
    Options,
    Raster,
    Unreadable,
    check_plausible,
    check_size,
    damaged,
    with_channels,
)

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SCANS = 200  # an honest progressive JPEG has about ten; each costs a pass over the whole picture


# --- JPEG ---------------------------------------------------------------------------------------------------


def decode_jpeg(data: bytes, max_pixels: int) -> Raster:
    """Gray, colour or CMYK, the latter converted to RGB through its profile."""
    if data.count(b"\xff\xda") > MAX_SCANS:
        raise damaged(f"it has more than {MAX_SCANS} scans")
    if (precision := _precision(data)) is not None and precision[0] == 12:
        return _deep_jpeg(data, precision, max_pixels)
    from PIL.JpegImagePlugin import JpegImageFile, jpeg_factory

    image = jpeg_factory(BytesIO(data))
    assert isinstance(image, JpegImageFile)
    check_size(*image.size, max_pixels)
    # Each 8 × 8 block costs a bit at the least, so a byte holds 512 pixels at the most.
    check_plausible(len(data), image.width * image.height, 512, "JPEG")
    raster = from_pillow(image)
    raster.lossless = False
    if image.info.get("jfif_unit") not in (1, 2) and X_RESOLUTION not in image.getexif():
        raster.dpi = None  # Pillow's 72 where there is EXIF and nothing is said
    comment, iptc = image.info.get("comment"), _iptc(image.info.get("photoshop"))
    raster.beside = replace(raster.beside, comment=comment or None, iptc=iptc)
    if xmp := raster.beside.xmp:
        raster.beside = replace(raster.beside, xmp=_true_xmp(xmp))
    raster.notes = tuple(_behind(image, xmp or b""))
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raster.notes += (f"the file holds {frames} pictures; only the first is read",)
    if image.mode == "CMYK":
        raster.samples, raster.icc = cmyk_to_rgb(raster.samples, raster.icc, 8), None
        raster.notes += ("converted from CMYK to RGB",)
    return raster


def _precision(data: bytes) -> tuple[int, int, int, int] | None:
    """Bits per sample, height, width and channels from the frame header; None where there is none."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return struct.unpack_from(">BHHB", data, at + 4)  # pyright: ignore[reportReturnType]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _deep_jpeg(data: bytes, header: tuple[int, int, int, int], max_pixels: int) -> Raster:
    """12 bits per sample, as medical and camera files have; Pillow knows only 8."""
    _, height, width, channels = header
    check_size(width, height, max_pixels)
    check_plausible(len(data), width * height, 512, "JPEG")
    if channels not in (1, 3):
        raise Unreadable(f"12-bit JPEG of {channels} channels is not supported; convert it to RGB first")
    import imagecodecs

    samples = with_channels(imagecodecs.jpeg8_decode(data))
    return Raster(samples.astype(np.uint16), 12, lossless=False, notes=("what stands beside its pixels is not kept",))


def _behind(image: "Image", xmp: bytes) -> Iterator[str]:
    """Notes on a phone's additions to the picture that are not kept."""
    if b"hdrgm:Version" in xmp or b"hdr-gain-map" in xmp.lower() or b"HDRGainMap" in xmp:
        yield "its HDR gain map is not kept: bright lights look as on ordinary screens"
    if b"MotionPhoto" in xmp or b"MicroVideo" in xmp:
        yield "the video of the motion photo is not kept, only the picture"
    markers = [content for _, content in getattr(image, "applist", [])]
    if any(content.startswith(b"http://ns.adobe.com/xmp/extension/\0") for content in markers):
        yield "its extended XMP (depth, panorama or large data) is not kept"


FALSE_IN_XMP = re.compile(
    rb"""\s(?:hdrgm:[A-Za-z]+|(?:GCamera|Camera):(?:MotionPhoto|MicroVideo)[A-Za-z]*|xmpNote:HasExtendedXMP)"""
    rb"""\s*=\s*(?:"[^"]*"|'[^']*')"""
)
CONTAINER = re.compile(rb"<(Container|GContainer):Directory\b.*?</\1:Directory>", re.DOTALL)


def _true_xmp(xmp: bytes) -> bytes:
    """Without what speaks of a gain map, a video or extended data that are no longer behind the picture."""
    return CONTAINER.sub(b"", FALSE_IN_XMP.sub(b"", xmp))


def _iptc(resources: object) -> bytes | None:
    """IPTC-IIM, from Photoshop's resources as Pillow hands them out by number."""
    found = resources.get(IPTC_RESOURCE) if isinstance(resources, dict) else None
    return found if isinstance(found, bytes) and found else None


IPTC_RESOURCE = 0x0404
X_RESOLUTION = 282


def encode_jpeg(raster: Raster, options: Options) -> bytes:
    """8-bit gray or YCbCr."""
    beside = raster.beside
    made = save_by_pillow(
        raster,
        "JPEG",
        quality=options.quality,
        subsampling=options.subsampling,
        dpi=_whole_dpi(raster.dpi),
        comment=beside.comment,
    )
    if not beside.iptc:
        return made
    body = struct.pack(">4sHHI", b"8BIM", IPTC_RESOURCE, 0, len(beside.iptc)) + beside.iptc
    body = b"Photoshop 3.0\0" + body + b"\0" * (len(beside.iptc) % 2)
    at = 2  # behind JFIF and EXIF, which must come first
    while made[at : at + 2] in (b"\xff\xe0", b"\xff\xe1"):
        at += 2 + int.from_bytes(made[at + 2 : at + 4], "big")
    return made[:at] + b"\xff\xed" + struct.pack(">H", len(body) + 2) + body + made[at:]


# --- BMP ----------------------------------------------------------------------------------------------------


def decode_bmp(data: bytes, max_pixels: int) -> Raster:
    """Any depth that Pillow reads; 16-bit pixels come out as 8 bits per channel."""
    from PIL.BmpImagePlugin import BmpImageFile

    if (own := _masked_bmp(data, max_pixels)) is not None:
        return own
    image = BmpImageFile(BytesIO(data))
    check_size(*image.size, max_pixels)
    codec, _, _, arguments = image.tile[0]
    if codec == "raw" and isinstance(arguments, tuple):
        bytes_per_row = int(arguments[1])
        check_plausible(len(data), bytes_per_row * image.height, 1, "pixels")
    return from_pillow(image)


def encode_bmp(raster: Raster, options: Options) -> bytes:
    """8-bit gray or RGB, uncompressed; with alpha 32 bits and a version 4 header, whose masks say so."""
    samples = raster.samples
    if samples.shape[2] in (1, 3):
        return save_by_pillow(raster, "BMP", dpi=_whole_dpi(raster.dpi))
    if samples.shape[2] == 2:
        samples = samples[..., [0, 0, 0, 1]]
    height, width = samples.shape[:2]
    body = np.ascontiguousarray(samples[::-1, :, [2, 1, 0, 3]]).tobytes()
    across, down = (round(value / 0.0254) for value in raster.dpi or (0, 0))
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, BITFIELDS, len(body), across, down, 0, 0)
    header += struct.pack("<IIII4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs").ljust(68, b"\0")
    start = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + header + body


BITFIELDS = 3


def _masked_bmp(data: bytes, max_pixels: int) -> Raster | None:
    """16-bit pixels with masks of their own, such as ARGB 1555 and 4444, which Pillow refuses; None for all others."""
    if len(data) < 70 or int.from_bytes(data[14:18], "little") < 52:
        return None
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if bits != 16 or compression not in (BITFIELDS, 6):
        return None
    check_size(width, abs(height), max_pixels)
    start, row = int.from_bytes(data[10:14], "little"), (2 * width + 3) // 4 * 4
    if start + row * abs(height) > len(data):
        raise Unreadable(TRUNCATED)
    masks = struct.unpack_from("<4I" if int.from_bytes(data[14:18], "little") >= 56 else "<3I", data, 54)
    if any(mask > 0xFFFF for mask in masks) or not all(masks[:3]):
        raise damaged("its masks make no sense")
    pixels = np.frombuffer(data, "<u2", row * abs(height) // 2, start).reshape(abs(height), row // 2)[:, :width]
    channels = []
    for mask in masks if len(masks) == 4 and masks[3] else masks[:3]:
        low = (mask & -mask).bit_length() - 1
        top = mask >> low
        channels.append(np.rint(((pixels & mask) >> low) * (255 / top)).astype(np.uint8))
    samples = np.stack(channels, axis=2)
    return Raster(samples if height < 0 else samples[::-1])


DIRECT = ("L", "LA", "RGB", "RGBA", "CMYK")


def from_pillow(image: "Image", *, pixels: bool = True) -> Raster:
    """Decode an opened picture at 8 bits; metadata only where the pixels come from elsewhere."""
    samples = np.zeros((1, 1, 1), np.uint8)
    if pixels:
        if image.mode not in DIRECT:
            image = _direct(image)
        samples = with_channels(np.asarray(image))
    exif = image.info.get("exif")
    dpi = image.info.get("dpi")
    return Raster(
        samples=samples,
        icc=image.info.get("icc_profile") or None,
        exif=exif.removeprefix(EXIF_PREFIX) if exif else None,
        dpi=dpi if dpi and all(0 < value < 1e6 and math.isfinite(value) for value in dpi) else None,
        beside=Beside(xmp=image.info.get("xmp") or None),
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


def save_by_pillow(raster: Raster, form: str, **options: Any) -> bytes:
    """Encode 8-bit samples through Pillow with their ICC profile, EXIF and XMP."""
    samples = raster.samples
    if form in ("WEBP", "AVIF") and samples.shape[2] == 2:  # neither can hold gray with alpha
        samples = samples[..., [0, 0, 0, 1]]
    if raster.icc:
        options["icc_profile"] = raster.icc
    if raster.exif:
        options["exif"] = EXIF_PREFIX + raster.exif
    if raster.beside.xmp and form != "BMP":
        options["xmp"] = raster.beside.xmp
    return encode_8_bits(samples, form, **options)


def encode_8_bits(samples: np.ndarray, form: str, **options: Any) -> bytes:
    """uint8 (h, w, c) in one of Pillow's formats, through imageio; options that are None are left out."""
    import imageio.v3 as iio

    pixels = samples[..., 0] if samples.shape[2] == 1 else np.ascontiguousarray(samples)
    named = {name: value for name, value in options.items() if value is not None}
    made = iio.imwrite("<bytes>", pixels, plugin="pillow", extension=f".{form.lower()}", is_batch=False, **named)
    assert made is not None
    return made


def _whole_dpi(dpi: tuple[float, float] | None) -> tuple[int, int] | None:
    """JPEG and BMP headers hold whole numbers."""
    return dpi and (round(dpi[0]), round(dpi[1]))


def pillow_size(file: BinaryIO, form: str) -> tuple[int, int]:
    """By the format's own class: `Image.open` would warn of large pictures and try every other format."""
    if form == "jpg":
        if (precision := _precision(file.read())) is not None and precision[0] == 12:
            return precision[1], precision[2]
        file.seek(0)
        from PIL.JpegImagePlugin import JpegImageFile as Opened
    elif form == "webp":
        from PIL.WebPImagePlugin import WebPImageFile as Opened
    elif form == "avif":
        from PIL.AvifImagePlugin import AvifImageFile as Opened
    elif form == "bmp":
        head = file.read(30)
        if len(head) == 30:  # Pillow refuses some masks
            width, height = struct.unpack_from("<ii", head, 18)
            if int.from_bytes(head[14:18], "little") >= 52 and width > 0 and height:
                return abs(height), width
        file.seek(0)
        from PIL.BmpImagePlugin import BmpImageFile as Opened
    else:
        raise Unreadable("has no header that is understood")
    image = Opened(file)
    return upright_size(image.height, image.width, image.getexif().get(ORIENTATION, 1))
