"""TIFF: read through tifffile once its claims are checked, written by ourselves.

We write because tifffile cannot place an EXIF directory. EXIF is a TIFF structure with offsets from its own
beginning, so the file starts with it, byte for byte, and a new first directory at the end takes over its
entries: makers' notes and all other absolute offsets stay right.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from restormer_cli.images.formats.exif_icc import (
    ORIENTATION,
    SIZE_OF_TYPE,
    cmyk_to_rgb,
    read_ifd,
    sound_exif,
    upright_size,
)
from restormer_cli.images.formats.raster import (
    COPY_AGAIN,
    FLOAT_BITS,
    MAX_METADATA,
    Beside,
    Options,
    Raster,
    Unreadable,
    check_plausible,
    check_size,
    damaged,
    peak,
)
from restormer_cli.images.formats.webp import read_webp
from restormer_cli.images.light import D50_XYZ, D65, SRGB, SRGB_POINTS, to_xyz_d50

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

# How many times larger than its bytes a compression can make a picture, at the very most.
RATIO = {
    1: 1.0,  # none
    2: 214.0,  # CCITT's runs: 12 bits for 2,560 pixels
    3: 65536.0,  # CCITT T.4 and T.6: one bit for a row that is like the one above
    4: 65536.0,
    5: 2731.0,  # LZW: 12-bit codes for strings of up to 4096 bytes
    7: 1536.0,  # JPEG: one bit for each 8 × 8 block
    8: 1032.0,  # deflate
    32946: 1032.0,  # deflate, by its old number
    32773: 64.0,  # PackBits
    50000: 65536.0,  # Zstandard
    34712: float(1 << 20),  # JPEG 2000 and WebP: nothing at all for what is empty
    50001: float(1 << 20),
}
CCITT, JPEG_2000, WEBP = (2, 3, 4), 34712, 50001
COLOURS = {
    0: 1,
    1: 1,
    2: 3,
    3: 1,
    5: 4,
    6: 3,
    8: 3,
    9: 3,
}  # channels by photometric interpretation, without extra samples
WHITE_IS_ZERO, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 0, 3, 5, 6, 8, 9
JPEG = 7
MAX_SEGMENTS = 1 << 20
MAX_TILE = 1 << 26  # samples

# Directory entries that describe the picture, not its bytes: what EXIF calls the 0th IFD.
DESCRIPTIVE = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)
RESOLUTION = (282, 283, 296)  # across, down, unit: carried as `Raster.dpi`
EXIF_IFD, GPS_IFD = 34665, 34853
ICC_PROFILE = 34675

Directory = dict[int, tuple[int, int, bytes]]  # tag -> type, count, values as stored


# --- Reading ------------------------------------------------------------------------------------------------


def decode_tiff(data: bytes, max_pixels: int) -> Raster:
    """The first page of a TIFF: gray, RGB, palette, CMYK or Lab; 1 to 16-bit integers or floats."""
    from tifffile import TiffFile

    with TiffFile(BytesIO(data)) as tiff:
        page, skipped = _main_page(tiff)
        several = skipped > 0 or bool(page._nextifd())
        raster = _decode_page(data, tiff, page, max_pixels, count=1, alone=not several)
        if skipped:
            raster.notes += ("its first page is a thumbnail; the picture behind it is read",)
        elif several:
            raster.notes += ("the file has several pages; only the first is read",)
        return raster


def decode_tiff_pages(data: bytes, max_pixels: int) -> list[Raster]:
    """Every page of a TIFF but for reduced copies of others and masks, all of them at most `max_pixels` together."""
    from tifffile import TiffFile

    rasters: list[Raster] = []
    held = 0
    with TiffFile(BytesIO(data)) as tiff:
        pages, alone = _full_pages(tiff)
        for page in pages:
            raster = _decode_page(data, tiff, page, max_pixels, count=len(pages), alone=alone, following=bool(rasters))
            rasters.append(raster)
            held += sum(map(len, filter(None, (raster.exif, raster.icc, raster.beside.xmp, raster.beside.iptc))))
            if held > MAX_HELD:
                raise Unreadable(f"more than {MAX_HELD:,} bytes of metadata beside its pages; split it first")
            max_pixels -= page.imagewidth * page.imagelength
    return rasters


def _full_pages(tiff: "TiffFile") -> "tuple[list[TiffPage], bool]":
    """The pages that are neither reduced copies of others nor masks, and whether there are no others."""
    from tifffile import TiffPage

    pages, others = [], 0
    for page in tiff.pages:
        if len(pages) == MAX_PAGES:
            raise Unreadable(f"more than {MAX_PAGES:,} pages; split it first")
        if isinstance(page, TiffPage) and not page.subfiletype & 5:
            pages.append(page)
        else:
            others += 1
    return pages, not others


MAX_PAGES = 10_000
MAX_HELD = 16 * MAX_METADATA
"""Bytes beside the pages of a file, which may all name the same ones."""


def _decode_page(
    data: bytes,
    tiff: "TiffFile",
    page: "TiffPage",
    max_pixels: int,
    *,
    count: int,
    alone: bool,
    following: bool = False,
) -> Raster:
    """One page of the `count` that are read. alone: the file has no others; following: it is not the first of them."""
    _check_page(page, len(data), max_pixels)
    if page.compression in (JPEG_2000, WEBP):
        _check_codestreams(page, data)
    samples, bits, notes = _samples(page)
    raster = Raster(samples, bits, lossless=_lossless(page, data))
    profile = page.tags.valueof(ICC_PROFILE)
    raster.icc = bytes(profile) if profile else None
    raster.orientation = _orientation(page)
    raster.dpi = _dpi(page)
    order, big, offset = tiff.byteorder, tiff.is_bigtiff, page.offset
    first_offset = tiff.pages.first.offset
    colours, lab = COLOURS[page.photometric], page.photometric in (CIELAB, ICCLAB) and int(page.photometric)
    if colours == 4:
        alpha, raster.samples = samples[..., 4:], cmyk_to_rgb(samples[..., :4], raster.icc, bits)
        raster.samples, raster.icc = np.concatenate([raster.samples, alpha], axis=2), None
        notes.append("converted from CMYK to RGB")
    if lab:
        raster.samples[..., :3], raster.icc = _lab_to_rgb(samples[..., :3], bits, icc=lab == ICCLAB), None
        notes.append("converted from CIE Lab to RGB")
    if page.extrasamples and raster.samples.shape[2] in (2, 4):
        raster.premultiplied = page.extrasamples[0] == 1

    def carried() -> bytes | None:
        main = {} if following else _read_directory(data, first_offset, order, big)
        main.update(_read_directory(data, offset, order, big))
        raster.beside = _beside(main, order, raster.orientation != 1, notes)
        if 270 in main and not _holds(main[270][2], count, alone):
            del main[270]
            notes.append("its description speaks of all its pages and is not kept")
        return _exif(data, main, order, big, notes, near=0 if following else NEAR)

    raster.exif = sound_exif(carried, notes)
    raster.notes = tuple(notes)
    return raster


def _holds(description: bytes, count: int, alone: bool) -> bool:
    """Whether a description is true of so many pages; alone: these are all that the file has."""
    images = IMAGES.match(description)
    if images or not description.startswith(MANY):
        return images is None or int(images[1]) == count
    return alone and b"FileName=" not in description  # OME's, of several files


def directory_exif(data: bytes, notes: list[str]) -> bytes | None:
    """EXIF of the first directory of anything that is built like a TIFF, cameras' raw files among them."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    start = struct.unpack_from(order + "I", data, 4)[0]
    return _exif(data, _read_directory(data, start, order, False), order, False, notes)


