"""Cameras' raw files, developed by LibRaw (the `[raw]` extra), and linear DNG, which raw converters open.

A raw file is developed as the camera saw it: its white balance, no brightening, its own crop, upright. The pixels are
sRGB at 16 bits, not cut off: what lies beyond sRGB's gamut or beyond white goes on in the numbers, so that a DNG
written from them holds the sensor's own colours again, and only the change is new.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np

from restormer_cli.errors import one_line
from restormer_cli.images.formats.exif_icc import EXIF_PREFIX, sound_exif, turn
from restormer_cli.images.formats.raster import (
    COPY_AGAIN,
    TRUNCATED,
    Beside,
    Camera,
    Options,
    Raster,
    Unreadable,
    check_size,
)
from restormer_cli.images.formats.tiff import SUB_IFDS, ImageTags, directory_exif, ends_early, write_tiff
from restormer_cli.images.light import SRGB_POINTS, curve_both_ways, to_xyz_d65

NEEDED = "a camera's raw file, which needs rawpy: pip install 'restormer-cli[raw]'"
FLIPS = {0: 1, 3: 3, 5: 8, 6: 6}
"""LibRaw's turns -> EXIF's orientations."""
ORIENTATION, XMP, DNG_VERSION, NEW_SUBFILE_TYPE = 274, 700, 50706, 254
LINEAR_RAW, D65_LIGHT = 34892, 21
XYZ_TO_SRGB = np.linalg.inv(to_xyz_d65(SRGB_POINTS))
MAGIC = (b"FUJIFILM", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb")


def is_raw(data: bytes | BinaryIO) -> bool:
    """Whether these are a camera's: by their first bytes, or in a TIFF by tags that only cameras write."""
    stream = BytesIO(data) if isinstance(data, bytes) else data

    def at(place: int, length: int) -> bytes:
        stream.seek(place)
        return stream.read(length)

    head = at(0, 16)
    if head.startswith(MAGIC) or head[4:11] == b"ftypcrx" or head[8:10] == b"CR":
        return True
    tags = _first_tags(stream)
    return DNG_VERSION in tags or (SUB_IFDS in tags and bool(tags.get(NEW_SUBFILE_TYPE, 0) & 1))


