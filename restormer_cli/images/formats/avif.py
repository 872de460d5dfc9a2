"""AVIF: its configuration, decoding and encoding at 8, 10 and 12 bits."""

import struct
from io import BytesIO

from restormer_cli.images.formats.pillow import from_pillow, save_by_pillow
from restormer_cli.images.formats.raster import SRGB, Options, Raster, check_size, cicp_of, damaged, peak, with_channels


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
    raster = from_pillow(image, pixels=bits == 8)
    if bits > 8:
        import imagecodecs

        raster.samples, raster.bits = with_channels(imagecodecs.avif_decode(data)), bits
        turned = (image.height, image.width) == raster.samples.shape[:2]
        if not turned and (image.width, image.height) != raster.samples.shape[:2]:
            raise damaged("its header and its pixels differ in size")
        if raster.samples.max() > peak(bits):
            raise damaged(f"its samples exceed {bits} bits")
    elif gray and raster.samples.shape[2] >= 3:
        raster.samples = raster.samples[..., [0, 3] if raster.samples.shape[2] == 4 else [0]]
    raster.lossless, raster.notes = False, notes
    raster.colour = () if raster.icc else _cicp(data)
    return raster


def _av1_configuration(data: bytes) -> tuple[int, bool]:
    """Bits per sample and whether it is gray, from the first av1C box."""
    at = data.find(b"av1C")
    if at < 0 or at + 8 > len(data):
        raise damaged("there is no AV1 picture in it")
    flags = data[at + 6]
    bits = 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    return bits, bool(flags & 0x10)


SPEED = 6
"""Pillow's and avifenc's own; imagecodecs begins at its slowest, some forty times slower for about as many bytes."""
NCLX = b"colrnclx"


def _cicp(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Colour space as PNG's cICP, unless that is sRGB or left open."""
    at = data.find(NCLX) + len(NCLX)
    if at < len(NCLX) or at + 7 > len(data):
        return ()
    primaries, transfer = struct.unpack_from(">HH", data, at)
    if (primaries, transfer) == SRGB or 2 in (primaries, transfer) or max(primaries, transfer) > 255:
        return ()
    return ((b"cICP", bytes([primaries, transfer, 0, 1])),)


def _declared(data: bytes, primaries: int, transfer: int) -> bytes:
    """The file with other primaries and transfer in every colour box; the matrix is the encoder's."""
    result, at = bytearray(data), data.find(NCLX)
    while at >= 0:
        struct.pack_into(">HH", result, at + len(NCLX), primaries, transfer)
        at = data.find(NCLX, at + 1)
    return bytes(result)


def avif_keeps(colour: tuple[tuple[bytes, bytes], ...], bits: int, lossless: bool) -> bool:
    """Whether a file that we write says what these colours mean: whatever CICP numbers."""
    return cicp_of(colour) is not None


def encode_avif(raster: Raster, options: Options) -> bytes:
    """8 bits through Pillow; 10 and 12 through imagecodecs, which cannot write ICC or EXIF."""
    primaries, transfer = cicp_of(raster.colour) or SRGB
    if raster.bits == 8:
        subsampling = "4:0:0" if raster.samples.shape[2] == 1 else options.subsampling
        made = save_by_pillow(raster, "AVIF", quality=options.quality, subsampling=subsampling)
        return made if (primaries, transfer) == SRGB else _declared(made, primaries, transfer)
    import imagecodecs

    return bytes(
        imagecodecs.avif_encode(
            raster.samples,
            level=options.quality,
            speed=SPEED,
            primaries=primaries,
            transfer=transfer,
            bitspersample=raster.bits,
            pixelformat=None if raster.samples.shape[2] < 3 else options.subsampling.replace(":", ""),
        )
    )
