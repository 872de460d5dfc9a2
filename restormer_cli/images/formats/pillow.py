"""JPEG and BMP, which Pillow reads and writes whole, and what other formats need of it: bytes <-> Raster.

Each decoder refuses by the header, before it decodes. Heavy libraries are imported by the function that needs
them. What third-party code raises is left to the caller (`raster.third_party`).
"""

import math
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from restormer_cli.images.formats.exif_icc import EXIF_PREFIX, ORIENTATION, cmyk_to_rgb, upright_size
from restormer_cli.images.formats.raster import (
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
    from PIL.JpegImagePlugin import JpegImageFile, jpeg_factory

    image = jpeg_factory(BytesIO(data))
    assert isinstance(image, JpegImageFile)
    check_size(*image.size, max_pixels)
    # Each 8 × 8 block costs a bit at the least, so a byte holds 512 pixels at the most.
    check_plausible(len(data), image.width * image.height, 512, "JPEG")
    raster = from_pillow(image)
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
    return save_by_pillow(
        raster, "JPEG", quality=options.quality, subsampling=options.subsampling, dpi=_whole_dpi(raster.dpi)
    )


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
    return from_pillow(image)


def encode_bmp(raster: Raster, options: Options) -> bytes:
    """8-bit gray or RGB, uncompressed."""
    return save_by_pillow(raster, "BMP", dpi=_whole_dpi(raster.dpi))


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


def save_by_pillow(raster: Raster, form: str, **options: object) -> bytes:
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


def pillow_size(file: BinaryIO, form: str) -> tuple[int, int]:
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
    return upright_size(image.height, image.width, image.getexif().get(ORIENTATION, 1))
