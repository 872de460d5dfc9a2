"""AVIF: its configuration, decoding and encoding at 8, 10 and 12 bits."""

from io import BytesIO

from restormer_cli.images.formats.pillow import from_pillow, save_by_pillow
from restormer_cli.images.formats.raster import Options, Raster, check_size, damaged, peak, with_channels


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
        return save_by_pillow(raster, "AVIF", quality=options.quality, subsampling=subsampling)
    import imagecodecs

    return bytes(
        imagecodecs.avif_encode(
            raster.samples,
            level=options.quality,
            bitspersample=raster.bits,
            pixelformat=None if raster.samples.shape[2] < 3 else options.subsampling.replace(":", ""),
        )
    )