def _first_tags(stream: BinaryIO) -> dict[int, int]:
    """Tags of a TIFF's first directory, and their values where these are short; none of another file."""
    stream.seek(0)
    head = stream.read(8)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[:4])
    if order is None or len(head) < 8:
        return {}
    stream.seek(struct.unpack(order + "I", head[4:])[0])
    count = int.from_bytes(stream.read(2), "little" if order == "<" else "big")
    rows = stream.read(12 * min(count, 500))
    return {tag: value for tag, _, _, value in struct.iter_unpack(order + "HHII", rows[: len(rows) // 12 * 12])}


def decode_raw(data: bytes, max_pixels: int) -> Raster:
    """Demosaiced, in sRGB's numbers: float32 that may leave [0, 1]."""
    if DNG_VERSION in _first_tags(BytesIO(data)) and ends_early(data):
        raise Unreadable(TRUNCATED)
    with _opened(data) as raw:
        import rawpy

        sizes = raw.sizes
        check_size(sizes.raw_width, sizes.raw_height, max_pixels)
        balance = [float(value) for value in raw.camera_whitebalance[:3]]
        own = all(np.isfinite(value) and value > 0 for value in balance)
        if not own:
            balance = [float(value) for value in raw.daylight_whitebalance[:3]]
        light = raw.postprocess(
            output_color=rawpy.ColorSpace.raw,  # pyright: ignore
            output_bps=16,
            gamma=(1, 1),
            no_auto_bright=True,
            adjust_maximum_thr=0,
            use_camera_wb=own,
            user_flip=0,
        )
        light = _cropped(light[..., None] if light.ndim == 2 else light, sizes).astype(np.float32) / 65535
        to_srgb = np.array(raw.color_matrix, np.float64)[:, :3]
        daylight = [float(value) for value in raw.daylight_whitebalance[:3]]
        notes: list[str] = []
        exif = sound_exif(lambda: directory_exif(data, notes) or _told(raw), notes)
    camera = _camera(to_srgb, balance, daylight) if light.shape[2] == 3 else Camera()
    if light.shape[2] not in (1, 3):
        raise Unreadable(f"a sensor of {light.shape[2]} colours is not supported; develop it to a TIFF first")
    if light.shape[2] == 3:
        light = light @ np.linalg.inv(camera.from_srgb).T.astype(np.float32)
    return Raster(
        samples=curve_both_ways(light, back=True),
        bits=16,
        exif=exif,
        orientation=FLIPS.get(sizes.flip, 1),
        lossless=True,
        notes=tuple(notes),
        beside=Beside(xmp=_xmp(data)),
        camera=camera,
    )


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    """LibRaw's view of a file."""
    try:
        import rawpy
    except ImportError:
        raise Unreadable(NEEDED) from None
    try:
        with rawpy.imread(BytesIO(data)) as raw:
            yield raw
    except rawpy.LibRawError as error:  # pyright: ignore
        words = error.args[0] if error.args else ""
        told = words.decode("latin-1") if isinstance(words, bytes) else str(words)
        raise Unreadable(f"a camera's raw file that LibRaw cannot read ({one_line(told)}); {COPY_AGAIN}") from None


def _cropped(light: np.ndarray, sizes: Any) -> np.ndarray:
    """What the camera shows of its sensor, where it says so."""
    left, top = sizes.crop_left_margin - sizes.left_margin, sizes.crop_top_margin - sizes.top_margin
    width, height = sizes.crop_width, sizes.crop_height
    inside = 0 <= left < light.shape[1] and 0 <= top < light.shape[0]
    if width < 1 or height < 1 or not inside or left + width > light.shape[1] or top + height > light.shape[0]:
        return light
    return light[top : top + height, left : left + width]


def _camera(to_srgb: np.ndarray, balance: list[float], daylight: list[float]) -> Camera:
    """The sensor's colours, from LibRaw's matrix of balanced ones to sRGB's light, which keeps white white."""
    matrices = np.array([*to_srgb.ravel(), *balance, *daylight])
    if not np.isfinite(matrices).all() or abs(np.linalg.det(to_srgb)) < 1e-6 or min(*balance, *daylight) <= 0:
        return Camera()
    from_srgb = np.linalg.inv(to_srgb)
    neutral = min(balance) / np.array(balance)
    return Camera(from_srgb, neutral, np.diag(daylight[1] / np.array(daylight)) @ from_srgb @ XYZ_TO_SRGB)


def _told(raw: Any) -> bytes | None:
    """What LibRaw tells of the shot, as EXIF, where the file's own is out of reach."""
    from fractions import Fraction

    from PIL import Image

    other = raw.other
    exif = Image.Exif()
    below = exif.get_ifd(0x8769)
    facts = {0x829A: "shutter", 0x829D: "aperture", 0x920A: "focal_len"}
    for tag, name in facts.items():
        value = float(getattr(other, name, 0) or 0)
        if 0 < value < 1e6:
            below[tag] = Fraction(value).limit_denominator(100_000)
    iso = round(float(getattr(other, "iso_speed", 0) or 0))
    if 0 < iso < 65536:
        below[0x8827] = iso
    lens = getattr(raw.lens, "lens", None) or getattr(raw.lens, "model", None)
    if isinstance(lens, bytes):
        lens = lens.decode("latin-1")
    if lens:
        below[0xA434] = str(lens)
    return exif.tobytes().removeprefix(EXIF_PREFIX) if below else None


def _xmp(data: bytes) -> bytes | None:
    start, end = data.find(b"<x:xmpmeta"), data.find(b"</x:xmpmeta>")
    return data[start : end + 12] if 0 <= start < end < start + (1 << 20) else None


def encode_dng(raster: Raster, options: Options) -> bytes:
    """A linear DNG: demosaiced, in the sensor's own colours before white balance, 16 bits, not compressed."""
    camera = raster.camera or Camera()
    light = curve_both_ways(raster.samples.astype(np.float32))
    if light.shape[2] == 1:
        light = np.repeat(light, 3, axis=2)
    light = light @ camera.from_srgb.T.astype(np.float32) * camera.neutral.astype(np.float32)
    stored = np.rint(np.clip(light, 0, 1) * 65535).astype(np.uint16)
    from_xyz = XYZ_TO_SRGB if camera.from_xyz is None else camera.from_xyz
    model = b"restormer-cli linear DNG\0"
    tags: ImageTags = {
        254: ("I", (0,)),
        262: ("H", (LINEAR_RAW,)),
        DNG_VERSION: ("B", (1, 4, 0, 0)),
        50707: ("B", (1, 1, 0, 0)),
        50708: ("s", model),
        50714: ("H", (0, 0, 0)),
        50717: ("H", (65535,) * 3),
        50721: ("i", tuple(part for value in from_xyz.ravel() for part in (round(float(value) * 10_000), 10_000))),
        50728: ("r", tuple(part for value in camera.neutral for part in (round(float(value) * 1_000_000), 1_000_000))),
        50778: ("H", (D65_LIGHT,)),
        ORIENTATION: ("H", (1,)),
    }
    raster.samples = stored
    return write_tiff(raster, tags, deflate=False)


def dng_keeps(colour: tuple[tuple[bytes, bytes], ...], bits: int, lossless: bool) -> bool:
    """A DNG holds a sensor's colours and nothing else."""
    return False


def raw_size(data: bytes) -> tuple[int, int]:
    """(height, width), upright and cropped."""
    with _opened(data) as raw:
        sizes = raw.sizes
        there = np.broadcast_to(np.zeros((1, 1, 1)), (sizes.height, sizes.width, 1))
        height, width = turn(_cropped(there, sizes), FLIPS.get(sizes.flip, 1)).shape[:2]
    return height, width
