"""A picture file <-> float32 pixels in [0, 1], and everything that must be put back.

    picture = read_picture(path)                       # or decode_picture(data, "standard input")
    losses = check_writable(out, picture)              # before the work; raises, or says what is lost
    write_picture(out, restore(picture.pixels), like=picture)      # or encode_picture(…, format="png")

Bit depth, transparency, EXIF and ICC come out as they went in. Unchanged pixels come out exactly the same in
lossless formats. Every file is taken as hostile: what cannot be read is one `UserError` of one line.

Below are `listing` (finding pictures) and `formats/`: `table` (what each format can hold), `sniff` (magic numbers), one
file for each format (its header, read before any decoder runs, and bytes <-> samples), `exif_icc` (metadata) and
`raster` (what they exchange).
"""

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from restormer_cli.errors import Failed, UserError, one_line
from restormer_cli.files import write_atomically
from restormer_cli.images.colour import (
    TableColour,
    Working,
    code_of,
    float_scale,
    is_srgb,
    make_icc,
    read_colour,
    working_space,
)
from restormer_cli.images.formats.exif_icc import icc_space, turn, upright, upright_size
from restormer_cli.images.formats.heic import heic_size
from restormer_cli.images.formats.jpeg_xl import read_jxl
from restormer_cli.images.formats.pillow import pillow_size, whole_jpeg
from restormer_cli.images.formats.png import PNG_MAGIC, png_orientation
from restormer_cli.images.formats.raster import (
    FLOAT_BITS,
    SUBSAMPLING,
    TRUNCATED,
    Beside,
    Camera,
    Options,
    Raster,
    Unreadable,
    peak,
    sample_type,
    third_party,
    upright_xmp,
)
from restormer_cli.images.formats.raw import is_raw, raw_size
from restormer_cli.images.formats.sniff import sniff
from restormer_cli.images.formats.table import CODECS, READABLE, WRITABLE, Codec, missing_extra
from restormer_cli.images.formats.tiff import decode_tiff_pages, encode_pages, tiff_pages, tiff_size
from restormer_cli.images.light import HDR

MAX_PIXELS = 512_000_000
"""The largest picture that is read unless told otherwise: 512 megapixels, 6 GB as float32 RGB."""


