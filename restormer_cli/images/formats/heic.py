"""HEIC, as phones take it: 8, 10 and 12 bits, through pillow-heif (the `[heic]` extra) and its libheif."""

from io import BytesIO
from typing import Any

import numpy as np

from restormer_cli.images.formats.exif_icc import EXIF_PREFIX
from restormer_cli.images.formats.raster import (
    SRGB,
    Beside,
    Options,
    Raster,
    Unreadable,
    check_size,
    cicp_of,
    damaged,
    peak,
)

NEEDED = "a HEIC, which needs pillow-heif: pip install 'restormer-cli[heic]'"
GAIN_MAP, DEPTH = ("hdrgainmap", "tmap"), ("depth", "disparity")


def decode_heic(data: bytes, max_pixels: int) -> Raster:
    """The main picture; libheif turns and crops it as the file asks, so that EXIF's orientation is done."""
    heif = _library()
    file = heif.HeifFile(BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    if not len(file):
        raise damaged("there is no picture in it")
    image = file[file.primary_index]
    width, height = image.size
    check_size(width, height, max_pixels)
    info, bits = image.info, int(image.info.get("bit_depth", 8))
    if bits not in (8, 10, 12):
        raise Unreadable(f"{bits}-bit HEIC is not supported; convert it to PNG or TIFF first")
    samples = np.asarray(image)
    samples = samples[..., None] if samples.ndim == 2 else samples
    if samples.shape[:2] != (height, width) or samples.max(initial=0) > peak(bits):
        raise damaged("its header and its pixels differ")
    icc, exif = info.get("icc_profile") or None, info.get("exif") or None
    return Raster(
        samples=samples,
        bits=bits,
        icc=icc,
        exif=exif.removeprefix(EXIF_PREFIX) if exif else None,
        orientation=1,
        colour=() if icc else _cicp(info.get("nclx_profile")),
        lossless=False,
        premultiplied=bool(image.premultiplied_alpha),
        notes=tuple(_beside(file, info)),
        beside=Beside(xmp=info.get("xmp") or None),
    )


def encode_heic(raster: Raster, options: Options) -> bytes:
    """By x265; the picture is upright, and its colours are in an ICC profile or in H.273's numbers."""
    heif = _library()
    samples = raster.samples
    height, width, channels = samples.shape
    mode = ("L", "LA", "RGB", "RGBA")[channels - 1] + (f";{raster.bits}" if raster.bits > 8 else "")
    primaries, transfer = cicp_of(raster.colour) or SRGB
    said: dict[str, Any] = {
        "quality": options.quality,
        "chroma": options.subsampling.replace(":", ""),
        "bit_depth": raster.bits,
        "color_primaries": primaries,
        "transfer_characteristics": transfer,
        "matrix_coefficients": 9 if primaries == 9 else 6,
        "full_range_flag": 1,
    }
    if raster.icc:
        said |= {"icc_profile": raster.icc, "icc_profile_type": "prof"}
    if raster.exif:
        said["exif"] = EXIF_PREFIX + raster.exif
    if raster.beside.xmp:
        said["xmp"] = raster.beside.xmp
    out = BytesIO()
    heif.encode(mode, (width, height), np.ascontiguousarray(samples).tobytes(), out, **said)
    return out.getvalue()


def heic_size(data: bytes) -> tuple[int, int]:
    """(height, width), upright."""
    file = _library().HeifFile(BytesIO(data))
    width, height = file[file.primary_index].size
    return height, width


def heic_keeps(colour: tuple[tuple[bytes, bytes], ...], bits: int, lossless: bool) -> bool:
    """Whether a file that we write says what these colours mean: whatever H.273 numbers."""
    return cicp_of(colour) is not None


def _library() -> Any:
    try:
        import pillow_heif
    except ImportError:
        raise Unreadable(NEEDED) from None
    pillow_heif.options.DECODE_THREADS = 1  # pictures are read beside one that is computed
    return pillow_heif


def _cicp(nclx: dict[str, Any] | None) -> tuple[tuple[bytes, bytes], ...]:
    """What the file's numbers mean, as PNG's cICP, unless that is sRGB or left open."""
    if nclx is None:
        return ()
    primaries, transfer = int(nclx["color_primaries"]), int(nclx["transfer_characteristics"])
    if (primaries, transfer) == SRGB or 2 in (primaries, transfer) or max(primaries, transfer) > 255:
        return ()
    return ((b"cICP", bytes([primaries, transfer, 0, 1])),)


def _beside(file: Any, info: dict[str, Any]) -> list[str]:
    """What a phone packs beside the picture and we do not carry, each a note."""
    kinds = " ".join(str(kind).lower() for kind in info.get("aux", {}))
    notes = []
    if any(name in kinds for name in GAIN_MAP):
        notes.append("its HDR gain map is not kept: bright lights look as on ordinary screens")
    if info.get("depth_images") or any(name in kinds for name in DEPTH):
        notes.append("its depth map is not kept")
    if len(file) > 1:
        notes.append(f"the file holds {len(file)} pictures; only the main one is read")
    return notes