def ends_early(data: bytes) -> bool:
    """Whether a DNG lists strips or tiles of its picture beyond its end, which decoders take for black."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return False

    def numbers(directory: Directory, tag: int) -> np.ndarray:
        kind, _, value = directory.get(tag, (0, 0, b""))
        layout = {3: "u2", 4: "u4", 13: "u4"}.get(kind)
        return np.frombuffer(value, order + layout).astype(np.int64) if layout else np.empty(0, np.int64)

    main = _read_directory(data, struct.unpack_from(order + "I", data, 4)[0], order, False)
    places = [int(at) for at in numbers(main, SUB_IFDS)[:MAX_THUMBNAILS]]
    if any(at + 2 > len(data) for at in places):
        return True
    for directory in (main, *(_read_directory(data, at, order, False) for at in places)):
        if numbers(directory, SUBFILE_TYPE).any():  # a preview
            continue
        rows = [(numbers(directory, offsets), numbers(directory, sizes)) for offsets, sizes in SEGMENTS]
        counts = [min(len(offsets), len(sizes)) for offsets, sizes in rows]
        ends = [
            offsets[:count] + sizes[:count] > len(data) for (offsets, sizes), count in zip(rows, counts, strict=True)
        ]
        if not any(counts) or any(end.any() for end in ends):
            return True
    return False


SUBFILE_TYPE, SUB_IFDS = 254, 330
SEGMENTS = ((273, 279), (324, 325))
"""Offsets and lengths of strips, and of tiles."""


def _beside(main: Directory, order: str, turned: bool, notes: list[str]) -> Beside:
    geo = tuple(
        (tag, kind, count, _little(kind, value, order)) for tag, (kind, count, value) in main.items() if tag in GEO
    )
    if turned and geo:
        notes.append("its georeference is not kept, since the picture is turned")
        geo = ()
    xmp, iptc = (main[tag][2] if tag in main else None for tag in (XMP, IPTC))
    return Beside(xmp=xmp, iptc=iptc, tags=geo)


def _main_page(tiff: "TiffFile") -> "tuple[TiffPage, int]":
    """The first page that is no reduced copy of another, and how many stand before it."""
    from tifffile import TiffPage

    first = tiff.pages.first
    if first.subfiletype & 1 and SUB_IFDS not in first.tags:
        for index in range(1, MAX_THUMBNAILS):
            try:
                page = tiff.pages[index]
            except IndexError:
                break
            if isinstance(page, TiffPage) and not page.subfiletype & 1:
                return page, index
    return first, 0


MAX_THUMBNAILS = 8


def _check_page(page: "TiffPage", size: int, max_pixels: int) -> None:
    """Everything that a hostile directory could claim, before tifffile acts on it."""
    check_size(page.imagewidth, page.imagelength, max_pixels)
    if 50706 in page.tags or (SUB_IFDS in page.tags and page.subfiletype & 1):
        raise Unreadable("a camera's raw file; develop it to a TIFF or PNG first")
    if page.compression not in RATIO:
        raise Unreadable(f"TIFF compression {page.compression} is not supported; save it as LZW or deflate")
    colours = COLOURS.get(page.photometric)
    if colours is None or (page.photometric == YCBCR and page.compression not in (JPEG, JPEG_2000, WEBP)):
        raise Unreadable(f"TIFF colour model {page.photometric} is not supported; convert it to RGB first")
    if page.imagedepth != 1 or not colours <= page.samplesperpixel <= colours + 64:
        raise damaged(f"it claims {page.samplesperpixel} channels and a depth of {page.imagedepth}")
    if page.dtype is None or page.dtype.kind not in "buf" or not isinstance(page.bitspersample, int):
        raise Unreadable("samples of this kind are not supported; convert it to 16 bits or to floats first")
    if page.dtype.kind == "u" and page.bitspersample > 16:
        raise Unreadable(f"{page.bitspersample}-bit integers; only up to 16 bits are read; convert it first")
    if page.compression == JPEG and page.bitspersample != 8:
        raise Unreadable("JPEG inside TIFF is read at 8 bits only; convert it first")
    if page.photometric in (CIELAB, ICCLAB) and page.bitspersample not in (8, 16):
        raise Unreadable(f"CIE Lab of {page.bitspersample} bits is not supported; convert it to RGB first")
    if page.compression in CCITT and (page.bitspersample, page.samplesperpixel) != (1, 1):
        raise damaged(f"it claims {page.samplesperpixel} channels of {page.bitspersample} bits as a fax has them")
    _check_segments(page, size)


def _check_segments(page: "TiffPage", size: int) -> None:
    """There must be as many strips or tiles as the size asks for, inside the file, none of them a bomb."""
    across = down = 1
    if page.is_tiled:
        if page.tilewidth < 1 or page.tilelength < 1 or page.tiledepth != 1:
            raise damaged("its tiles have no size")
        across, down = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
        if page.tilewidth * page.tilelength * page.samplesperpixel > MAX_TILE:
            raise damaged(f"it claims tiles of {page.tilewidth} × {page.tilelength} pixels")
    elif page.rowsperstrip >= 1:
        down = -(-page.imagelength // page.rowsperstrip)
    count = across * down * (page.samplesperpixel if page.planarconfig == 2 else 1)
    offsets, sizes = page.dataoffsets, page.databytecounts
    if count > MAX_SEGMENTS or len(offsets) < count or len(sizes) < count:
        raise damaged(f"it needs {count:,} strips or tiles and lists {min(len(offsets), len(sizes)):,}")
    places = zip(offsets, sizes, strict=False)
    if any(length < 1 or offset < 8 or offset + length > size for offset, length in places):
        raise Unreadable(f"truncated: its strips or tiles lie outside the file; {COPY_AGAIN}")
    decoded = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample // 8
    check_plausible(sum(sizes), decoded, RATIO[page.compression], "strips or tiles")


def _check_codestreams(page: "TiffPage", data: bytes) -> None:
    """JPEG 2000 and WebP have headers of their own, which decoders believe: they must not exceed their segment."""
    width, height = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.imagelength)
    for offset, length in zip(page.dataoffsets, page.databytecounts, strict=False):
        segment = data[offset : offset + length]
        if page.compression == WEBP:
            webp = read_webp(segment)
            across, down = webp.width, webp.height
        else:
            at = segment.find(J2K, 0, J2K_HEAD)
            if at < 0 or at + 24 > len(segment):
                raise damaged("its JPEG 2000 has no beginning")
            right, bottom, left, top = struct.unpack_from(">4I", segment, at + 8)
            across, down = right - left, bottom - top
        if not (0 < across <= width and 0 < down <= height):
            raise damaged(f"a strip or tile claims {across} × {down} pixels within {width} × {height}")


J2K, J2K_HEAD = b"\xff\x4f\xff\x51", 1024
"""Beginning of a JPEG 2000 codestream, and the bytes of boxes that may stand before it."""


def _lossless(page: "TiffPage", data: bytes) -> bool:
    """Whether the file keeps every sample, by its compression and, where that has both kinds, its first segment."""
    segment = data[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]]
    if page.compression == WEBP:
        return read_webp(segment).lossless
    if page.compression == JPEG_2000:
        style = segment.find(b"\xff\x52", 0, J2K_HEAD)
        return style >= 0 and segment[style + 13 : style + 14] == b"\1"  # the reversible wavelet
    return page.compression != JPEG


def _lab_to_rgb(lab: np.ndarray, bits: int, *, icc: bool) -> np.ndarray:
    """CIE Lab under D50 as TIFF stores it, uint8 or uint16 (h, w, 3), -> sRGB of the same type.

    a* and b* are signed, or, as ICC counts, offset by 128; 16 bits of these have 256 steps for each of 8, and ICC's
    L* ends at 0xFF00 (TIFF 6.0, section 23; Adobe's TIFF Technical Note 4). What sRGB does not have is clipped.
    """
    step = 256 if bits == 16 else 1
    signed = lab[..., 1:].view(np.int16 if bits == 16 else np.int8)
    ab = lab[..., 1:] / np.float32(step) - 128 if icc else signed / np.float32(step)
    light = lab[..., :1] * np.float32(100 / (0xFF00 if icc and bits == 16 else peak(bits)))
    middle = (light[..., 0] + 16) / 116
    f = np.stack([middle + ab[..., 0] / 500, middle, middle - ab[..., 1] / 200], axis=2)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50_XYZ
    linear = np.clip(xyz @ np.linalg.inv(to_xyz_d50(SRGB_POINTS, D65)).T, 0, 1)
    return np.rint(SRGB.signal(linear) * peak(bits)).astype(lab.dtype)


def _samples(page: "TiffPage") -> tuple[np.ndarray, int, list[str]]:
    """Samples as gray, RGB or CMYK, with alpha behind where there is one: (h, w, c), bits, notes."""
    notes: list[str] = []
    planes, _, height, width, channels = page.shaped
    stored = page.asarray(maxworkers=1).reshape(planes, height, width, channels)
    stored = stored[0] if planes == 1 else np.moveaxis(stored[..., 0], 0, -1)
    bits = page.bitspersample
    if stored.dtype.kind == "f":
        if bits > FLOAT_BITS:
            notes.append(f"{bits}-bit floats are read as 32-bit floats")
        stored, bits = stored.astype(np.float32), FLOAT_BITS
    else:
        stored = stored.astype(np.uint16 if bits > 8 else np.uint8)
    colours = COLOURS[page.photometric]
    alpha = _alpha(page, stored, colours, notes)
    colour = stored[..., :colours]
    if page.photometric == WHITE_IS_ZERO:
        colour = peak(bits) - colour
    elif page.photometric == PALETTE:
        if stored.shape[2] > 1:
            raise Unreadable("a palette with extra channels is not supported; convert it to RGB first")
        colour, bits = _through_palette(page, colour[..., 0])
    if alpha.shape[2]:
        colour = np.concatenate([colour, alpha.astype(colour.dtype, copy=False)], axis=2)
    return colour, bits, notes


def _alpha(page: "TiffPage", stored: np.ndarray, colours: int, notes: list[str]) -> np.ndarray:
    """The alpha channel, (h, w, 1), or no channel, (h, w, 0)."""
    extra = stored.shape[2] - colours
    has_alpha = extra > 0 and bool(page.extrasamples) and page.extrasamples[0] in (1, 2)
    if extra > has_alpha:
        notes.append(f"{extra - has_alpha} extra channel(s) without a meaning are not kept")
    return stored[..., colours : colours + has_alpha]


def _through_palette(page: "TiffPage", index: np.ndarray) -> tuple[np.ndarray, int]:
    """Look the colours up. Palettes are 16-bit, but nearly all hold 8-bit colours, times 257 or times 256."""
    palette = page.colormap
    if palette is None or palette.ndim != 2 or len(palette) != 3 or palette.shape[1] <= index.max(initial=0):
        raise damaged("its palette is missing or too short")
    high = palette >> 8
    if np.array_equal(high * 257, palette) or np.array_equal(high * 256, palette):
        return high.astype(np.uint8).T[index], 8
    return palette.astype(np.uint16).T[index], 16


def _orientation(page: "TiffPage") -> int:
    value = page.tags.valueof(ORIENTATION, 1)
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1


def _dpi(page: "TiffPage") -> tuple[float, float] | None:
    across, down, unit = (page.tags.valueof(tag) for tag in RESOLUTION)
    per_inch = {None: 1.0, 2: 1.0, 3: 2.54}.get(unit)
    try:
        return (across[0] / across[1] * per_inch, down[0] / down[1] * per_inch)
    except (TypeError, IndexError, ZeroDivisionError):
        return None  # absent, or nonsense


MANY = (b"ImageJ=", b"<OME", b'{"shape"', b"<?xml")
IMAGES = re.compile(rb"ImageJ=[^\0]*?\nimages=(\d+)")
GEO = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
XMP, IPTC, MAKER_NOTE, INTEROP_IFD = 700, 33723, 37500, 40965
SELF_CONTAINED = (b"Nikon\0\2", b"FUJIFILM", b"Apple iOS", b"OLYMPUS\0II", b"OLYMPUS\0MM", b"OM SYSTEM", b"AOC\0")
"""Makers' notes that count from their own beginning; all others count from the file's."""
NEAR = 60_000  # bytes; an EXIF block longer than 64 kB fits into no JPEG


def _read_directory(data: bytes, at: int, order: str, big: bool, places: dict[int, int] | None = None) -> Directory:
    """A directory of a TIFF or BigTIFF, of at most MAX_METADATA bytes; `places` takes where its values lie.

    Entries that point outside the file are left out, and of a tag that stands there twice the second.
    """
    head, entry, field = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    width, start = struct.calcsize("<" + entry) + field, at + struct.calcsize("<" + head)
    count, left = struct.unpack_from(order + head, data, at)[0], MAX_METADATA
    result: Directory = {}
    for row in range(start, min(start + width * count, len(data) - width + 1), width):
        tag, kind, values = struct.unpack_from(order + entry, data, row)
        size, place = SIZE_OF_TYPE.get(kind, 0) * values, row + width - field
        if size > field:
            place = struct.unpack_from(order + ("Q" if big else "I"), data, place)[0]
        if tag not in result and 0 < size <= left and place + size <= len(data):
            left -= size
            result[tag] = (kind, values, data[place : place + size])
            if places is not None:
                places[tag] = place
    return result


@dataclass
class _Descriptions:
    """What a TIFF structure says of a picture: tags of its first directory, of EXIF, interoperability and GPS."""

    first: Directory
    exif: Directory
    interop: Directory
    gps: Directory
    note_at: int
    """Where the maker's note lies, which is among `exif`."""


def _descriptions(data: bytes, main: Directory, order: str, big: bool) -> _Descriptions:
    def below(parent: Directory, tag: int, places: dict[int, int] | None = None) -> Directory:
        kind, _, value = parent.get(tag, (0, 0, b""))
        layout = {4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
        at = struct.unpack(order + layout, value)[0] if layout and len(value) == struct.calcsize("<" + layout) else 0
        return _read_directory(data, at, order, big, places) if 8 <= at < len(data) - 8 else {}

    places: dict[int, int] = {}
    exif, gps = below(main, EXIF_IFD, places), below(main, GPS_IFD)
    interop = below(exif, INTEROP_IFD)
    exif.pop(INTEROP_IFD, None)
    first = {tag: main[tag] for tag in DESCRIPTIVE if tag in main}
    return _Descriptions(first, exif, interop, gps, places.get(MAKER_NOTE, 0))


def _exif(data: bytes, main: Directory, order: str, big: bool, notes: list[str], *, near: int = NEAR) -> bytes | None:
    """Descriptive tags of a directory, with those of EXIF, interoperability and GPS, as an EXIF block.

    Values are copied as they are. A maker's note stays at its offset, up to `near`, since it may point into itself by
    that, or goes with a note.
    """
    said = _descriptions(data, main, order, big)
    if not (said.first or said.exif or said.gps):
        return None
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    note = said.exif.pop(MAKER_NOTE, None)
    fixed: Entries = {}
    if note is not None:
        free = note[2].startswith(SELF_CONTAINED)
        if free or 8 <= said.note_at <= near:
            out += bytes(0 if free else said.note_at - len(out))
            fixed[MAKER_NOTE] = (note[0], note[1], struct.pack(order + "I", len(out)))
            out += note[2]
            if len(note[2]) <= 4:
                fixed[MAKER_NOTE] = (note[0], note[1], note[2].ljust(4, b"\0"))
        else:
            notes.append("its maker's note cannot be moved and is not kept")
    start = _append_directory(out, _append_descriptions(out, said, order, order, fixed), order)
    struct.pack_into(order + "I", out, 4, start)
    return bytes(out)


def _append_descriptions(out: bytearray, said: _Descriptions, stored: str, order: str, fixed: "Entries") -> "Entries":
    """Append all of it, `stored` in one byte order, in another; the entries of the first directory.

    fixed: entries of EXIF's directory that are there already.
    """

    def rows(directory: Directory) -> Entries:
        swap = "<" if stored == order else ">"
        return {
            tag: (kind, count, _inline_or_appended(out, _little(kind, value, swap), order))
            for tag, (kind, count, value) in directory.items()
        }

    def put(entries: Entries) -> tuple[int, int, bytes]:
        """Append the directory; what its parent says of it."""
        return (4, 1, struct.pack(order + "I", _append_directory(out, entries, order)))

    fixed, pointers = dict(fixed), {}
    if said.interop:
        fixed[INTEROP_IFD] = put(rows(said.interop))
    if said.exif or fixed:
        pointers[EXIF_IFD] = put({**rows(said.exif), **fixed})
    if said.gps:
        pointers[GPS_IFD] = put(rows(said.gps))
    return {**rows(said.first), **pointers}


def _little(kind: int, value: bytes, order: str) -> bytes:
    """Values in little-endian order, from `order`, or the other way round."""
    size = {5: 4, 10: 4}.get(kind, SIZE_OF_TYPE[kind])
    if order == "<" or size == 1:
        return value
    return np.frombuffer(value, f"u{size}").byteswap().tobytes()


# --- Writing ------------------------------------------------------------------------------------------------

STRIP_BYTES = 1 << 20
TYPES = {"H": 3, "I": 4, "B": 7}  # SHORT, LONG, UNDEFINED


ImageTags = dict[int, tuple[str, tuple[int, ...] | bytes]]
"""Tag -> struct's code of its values and these; "r" and "i" are fractions without and with a sign, "s" is text."""


def encode_tiff(raster: Raster, options: Options) -> bytes:
    """A TIFF of deflated strips with a predictor, the EXIF in front and the directory behind."""
    return write_tiff(raster, {})


def write_tiff(raster: Raster, more: ImageTags, *, deflate: bool = True) -> bytes:
    """`encode_tiff` with `more` tags, which replace its own; deflate: whether to compress."""
    exif, entries = _leading_exif(raster)
    order = "<" if exif[:2] == b"II" else ">"
    out = bytearray(exif)
    struct.pack_into(order + "I", out, 4, _append_page(out, raster, entries, order, more, deflate=deflate))
    return bytes(out)


def encode_pages(rasters: list[Raster]) -> bytes:
    """A TIFF of several pages, each with what is said beside it."""
    first, *others = rasters
    exif, entries = _leading_exif(first)
    order = "<" if exif[:2] == b"II" else ">"
    out = bytearray(exif)
    place = _append_page(out, first, entries, order, {})
    struct.pack_into(order + "I", out, 4, place)
    for raster in others:
        (count,) = struct.unpack_from(order + "H", out, place)
        following = _append_page(out, raster, _following_exif(out, raster, order), order, {})
        struct.pack_into(order + "I", out, place + 2 + 12 * count, following)
        place = following
    return bytes(out)


def _following_exif(out: bytearray, raster: Raster, order: str) -> "Entries":
    """Append the EXIF of a page that is not the first; the entries of its directory."""
    if raster.exif is None:
        return {}
    stored = "<" if raster.exif[:2] == b"II" else ">"
    (start,) = struct.unpack_from(stored + "I", raster.exif, 4)
    main = _read_directory(raster.exif, start, stored, False)
    return _append_descriptions(out, _descriptions(raster.exif, main, stored, False), stored, order, {})


def _append_page(
    out: bytearray, raster: Raster, entries: "Entries", order: str, more: ImageTags, *, deflate: bool = True
) -> int:
    """Append a page, its directory with these entries; where that begins."""
    offsets, sizes, rows = _write_strips(out, raster, order, deflate=deflate)

    def add(tag: int, code: str, *values: int) -> None:
        packed = struct.pack(f"{order}{len(values)}{code}", *values)
        entries[tag] = (TYPES[code], len(values), _inline_or_appended(out, packed, order))

    height, width, channels = raster.samples.shape
    add(256, "I", width)
    add(257, "I", height)
    add(258, "H", *[raster.bits] * channels)
    add(259, "H", 8 if deflate else 1)  # deflate
    add(262, "H", 2 if channels > 2 else 1)  # RGB or gray
    add(273, "I", *offsets)
    add(277, "H", channels)
    add(278, "I", rows)
    add(279, "I", *sizes)
    add(284, "H", 1)  # channels side by side
    if deflate:
        add(317, "H", 3 if raster.bits == FLOAT_BITS else 2)
    add(339, "H", *[3 if raster.bits == FLOAT_BITS else 1] * channels)
    if channels in (2, 4):
        add(338, "H", 1 if raster.premultiplied else 2)
    if raster.dpi:
        for tag, value in zip(RESOLUTION, raster.dpi, strict=False):
            packed = struct.pack(order + "II", round(value * 1000), 1000)
            entries[tag] = (5, 1, _inline_or_appended(out, packed, order))
        add(RESOLUTION[2], "H", 2)  # inch
    for tag, kind, count, value in raster.beside.tags:
        entries[tag] = (kind, count, _inline_or_appended(out, _little(kind, value, order), order))
    for tag, value in ((XMP, raster.beside.xmp), (IPTC, raster.beside.iptc)):
        if value:
            entries[tag] = (1 if tag == XMP else 7, len(value), _inline_or_appended(out, value, order))
    if raster.icc:
        entries[ICC_PROFILE] = (7, len(raster.icc), _inline_or_appended(out, raster.icc, order))
    for tag, (code, values) in more.items():
        if isinstance(values, bytes):
            entries[tag] = (2, len(values), _inline_or_appended(out, values, order))
            continue
        kind, size = {"r": (5, 2), "i": (10, 2), "B": (1, 1)}.get(code, (TYPES.get(code), 1))
        assert kind is not None
        body = struct.pack(f"{order}{len(values)}{ {'r': 'I'}.get(code, code) }", *values)
        entries[tag] = (kind, len(values) // size, _inline_or_appended(out, body, order))
    return _append_directory(out, entries, order)


Entries = dict[int, tuple[int, int, bytes]]  # tag -> type, count, the four bytes of value or offset


def _leading_exif(raster: Raster) -> tuple[bytes, Entries]:
    """The bytes that the file begins with, and the entries of theirs that the new directory takes over."""
    if raster.exif is None:
        return b"II*\x00\x00\x00\x00\x00", {}
    wanted = {*DESCRIPTIVE, EXIF_IFD, GPS_IFD, *(() if raster.dpi else RESOLUTION)}
    exif, entries = raster.exif, read_ifd(raster.exif).entries
    return exif, {tag: (kind, count, exif[at : at + 4]) for tag, kind, count, at in entries if tag in wanted}


def _write_strips(out: bytearray, raster: Raster, order: str, *, deflate: bool) -> tuple[list[int], list[int], int]:
    """Append the compressed rows: offsets, sizes, rows per strip."""
    height, width, channels = raster.samples.shape
    rows = max(1, min(height, STRIP_BYTES // (width * channels * raster.samples.itemsize)))
    offsets, sizes = [], []
    for top in range(0, height, rows):
        strip = raster.samples[top : top + rows]
        if not deflate:
            body = strip.astype(f"{order}u{strip.itemsize}").tobytes()
        else:
            body = _float_differences(strip) if raster.bits == FLOAT_BITS else _differences(strip, order)
            body = zlib.compress(body, 4)
        offsets.append(_append(out, body))
        sizes.append(len(body))
    return offsets, sizes, rows


def _differences(strip: np.ndarray, order: str) -> bytes:
    """Predictor 2: every sample minus its left neighbour, modulo its range."""
    result = strip.copy()
    result[:, 1:] -= strip[:, :-1]
    return result.astype(f"{order}u{strip.itemsize}").tobytes()


def _float_differences(strip: np.ndarray) -> bytes:
    """Predictor 3 (Adobe's TIFF technical note 3): a row's bytes sorted by significance, then differences."""
    rows, width, channels = strip.shape
    planes = strip.astype(">f4").view(np.uint8).reshape(rows, width * channels, 4).swapaxes(1, 2)
    result = planes.reshape(rows, -1).copy()
    result[:, channels:] -= planes.reshape(rows, -1)[:, :-channels]
    return result.tobytes()


def _append(out: bytearray, data: bytes) -> int:
    """Append at an even offset, as TIFF asks, and return it."""
    out += b"\0" * (len(out) % 2)
    offset = len(out)
    out += data
    if len(out) >= 2**32:
        raise Unreadable("more than the 4 GB that a TIFF can hold: write a PNG instead")
    return offset


def _inline_or_appended(out: bytearray, packed: bytes, order: str) -> bytes:
    """The value field of an entry: the value itself when it fits in four bytes, else where it is."""
    return packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "I", _append(out, packed))


def _append_directory(out: bytearray, entries: Entries, order: str) -> int:
    """Append a directory, the last of its chain; where it begins."""
    packed = struct.pack(order + "H", len(entries))
    for tag, (kind, count, value) in sorted(entries.items()):
        packed += struct.pack(order + "HHI", tag, kind, count) + value
    return _append(out, packed + b"\0\0\0\0")


def tiff_size(file: BinaryIO) -> tuple[int, int]:
    from tifffile import TiffFile

    with TiffFile(file) as tiff:
        page, _ = _main_page(tiff)
        tag = page.tags.get(ORIENTATION)
        return upright_size(page.imagelength, page.imagewidth, tag.value if tag is not None else 1)


def tiff_pages(file: BinaryIO) -> list[tuple[int, int]]:
    """(height, width) of all pages that `decode_tiff_pages` reads, upright."""
    from tifffile import TiffFile

    with TiffFile(file) as tiff:
        pages, _ = _full_pages(tiff)
        return [upright_size(page.imagelength, page.imagewidth, _orientation(page)) for page in pages]