BEYOND = 2.0
"""A float picture whose values exceed this counts otherwise than from 0 to 1, or has lights far beyond white."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as it was read: what a network sees, and what must be put back.

    pixels: float32 (h, w, 1) gray or (h, w, 3) RGB in [0, 1], upright; a float file may leave the range.
        Where alpha is 0 the colour is continued from the visible surroundings, so that nothing bleeds.
    alpha: (h, w, 1) in the file's own type and range, untouched; None where there is none.
    hidden: (k, c) the file's own colours of the k pixels with alpha 0, in reading order; None without any.
    bits: per sample as stored, 8 to 16 or fewer; 32 for floats.
    icc, exif: as in the file, but the orientation is reset to 1 and the thumbnail unlinked.
    dpi: pixels per inch, horizontal and vertical, where stated.
    colour: PNG's colour chunks, verbatim.
    lossless: whether the file kept every sample exactly.
    premultiplied: whether the colour is multiplied by alpha, as TIFF allows.
    format: a key of `codecs.CODECS`. path: where it came from; for `decode_picture` the name that was given.
    notes: what the reader should know, each a short sentence without the file's name.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    bits: int
    icc: bytes | None
    exif: bytes | None
    format: str
    path: Path
    notes: tuple[str, ...] = ()
    hidden: np.ndarray | None = field(default=None, repr=False)
    dpi: tuple[float, float] | None = None
    colour: tuple[tuple[bytes, bytes], ...] = ()
    lossless: bool = True
    premultiplied: bool = False
    beside: Beside = field(default_factory=Beside, repr=False)
    camera: Camera | None = field(default=None, repr=False)

    @property
    def depth(self) -> int:
        """8, 16 or 32 (float): the sample size that holds `bits`."""
        return 8 if self.bits <= 8 else 16 if self.bits <= 16 else FLOAT_BITS

    @cached_property
    def working(self) -> Working | None:
        """How these pixels are shown to a network that was trained on sRGB; None: as they are."""
        floats = self.depth == FLOAT_BITS or self.camera is not None
        return working_space(read_colour(self.icc, self.colour, self.exif), self.pixels, floats=floats)

    @property
    def shown(self) -> np.ndarray:
        """The pixels as a network is to see them: float32 (h, w, 1 or 3), sRGB."""
        return self.pixels if self.working is None else self.working.show(self.pixels)

    @property
    def opaque(self) -> bool:
        """Whether nothing is lost without `alpha`."""
        return self.alpha is None or bool((self.alpha == peak(self.bits)).all())


# --- Reading ------------------------------------------------------------------------------------------------


def read_picture(path: str | Path, *, max_pixels: int = MAX_PIXELS, salvage: bool = False) -> Picture:
    """Read a picture file, whatever its extension says; the first frame or page.

    salvage: of a JPEG that ends too early take what is there, with a note.

    Raises UserError, one line, for anything that is not a sound picture of at most `max_pixels` pixels.
    """
    path = Path(path)
    return decode_picture(_read_bytes(path, _max_bytes(max_pixels)), path, max_pixels=max_pixels, salvage=salvage)


def read_pages(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> list[Picture]:
    """The pages of a TIFF, `max_pixels` for all of them; none of a file of another kind. Raises as `read_picture`."""
    path = Path(path)
    return decode_pages(_read_bytes(path, _max_bytes(max_pixels)), path, max_pixels=max_pixels)


def write_pages(path: Path, pages: list[tuple[np.ndarray, Picture]], *, new: bool = False) -> None:
    """`write_picture` for a TIFF of several pages: each restored, and the picture that it was."""
    for pixels, like in pages:
        if not np.isfinite(pixels).all():
            raise UserError(f"{like.path}: the result is not finite (NaN); use --precision fp32, or other weights")
    try:
        data = encode_pages([_raster(pixels, like, CODECS["tif"]) for pixels, like in pages])
    except Unreadable as reason:
        raise Failed(f"{one_line(str(path))}: cannot be encoded as TIF: {reason}") from reason
    write_atomically(Path(os.path.realpath(path)), lambda file: file.write(data), new=new)


def decode_picture(data: bytes, name: str | Path, *, max_pixels: int = MAX_PIXELS, salvage: bool = False) -> Picture:
    """`read_picture` for bytes at hand; `name` is what errors call them, such as "standard input".

    `salvage`: of a JPEG that ends too early, what is there of it.
    """
    path = Path(name)
    try:
        return _decode(data, path, max_pixels)
    except UserError as error:
        jpeg = data.startswith(b"\xff\xd8\xff")
        if jpeg and not salvage and str(error).endswith(TRUNCATED):
            raise UserError(f"{error}, or take what is there of it: --salvage") from None
        if not (jpeg and salvage):
            raise
    picture = _decode(whole_jpeg(data), path, max_pixels)
    return replace(picture, notes=(*picture.notes, "it ends too early: what is missing is gray or a repetition"))


def decode_pages(data: bytes, name: str | Path, *, max_pixels: int = MAX_PIXELS) -> list[Picture]:
    """`read_pages` for bytes at hand; `name` as of `decode_picture`."""
    path = Path(name)
    with _about(path):
        if is_raw(data) or sniff(data) != "tif":
            return []
        if len(data) > _max_bytes(max_pixels):
            raise Unreadable(TOO_LONG.format(len(data)))
        with third_party():
            rasters = decode_tiff_pages(data, max_pixels)
        for raster in rasters[:1]:
            raster.notes += _misnamed(path, "tif")
        return [_picture(raster, "tif", path) for raster in rasters]


TOO_LONG = "{:,} bytes are more than any picture within the limit needs; raise the limit of pixels"


def _max_bytes(max_pixels: int) -> int:
    """No honest file of so many pixels is longer: four floats each, and metadata."""
    return 16 * max_pixels + (64 << 20)


def _read_bytes(path: Path, limit: int) -> bytes:
    with _about(path):
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                raise Unreadable("is a folder; name a picture in it")
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable('is not a regular file; pipe it in and use "-" instead')
            if status.st_size > limit:
                raise Unreadable(TOO_LONG.format(status.st_size))
            with path.open("rb") as file:
                # Not the limit: `read` reserves what it is asked for, which a small machine may not grant.
                return file.read(status.st_size + 1)
        except FileNotFoundError:
            raise Unreadable("no such file; check the path") from None
        except PermissionError:
            raise Unreadable("permission denied; make the file readable for you") from None
        except Unreadable:
            raise
        except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
            raise Unreadable(f"cannot be read ({one_line(str(error))}); check the path and the disk") from error


def _decode(data: bytes, path: Path, max_pixels: int) -> Picture:
    with _about(path):
        form = "dng" if is_raw(data) else sniff(data)
        if len(data) > _max_bytes(max_pixels):
            raise Unreadable(TOO_LONG.format(len(data)))
        with third_party():
            raster = CODECS[form].decode(data, max_pixels)
        raster.notes += _misnamed(path, form)
        return _picture(raster, form, path)


def _misnamed(path: Path, form: str) -> tuple[str, ...]:
    """A note where the extension says another format."""
    named = READABLE.get(path.suffix.lower(), form)
    return () if named == form else (f"it is a {form.upper()} in spite of its name",)


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Put the file's name in front of what is wrong with it, all on one line."""
    name = one_line(str(path))
    try:
        yield
    except Unreadable as reason:
        raise UserError(f"{name}: {reason}") from reason
    except MemoryError as error:
        raise UserError(f"{name}: not enough memory to read it; free some or make it smaller") from error


