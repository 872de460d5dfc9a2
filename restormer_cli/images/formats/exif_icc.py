"""Metadata beside the samples: EXIF and ICC profiles, as bytes that are checked but never rewritten.

EXIF is a little TIFF file. Makers' notes point into it by absolute offsets, so it is patched in place and
never taken apart and put together again. Raises `Unreadable`.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from restormer_cli.images.formats.raster import Unreadable, peak, third_party

EXIF_PREFIX = b"Exif\x00\x00"  # before the TIFF structure, in JPEG
ORIENTATION = 274
DAMAGED_EXIF = "its EXIF is damaged and not kept"
SIZE_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


# --- EXIF ---------------------------------------------------------------------------------------------------


def sound_exif(read: Callable[[], bytes | None], notes: list[str]) -> bytes | None:
    """EXIF as a third-party library digs it out, or a note: damage there must not cost the picture."""
    try:
        with third_party():
            return read()
    except Unreadable:
        notes.append(DAMAGED_EXIF)
        return None


@dataclass
class Ifd:
    """The first directory of a TIFF structure: where its entries are and what they say."""

    order: str  # "<" or ">", as `struct` has it
    entries: list[tuple[int, int, int, int]]  # tag, type, count, offset of the 4-byte value in the structure
    end: int  # offset of the pointer to the next directory


def read_ifd(exif: bytes) -> Ifd:
    """The first directory of an EXIF block; entries that point outside the block are left out."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None or len(exif) < 14:
        raise Unreadable(DAMAGED_EXIF)
    start = struct.unpack_from(order + "I", exif, 4)[0]
    if not 8 <= start <= len(exif) - 2:
        raise Unreadable(DAMAGED_EXIF)
    count = struct.unpack_from(order + "H", exif, start)[0]
    end = start + 2 + 12 * count
    if end > len(exif):
        raise Unreadable(DAMAGED_EXIF)
    entries = []
    for at in range(start + 2, end, 12):
        tag, kind, values, offset = struct.unpack_from(order + "HHII", exif, at)
        size = SIZE_OF_TYPE.get(kind, 0) * values
        if size and (size <= 4 or offset + size <= len(exif)):
            entries.append((tag, kind, values, at + 8))
    return Ifd(order, entries, end)


def upright(exif: bytes) -> tuple[int, bytes]:
    """The orientation that an EXIF block asks for (1 to 8), and the block once that is done.

    The tag is reset to 1, and the thumbnail unlinked, since it shows the picture as it was before.
    """
    ifd, result, orientation = read_ifd(exif), bytearray(exif), 1
    for tag, kind, _, at in ifd.entries:
        if tag == ORIENTATION and kind in (3, 4):
            layout = ifd.order + ("H" if kind == 3 else "I")
            value = struct.unpack_from(layout, exif, at)[0]
            orientation = value if 1 <= value <= 8 else 1
            struct.pack_into(layout, result, at, 1)
    if ifd.end + 4 <= len(result):
        struct.pack_into(ifd.order + "I", result, ifd.end, 0)
    return orientation, bytes(result)


# What EXIF's 1 to 8 ask for, in this order: swap the axes, then flip up-down, then flip left-right.
TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def turn(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored samples upright: (h, w, c) -> (h, w, c), or (w, h, c) for orientations 5 to 8."""
    swap, vertical, horizontal = TURNS[orientation]
    if swap:
        samples = samples.swapaxes(0, 1)
    return samples[:: -1 if vertical else 1, :: -1 if horizontal else 1]


# --- ICC ----------------------------------------------------------------------------------------------------


def icc_space(icc: bytes) -> str | None:
    """The colour space of an ICC profile: "GRAY", "RGB" or "CMYK"; None when it is no profile at all."""
    if len(icc) < 132 or icc[36:40] != b"acsp" or int.from_bytes(icc[:4], "big") > len(icc):
        return None
    return icc[16:20].decode("latin-1").strip()


def cmyk_to_rgb(cmyk: np.ndarray, icc: bytes | None, bits: int) -> np.ndarray:
    """CMYK samples, 0 for no ink, to RGB: (h, w, 4) -> (h, w, 3), through the profile where there is one."""
    if icc is not None and icc_space(icc) == "CMYK" and bits in (8, 16):
        import imagecodecs

        return imagecodecs.cms_transform(
            np.ascontiguousarray(cmyk),
            icc,
            imagecodecs.cms_profile("srgb"),
            colorspace="cmyk",
            outcolorspace="rgb",
            outdtype=cmyk.dtype,
        )
    top = peak(bits)
    paper = top - cmyk.astype(np.uint32)
    return ((paper[..., :3] * paper[..., 3:] + top // 2) // top).astype(cmyk.dtype)


def upright_size(height: int, width: int, orientation: object) -> tuple[int, int]:
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


EXIF_IFD, INTEROP_IFD, COLOUR_SPACE = 34665, 40965, 40961


def is_adobe_rgb(exif: bytes) -> bool:
    """Whether a camera's EXIF says Adobe RGB, as DCF has it: no colour space of EXIF's own, interoperability R03."""
    try:
        order = read_ifd(exif).order
        below = _entries(exif, order, _pointer(exif, order, read_ifd(exif).entries, EXIF_IFD))
        space = next(
            (struct.unpack_from(order + "H", exif, at)[0] for tag, _, _, at in below if tag == COLOUR_SPACE), 1
        )
        inter = _entries(exif, order, _pointer(exif, order, below, INTEROP_IFD))
        return space != 1 and any(tag == 1 and exif[at : at + 3] == b"R03" for tag, _, _, at in inter)
    except (Unreadable, struct.error):
        return False


def _pointer(exif: bytes, order: str, entries: list[tuple[int, int, int, int]], wanted: int) -> int:
    return next((struct.unpack_from(order + "I", exif, at)[0] for tag, _, _, at in entries if tag == wanted), 0)


def _entries(exif: bytes, order: str, start: int) -> list[tuple[int, int, int, int]]:
    """Tag, type, count and place of the value field of a directory; none at 0."""
    if not 8 <= start <= len(exif) - 2:
        return []
    count = struct.unpack_from(order + "H", exif, start)[0]
    rows = range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12)
    return [(*struct.unpack_from(order + "HHI", exif, row), row + 8) for row in rows]


def with_text(exif: bytes | None, tag: int, words: str) -> bytes:
    """The block with a text in its first directory; a new directory behind it, so that no other offset moves."""
    block = bytearray(exif or b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    ifd = read_ifd(bytes(block))
    text = words.encode("utf-8") + b"\0"
    block += b"\0" * (len(block) % 2)
    place = len(block)
    block += text + b"\0" * (len(text) % 2)
    value = struct.pack(ifd.order + "I", place) if len(text) > 4 else text.ljust(4, b"\0")
    rows = {number: (kind, count, bytes(block[at : at + 4])) for number, kind, count, at in ifd.entries}
    rows[tag] = (2, len(text), value)
    start = len(block)
    block += struct.pack(ifd.order + "H", len(rows))
    for number, (kind, count, where) in sorted(rows.items()):
        block += struct.pack(ifd.order + "HHI", number, kind, count) + where
    struct.pack_into(ifd.order + "I", block, 4, start)
    return bytes(block + bytes(4))