def _picture(raster: Raster, form: str, path: Path) -> Picture:
    notes = list(raster.notes)
    orientation, exif = raster.orientation or 1, raster.exif
    if exif:
        try:
            wanted, exif = upright(exif)
            orientation = raster.orientation or wanted
        except Unreadable as reason:
            exif = None
            notes.append(str(reason))
    icc = raster.icc
    if icc and icc_space(icc) is None:
        icc = None
        notes.append("its colour profile is damaged and not kept")
    samples = turn(raster.samples, orientation)
    if samples.dtype.kind == "f" and (broken := samples.size - np.count_nonzero(np.isfinite(samples))):
        raise Unreadable(f"{broken:,} of its samples are no numbers (NaN or infinite); replace them first")
    colours = 3 if samples.shape[2] >= 3 else 1
    if raster.bits == FLOAT_BITS and (top := float(samples[..., :colours].max())) > BEYOND:
        white = float_scale(samples[..., :colours])
        if white == 1:
            notes.append(f"its values reach {top:,.4g} where white is 1")
        else:
            notes.append(f"its values reach {top:,.4g}: {white:,.10g} is taken for white")
    alpha = samples[..., colours:].copy() if samples.shape[2] > colours else None
    pixels, hidden = _pixels(samples[..., :colours], alpha, raster.bits)
    dpi = (raster.dpi[1], raster.dpi[0]) if raster.dpi and orientation >= 5 else raster.dpi
    return Picture(
        pixels=pixels,
        alpha=alpha,
        bits=raster.bits,
        icc=icc,
        exif=exif,
        format=form,
        path=path,
        notes=tuple(notes),
        hidden=hidden,
        dpi=dpi,
        colour=raster.colour,
        lossless=raster.lossless,
        premultiplied=raster.premultiplied and alpha is not None,
        beside=replace(raster.beside, xmp=raster.beside.xmp and upright_xmp(raster.beside.xmp)),
        camera=raster.camera,
    )


def _pixels(samples: np.ndarray, alpha: np.ndarray | None, bits: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples -> (float32 pixels with the invisible ones filled in, the invisible ones' own samples)."""
    pixels = samples.astype(np.float32, order="C")
    if samples.dtype.kind != "f":
        pixels /= peak(bits)
    if alpha is None:
        return pixels, None
    invisible = alpha[..., 0] == 0
    if not invisible.any():
        return pixels, None
    return fill(pixels, invisible), samples[invisible]


def fill(pixels: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Continue a picture smoothly into its holes: (h, w, c) and where the holes are, (h, w) -> (h, w, c).

    A hole takes the mean of the known pixels in the smallest 2ⁿ × 2ⁿ square around it that has any.
    Without a known pixel the picture stays as it is.
    """
    if not holes.any() or holes.all():
        return pixels
    height, width = holes.shape
    even = ((0, height % 2), (0, width % 2))
    weight = np.pad(~holes, even).astype(np.float32)[..., None]
    colour = np.pad(pixels, (*even, (0, 0))) * weight
    known = _sum_squares(weight)
    coarse = fill(_sum_squares(colour) / np.maximum(known, 1), known[..., 0] == 0)
    finer = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.where(holes[..., None], finer, pixels)


def _sum_squares(array: np.ndarray) -> np.ndarray:
    """Sum over 2 × 2 squares: (2h, 2w, c) -> (h, w, c)."""
    return array[0::2, 0::2] + array[1::2, 0::2] + array[0::2, 1::2] + array[1::2, 1::2]


# --- Writing ------------------------------------------------------------------------------------------------


def format_of(path: str | Path) -> str:
    """The format that a path's extension asks for. Raises UserError for an extension that is not writable."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        problem = f'cannot write "{suffix}"' if suffix else "there is no extension to choose a format by"
        raise UserError(f"{one_line(str(path))}: {problem}; use one of {', '.join(WRITABLE)}")
    if extra := missing_extra(WRITABLE[suffix]):
        raise UserError(f"{one_line(str(path))}: {suffix} needs a package: pip install 'restormer-cli[{extra}]'")
    return WRITABLE[suffix]


def check_writable(path: str | Path, like: Picture, *, channels: int | None = None) -> tuple[str, ...]:
    """Whether a restored `like` can be written to `path`; call it before the work.

    Returns what will be lost, each a short sentence ("16 bits become 8"): choosing the extension is consent.
    Raises UserError for an unknown extension, for transparency in a format without it (an opaque alpha
    channel is dropped), and for sides longer than the format allows. `channels` is the result's, 1 or 3.
    """
    form = format_of(path)
    codec, name, shown = CODECS[form], form.upper(), one_line(str(path))
    if not codec.alpha and not like.opaque:
        raise UserError(f"{shown}: {name} cannot hold the picture's transparency; write a .png instead")
    if max(like.pixels.shape[:2]) > codec.max_side:
        raise UserError(f"{shown}: {name} holds at most {codec.max_side:,} pixels a side; write a .tif instead")
    losses = []
    bits = _bits_in(codec, like.bits)
    if bits < like.bits:
        losses.append(f"{like.bits} bits become {bits}")
    if told := _clipped(like, bits):
        losses.append(told)
    if not codec.exact_alpha and not like.opaque:
        losses.append(f"{name} keeps transparency only approximately")
    if like.exif and not _exif_for(codec, like, bits):
        losses.append(f"{name} cannot hold its EXIF")
    if told := _colours_for(codec, like, channels or int(like.pixels.shape[2]), bits).told:
        losses.append(told)
    holds = codec.beside if bits <= codec.metadata_depth else frozenset()
    lost = [word for field_name, word in like.beside.names().items() if field_name not in holds]
    if lost:
        losses.append(f"{name} as written here does not keep its {' and '.join(lost)}")
    return tuple(losses)


def _clipped(like: Picture, bits: int) -> str | None:
    """What integers of so many bits cannot hold of floats; None where they hold all but less than half a step."""
    if like.bits != FLOAT_BITS or bits == FLOAT_BITS:
        return None
    scale = 1.0 if like.working is None else like.working.scale
    least, most, slack = like.pixels.min() / scale, like.pixels.max() / scale, 0.5 / peak(bits)
    ends = [words for words, beyond in (("below black", least < -slack), ("beyond white", most > 1 + slack)) if beyond]
    return f"what lies {' or '.join(ends)} is clipped" if ends else None


def encode_picture(
    pixels: np.ndarray,
    like: Picture,
    format: str,
    *,
    quality: int = 95,
    subsampling: str = "4:4:4",
    lossless: bool | None = None,
) -> bytes:
    """Restored pixels as a file in memory, with the depth, transparency, EXIF and ICC of `like`.

    pixels: float (h, w, 1 or 3), h and w those of `like`. Integers are clamped to [0, 1] and rounded to
        nearest, half to even; float TIFF and JPEG XL keep every value.
    format: a key of CODECS, such as like.format or `format_of(path)`.
    quality: 1 to 100, for JPEG, WebP, AVIF and JPEG XL.
    subsampling: "4:4:4", "4:2:2" or "4:2:0", for JPEG and AVIF.
    lossless: for WebP and JPEG XL; None: as `like` was.

    Raises UserError for a bad option or for pixels that are not finite, Failed when the encoder fails.
    """
    if pixels.shape[:2] != like.pixels.shape[:2] or pixels.shape[2:] not in ((1,), (3,)):
        raise ValueError(f"pixels are {pixels.shape}, of a picture of {like.pixels.shape}")
    if not 1 <= quality <= 100:
        raise UserError(f"quality {quality} is out of range; choose 1 to 100")
    if subsampling not in SUBSAMPLING:
        raise UserError(f"subsampling {subsampling} is unknown; choose one of {', '.join(SUBSAMPLING)}")
    if not np.isfinite(pixels).all():
        raise UserError(f"{like.path}: the result is not finite (NaN); use --precision fp32, or other weights")
    codec = CODECS[format]
    options = Options(quality, subsampling, like.lossless if lossless is None else lossless)
    try:
        with third_party():
            return codec.encode(_raster(pixels, like, codec), options)
    except Unreadable as reason:
        raise Failed(f"{one_line(str(like.path))}: cannot be encoded as {format.upper()}: {reason}") from reason


def write_picture(
    path: str | Path,
    pixels: np.ndarray,
    like: Picture,
    *,
    quality: int = 95,
    subsampling: str = "4:4:4",
    lossless: bool | None = None,
    new: bool = False,
) -> None:
    """`encode_picture` in the format of the extension, written whole or not at all.

    A failure leaves neither half a file nor a temporary one, and an existing file as it was. Raises UserError
    for what the user asked, Failed for what the system refused, AlreadyThere where the file must be `new` and is not.
    """
    check_writable(path, like, channels=pixels.shape[2])
    target, shown = Path(os.path.realpath(path)), one_line(str(path))  # through a link, not over it
    if target.is_dir():
        raise UserError(f"{shown}: is a folder; name a file in it")
    if not target.parent.is_dir():
        raise UserError(f"{shown}: there is no folder {one_line(str(target.parent))}; create it first")
    data = encode_picture(pixels, like, format_of(path), quality=quality, subsampling=subsampling, lossless=lossless)
    write_atomically(target, lambda file: file.write(data), new=new)


def _raster(pixels: np.ndarray, like: Picture, codec: Codec) -> Raster:
    """Pixels and what is put back, as the codec wants them."""
    bits = _bits_in(codec, like.bits)
    colours = _colours_for(codec, like, int(pixels.shape[2]), bits)
    if colours.convert is not None:
        pixels = colours.convert.convert(pixels)
    elif bits != FLOAT_BITS and like.working is not None and like.working.scale != 1:
        pixels = pixels / np.float32(like.working.scale)
    unmultiply = like.premultiplied and not codec.premultiplied
    if unmultiply and like.alpha is not None:
        visible = like.alpha.astype(np.float32) / peak(like.bits)
        pixels = np.divide(pixels, visible, out=pixels.astype(np.float32), where=visible > 0)
    samples = pixels.astype(np.float32) if codec.floats else quantise(pixels, bits)
    if like.alpha is not None and like.hidden is not None and like.hidden.shape[1] in (1, samples.shape[2]):
        samples[like.alpha[..., 0] == 0] = _rescale(like.hidden, like.bits, bits)
    if like.alpha is not None and codec.alpha:
        samples = np.concatenate([samples, _rescale(like.alpha, like.bits, bits)], axis=2)
    exif = _exif_for(codec, like, bits)
    premultiplied = like.premultiplied and codec.premultiplied
    beside = like.beside if bits <= codec.metadata_depth else Beside()
    icc, chunks = colours.icc, colours.chunks
    return Raster(
        samples,
        bits,
        icc,
        exif,
        None,
        like.dpi,
        chunks,
        premultiplied=premultiplied,
        beside=beside,
        camera=like.camera,
    )


def quantise(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Pixels in [0, 1] -> samples 0 .. 2**bits - 1, clamped, rounded half to even; floats as they are."""
    if bits == FLOAT_BITS:
        return pixels.astype(np.float32)
    scaled = np.clip(pixels, 0, 1, dtype=np.float32)
    scaled *= peak(bits)
    return np.rint(scaled, out=scaled).astype(sample_type(bits))


def _rescale(samples: np.ndarray, bits: int, wanted: int) -> np.ndarray:
    """Samples of one depth at another, untouched when it is the same."""
    return samples if bits == wanted else quantise(samples.astype(np.float32) / peak(bits), wanted)


def _bits_in(codec: Codec, bits: int) -> int:
    """The depth in which a format keeps so many bits, or the best that it has."""
    return min((depth for depth in codec.depths if depth >= bits), default=codec.depths[-1])


def _exif_for(codec: Codec, like: Picture, bits: int) -> bytes | None:
    """EXIF as far as the format can hold it."""
    fits = like.exif is not None and len(like.exif) <= codec.exif_limit and bits <= codec.metadata_depth
    return like.exif if fits else None


@dataclass(frozen=True)
class _Colours:
    """How a result says what its numbers mean: by a profile, by chunks, or by being converted to sRGB."""

    icc: bytes | None = None
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    convert: Working | None = None
    told: str | None = None


def _colours_for(codec: Codec, like: Picture, channels: int, bits: int) -> _Colours:
    """In whatever way the format has; a profile only beside the colours it describes."""
    profiles = codec.icc and bits <= codec.metadata_depth
    space = "GRAY" if channels == 1 and codec.gray else "RGB"
    if profiles and like.icc is not None and icc_space(like.icc) == space:
        return _Colours(like.icc, like.colour)
    colour = read_colour(like.icc, like.colour, like.exif)
    if colour is None:
        lost = like.icc is not None
        told = "the format as written here cannot hold its colour profile; colours may look different" if lost else None
        return _Colours(None, like.colour, None, told)
    scale = 1.0 if like.working is None else like.working.scale
    if isinstance(colour, TableColour):
        convert = Working(scale, colour) if space == "RGB" else None
        return _Colours(convert=convert, told="its colours are converted to sRGB")
    if space == "GRAY" and colour.to_srgb is not None:
        colour = replace(colour, to_srgb=None)
    if is_srgb(colour) or (like.icc is None and codec.colour(like.colour, bits, like.lossless)):
        return _Colours(None, like.colour)
    code = code_of(colour)
    chunk = () if code is None else ((b"cICP", bytes([*code, 0, 1])),)
    if chunk and codec.colour(chunk, bits, like.lossless):
        return _Colours(None, chunk)
    if like.icc is None and not like.colour and _exif_for(codec, like, bits):
        return _Colours()  # a camera's Adobe RGB, which EXIF goes on saying
    if profiles:
        told = None
        if code is not None and code[1] in HDR:
            told = "its HDR colours go into a profile: programs that do not know of it show no light beyond white"
        return _Colours(make_icc(colour, "as in the original"), (), None, told)
    return _Colours(convert=Working(scale, colour), told="its colours are converted to sRGB")


HEAD = 64
"""Bytes that tell the format, and a PNG's size."""


def picture_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as the picture will be read, upright; what follows the header may still be damaged.

    Raises UserError, one line, where there is no picture.
    """
    with _header(path) as file:
        return _size(file)


def page_sizes(path: str | Path) -> list[tuple[int, int]]:
    """`picture_size` of all the pages that `read_pages` reads; none of a file of another kind."""
    with _header(path) as file:
        raw = is_raw(file)
        file.seek(0)
        if raw or sniff(file.read(HEAD)) != "tif":
            return []
        file.seek(0)
        return tiff_pages(file)


@contextmanager
def _header(path: str | Path) -> Iterator[BinaryIO]:
    """The open file; what is wrong with it is a UserError."""
    path = Path(path)
    name = one_line(str(path))
    try:
        with path.open("rb") as file, third_party():
            yield file
    except Unreadable as reason:
        raise UserError(f"{name}: {reason}") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror or error}") from None


def _size(file: BinaryIO) -> tuple[int, int]:
    raw = is_raw(file)
    file.seek(0)
    if raw:
        return raw_size(file.read())
    head = file.read(HEAD)
    form = sniff(head)
    file.seek(0)
    if form == "png" and head[12:16] == b"IHDR" and head.startswith(PNG_MAGIC):
        width, height = struct.unpack(">II", head[16:24])
        return upright_size(height, width, png_orientation(file))
    if form == "jxl":
        jxl = read_jxl(file.read())
        return jxl.height, jxl.width
    if form == "tif":
        return tiff_size(file)
    if form == "heic":
        return heic_size(file.read())
    return pillow_size(file, form)
