"""What goes in comes out: every format, depth, channel layout and turn, judged by other people's codecs."""

import io
import os
import stat
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms, ImageOps, JpegImagePlugin

from restormer_cli.errors import Failed, UserError
from restormer_cli.images import io as images_io
from restormer_cli.images.formats import table as table_module
from restormer_cli.images.formats.jpeg_xl import box, read_jxl
from restormer_cli.images.formats.png import png_chunk
from restormer_cli.images.formats.table import CODECS, WRITABLE
from restormer_cli.images.io import Picture, check_writable, decode_picture, encode_picture, read_picture, write_picture

HEIGHT, WIDTH = 23, 29  # primes, so that swapped axes show
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def samples(channels: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    """Noise over the whole range of the type: (23, 29, channels); floats leave [0, 1] on both sides."""
    rng = np.random.default_rng(seed)
    if dtype is np.float32:
        return rng.normal(0.5, 1, (HEIGHT, WIDTH, channels)).astype(np.float32)
    return rng.integers(0, np.iinfo(dtype).max + 1, (HEIGHT, WIDTH, channels), dtype=dtype)


def smooth(channels: int) -> np.ndarray:
    """A picture that lossy formats keep nearly as it is: (23, 29, channels), 8 bits."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ramps = [4 * x + 60, 5 * y + 70, 2 * x + 2 * y + 50, 255 - 3 * x]
    return np.stack(ramps[:channels], axis=-1).astype(np.uint8)


def squeezed(array: np.ndarray) -> np.ndarray:
    return array[..., 0] if array.shape[2] == 1 else array


def pillow(array: np.ndarray, form: str, mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(squeezed(array))
    out = io.BytesIO()
    (image.convert(mode) if mode else image).save(out, form, **options)
    return out.getvalue()


def as_png(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.png_encode(array))


def as_jxl(array: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(array, **options))


def as_avif(array: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.avif_encode(array, **options))


def tiff(array: np.ndarray, **options: Any) -> bytes:
    out = io.BytesIO()
    if options.get("planarconfig") == "separate":
        array = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    else:
        array = squeezed(array)
    tifffile.imwrite(out, array, **{"metadata": None, "software": False, **options})
    return out.getvalue()


def stored(picture: Picture) -> np.ndarray:
    """The samples of the file again, from pixels, alpha and what is hidden."""
    scale = {8: 255, 16: 65535, 32: 1}[picture.depth]
    result = picture.pixels * np.float32(scale)
    if picture.depth != 32:
        result = np.rint(result).astype(np.uint8 if picture.depth == 8 else np.uint16)
    if picture.alpha is None:
        return result
    if picture.hidden is not None:
        result[picture.alpha[..., 0] == 0] = picture.hidden
    return np.concatenate([result, picture.alpha], axis=2)


def rewritten(picture: Picture, form: str | None = None, **options: Any) -> bytes:
    return encode_picture(picture.pixels, picture, form or picture.format, **options)


# --- The matrix ---------------------------------------------------------------------------------------------


def _open(data: bytes) -> np.ndarray:
    array = np.asarray(Image.open(io.BytesIO(data)))
    return array[..., None] if array.ndim == 2 else array


def _channels(array: np.ndarray) -> np.ndarray:
    return array[..., None] if array.ndim == 2 else array


PHOTOMETRIC = {1: "minisblack", 2: "minisblack", 3: "rgb", 4: "rgb"}


def _tiff(array: np.ndarray) -> bytes:
    extra = ["unassalpha"] if array.shape[2] in (2, 4) else None
    return tiff(array, photometric=PHOTOMETRIC[array.shape[2]], extrasamples=extra)


JUDGES: dict[str, tuple[Callable[[np.ndarray], bytes], Callable[[bytes], np.ndarray]]] = {
    "png": (as_png, lambda data: _channels(imagecodecs.png_decode(data))),
    "tif": (_tiff, lambda data: _channels(tifffile.imread(io.BytesIO(data)))),
    "webp": (lambda array: pillow(array, "WEBP", lossless=True, exact=True), _open),
    "bmp": (lambda array: pillow(array, "BMP"), _open),
    "jxl": (
        lambda array: as_jxl(array, lossless=True),
        lambda data: _channels(imagecodecs.jpegxl_decode(data)),
    ),
}
MATRIX = [
    (form, dtype, channels)
    for form, dtypes, layouts in (
        ("png", (np.uint8, np.uint16), (1, 2, 3, 4)),
        ("tif", (np.uint8, np.uint16, np.float32), (1, 2, 3, 4)),
        ("webp", (np.uint8,), (3, 4)),
        ("bmp", (np.uint8,), (1, 3)),
        ("jxl", (np.uint8, np.uint16, np.float32), (1, 2, 3, 4)),
    )
    for dtype in dtypes
    for channels in layouts
]


@pytest.mark.parametrize(("form", "dtype", "channels"), MATRIX)
def test_every_lossless_format_comes_out_exactly_as_it_went_in(form, dtype, channels):
    encode, decode = JUDGES[form]
    array = samples(channels, dtype)
    if channels in (2, 4):
        array[:5, :, -1] = 0  # fully transparent, with colours underneath
    picture = decode_picture(encode(array), f"x.{form}")
    assert picture.pixels.shape == (HEIGHT, WIDTH, 1 if channels < 3 else 3)
    assert picture.pixels.dtype == np.float32
    assert picture.bits == np.dtype(dtype).itemsize * 8
    assert (picture.alpha is not None) == (channels in (2, 4))
    assert picture.lossless
    np.testing.assert_array_equal(stored(picture), array)
    again = decode(rewritten(picture))
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize("form", ["png", "tif", "jxl"])
def test_all_65536_values_survive(form):
    array = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    encode, decode = JUDGES[form]
    picture = decode_picture(encode(np.repeat(array, 3, axis=2)), "x")
    np.testing.assert_array_equal(decode(rewritten(picture)), np.repeat(array, 3, axis=2))


@settings(max_examples=40)
@given(
    data=st.data(),
    form=st.sampled_from(["png", "tif", "webp", "jxl"]),
    shape=st.tuples(st.integers(1, 17), st.integers(1, 17), st.sampled_from([1, 2, 3, 4])),
)
def test_any_size_and_any_transparency_round_trips(data, form, shape):
    dtype = data.draw(st.sampled_from([np.uint8] if form == "webp" else [np.uint8, np.uint16]))
    if form == "webp":
        shape = (*shape[:2], 3 + (shape[2] + 1) % 2)
    elements = st.sampled_from([0, 1, 127, np.iinfo(dtype).max])
    array = data.draw(arrays(dtype, shape, elements=elements))
    encode, decode = JUDGES[form]
    again = decode(rewritten(decode_picture(encode(array), "x")))
    # A WebP whose alpha is opaque everywhere comes back without it.
    np.testing.assert_array_equal(again[..., : array.shape[2]], array[..., : again.shape[2]])


@pytest.mark.parametrize("form", ["jpg", "avif", "webp", "jxl"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossy_formats_come_back_close(form, channels):
    array = smooth(channels)
    source = decode_picture(as_png(array), "x")
    picture = decode_picture(rewritten(source, form, lossless=False), "x")
    assert not picture.lossless
    assert picture.pixels.shape[2] == (3 if form == "webp" else channels)
    assert np.abs(picture.pixels - array / 255).max() < 6 / 255


# --- TIFF's many dialects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "packbits", "zstd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff_compressions_in_both_byte_orders(byteorder, compression, dtype):
    array = samples(3, dtype)
    predictor = (3 if dtype is np.float32 else 2) if compression in ("lzw", "deflate") else None
    options = {"byteorder": byteorder, "compression": compression, "predictor": predictor, "rowsperstrip": 5}
    picture = decode_picture(tiff(array, photometric="rgb", **options), "x.tif")
    np.testing.assert_array_equal(stored(picture), array)


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (16, 16), "compression": "deflate"},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "tile": (16, 32), "compression": "lzw"},
        {"bigtiff": True},
        {"bigtiff": True, "byteorder": ">"},
    ],
)
def test_tiff_tiles_planes_and_bigtiff(options):
    array = samples(3, np.uint16)
    picture = decode_picture(tiff(array, photometric="rgb", **options), "x.tif")
    np.testing.assert_array_equal(stored(picture), array)


def test_our_tiff_is_read_by_pillow_in_both_byte_orders():
    for mark in ("II", "MM"):
        for channels in (1, 3, 4):
            array = samples(channels)
            source = decode_picture(pillow(array, "PNG", exif=exif_block(mark)), "x")
            np.testing.assert_array_equal(_open(rewritten(source, "tif")), array)


def test_a_tiff_of_many_strips_is_written_right():
    array = np.tile(samples(3, np.uint16), (31, 17, 1))  # 713 × 493, 2.1 MB: three strips
    data = _tiff(array)
    again = rewritten(decode_picture(data, "x"))
    with tifffile.TiffFile(io.BytesIO(again)) as file:
        assert len(file.pages.first.dataoffsets) > 1
        assert all(offset % 2 == 0 for offset in [*file.pages.first.dataoffsets, file.pages.first.offset])
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(again)), array)


def test_tiff_white_is_zero_is_turned_over():
    array = samples(1)
    picture = decode_picture(tiff(array, photometric="miniswhite"), "x")
    np.testing.assert_array_equal(stored(picture), 255 - array)


@pytest.mark.parametrize(
    ("dtype", "note"), [(np.float64, ("64-bit floats are read as 32-bit floats",)), (np.float16, ())]
)
def test_other_floats_become_32_bit(dtype, note):
    array = np.linspace(-1, 2, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1).astype(dtype)
    picture = decode_picture(tiff(array, photometric="minisblack"), "x")
    np.testing.assert_array_equal(picture.pixels, array.astype(np.float32))
    assert picture.notes == note


def test_a_float_tiff_keeps_values_outside_the_range():
    array = np.array([[-3.5, 0.25, 1e6]], np.float32)[..., None]
    picture = decode_picture(tiff(array, photometric="minisblack"), "x")
    np.testing.assert_array_equal(picture.pixels, array)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(rewritten(picture)))[..., None], array)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_float_picture_with_a_hole_in_it_is_refused(value):
    array = samples(3, np.float32)
    array[3, 5, 1] = value
    with pytest.raises(UserError, match=r"^x: 1 of its samples are no numbers"):
        decode_picture(tiff(array, photometric="rgb"), "x")


def test_premultiplied_alpha_stays_so_in_tiff_and_is_undone_elsewhere():
    alpha = np.full((HEIGHT, WIDTH, 1), 128, np.uint8)
    array = np.concatenate([np.full((HEIGHT, WIDTH, 3), 64, np.uint8), alpha], axis=2)
    picture = decode_picture(tiff(array, photometric="rgb", extrasamples=["assocalpha"]), "x")
    assert picture.premultiplied
    again = decode_picture(rewritten(picture), "x")
    assert again.premultiplied
    np.testing.assert_array_equal(stored(again), array)
    png = imagecodecs.png_decode(rewritten(picture, "png"))
    np.testing.assert_array_equal(png[0, 0], [128, 128, 128, 128])  # 64 / (128 / 255) = 127.5, to even


def test_a_channel_without_a_meaning_is_dropped_with_a_note():
    array = samples(4)
    picture = decode_picture(tiff(array, photometric="rgb", extrasamples=["unspecified"]), "x")
    np.testing.assert_array_equal(stored(picture), array[..., :3])
    assert "not kept" in picture.notes[0]


@pytest.mark.parametrize(("dtype", "cure"), [(np.int16, "to 16 bits or to floats"), (np.uint32, "up to 16 bits")])
def test_integers_that_we_do_not_read_are_refused_with_a_cure(dtype, cure):
    with pytest.raises(UserError, match=cure):
        decode_picture(tiff(np.ones((HEIGHT, WIDTH, 1), dtype), photometric="minisblack"), "x")


def test_a_camera_raw_file_is_not_taken_for_its_thumbnail():
    data = tiff(samples(3), photometric="rgb", extratags=[(50706, 1, 4, (1, 4, 0, 0), True)])
    with pytest.raises(UserError, match="raw file that LibRaw cannot read"):  # it is LibRaw's to judge
        decode_picture(data, "x.dng")


# --- Palettes, one bit, few bits, interlacing, CMYK ---------------------------------------------------------


def test_a_palette_becomes_colour_and_transparency():
    image = Image.fromarray(samples(3)).quantize(17)
    plain, see_through = io.BytesIO(), io.BytesIO()
    image.save(plain, "PNG")
    image.save(see_through, "PNG", transparency=3)
    picture = decode_picture(plain.getvalue(), "x")
    np.testing.assert_array_equal(stored(picture), np.asarray(image.convert("RGB")))
    picture = decode_picture(see_through.getvalue(), "x")
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha[..., 0] == 0, np.asarray(image) == 3)
    np.testing.assert_array_equal(stored(picture)[..., :3], np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["TIFF", "BMP"])
def test_palettes_of_other_formats(form):
    image = Image.fromarray(samples(3)).quantize(17)
    out = io.BytesIO()
    image.save(out, form)
    np.testing.assert_array_equal(stored(decode_picture(out.getvalue(), "x")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_one_bit_becomes_eight(form):
    image = Image.fromarray(squeezed(samples(1))).convert("1")
    out = io.BytesIO()
    image.save(out, form)
    picture = decode_picture(out.getvalue(), "x")
    assert picture.depth == 8
    np.testing.assert_array_equal(picture.pixels[..., 0], np.asarray(image).astype(np.float32))
    again = decode_picture(rewritten(picture), "x")
    np.testing.assert_array_equal(again.pixels, picture.pixels)


def png(width: int, height: int, bits: int, kind: int, raw: bytes, *, interlace: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlace)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_gray_span_the_whole_range(bits):
    values = np.arange(2**bits, dtype=np.uint8)
    packed = np.packbits(np.unpackbits(values[:, None], axis=1)[:, -bits:].ravel())
    picture = decode_picture(png(2**bits, 1, bits, 0, b"\0" + packed.tobytes()), "x")
    np.testing.assert_allclose(picture.pixels[0, :, 0], values / (2**bits - 1), atol=1e-6)


def test_an_interlaced_png_of_16_bits():
    array = samples(3, np.uint16)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    raw = b"".join(
        b"\0" + row.astype(">u2").tobytes()
        for left, top, across, down in passes
        for row in array[top::down, left::across]
    )
    data = png(WIDTH, HEIGHT, 16, 2, raw, interlace=1)
    np.testing.assert_array_equal(stored(decode_picture(data, "x")), array)


def test_gray_with_a_transparent_value():
    array = samples(1)
    array[3, 4] = 77
    picture = decode_picture(pillow(array, "PNG", transparency=77), "x")
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha == 0, array == 77)


def cmyk_profile() -> bytes:
    """A CMYK profile of one table: no ink is white, any black ink is black, other inks are mid-gray (in Lab)."""
    lab = {True: (0, 128, 128), False: (127, 128, 128)}
    nodes = [(255, 128, 128) if n == 0 else lab[bool(n & 1)] for n in range(16)]  # black varies fastest
    identity = struct.pack(">9i", *[65536 * (i % 4 == 0) for i in range(9)])
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4
    table += b"".join(map(bytes, nodes)) + bytes(range(256)) * 3
    tags = [(b"A2B0", table), (b"wtpt", b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061))]
    offset, directory, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, data in tags:
        directory += tag + struct.pack(">II", offset + len(body), len(data))
        body += data.ljust(-(-len(data) // 4) * 4, b"\0")
    header = struct.pack(">I4sI4s4s4s", offset + len(body), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header = header.ljust(36, b"\0") + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + directory + body


def inks(*cmyk: int) -> np.ndarray:
    return np.tile(np.array(cmyk, np.uint8), (16, 16, 1))


@pytest.mark.parametrize(
    ("ink", "rgb"), [((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((255, 0, 0, 0), 119), ((0, 255, 0, 0), 119)]
)
@pytest.mark.parametrize("form", ["jpg", "tif"])
def test_cmyk_goes_through_its_profile(ink, rgb, form):
    if form == "jpg":
        out = io.BytesIO()
        Image.fromarray(inks(*ink), "CMYK").save(out, "JPEG", quality=100, icc_profile=cmyk_profile())
        data = out.getvalue()
    else:
        data = tiff(inks(*ink), photometric="separated", iccprofile=cmyk_profile())
    picture = decode_picture(data, "x")
    assert picture.notes == ("converted from CMYK to RGB",)
    assert picture.icc is None
    np.testing.assert_allclose(picture.pixels * 255, rgb, atol=3)


def test_cmyk_without_a_profile_is_paper_minus_ink():
    array = np.concatenate([inks(255, 0, 0, 0), inks(0, 0, 255, 51)], axis=1)
    for data in (tiff(array, photometric="separated"), pillow_cmyk(array)):
        pixels = decode_picture(data, "x").pixels
        np.testing.assert_allclose(pixels[8, 8], [0, 1, 1], atol=0.02)
        np.testing.assert_allclose(pixels[8, -8], [0.8, 0.8, 0], atol=0.02)


def pillow_cmyk(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array, "CMYK").save(out, "JPEG", quality=100, subsampling=0)
    return out.getvalue()


# --- EXIF and orientation -----------------------------------------------------------------------------------

ORIENTATION, MAKE, EXIF_IFD, GPS_IFD, TAKEN, MAKER_NOTE = 0x0112, 0x010F, 0x8769, 0x8825, 0x9003, 0x927C


def exif_block(mark: str = "MM", orientation: int = 1) -> bytes:
    """An EXIF block with a maker, a maker's note, a date and a place, as Pillow writes it."""
    exif = Image.Exif()
    exif.endian = "<" if mark == "II" else ">"
    exif[ORIENTATION] = orientation
    exif[MAKE] = "A maker of cameras"
    exif.get_ifd(EXIF_IFD).update({TAKEN: "2020:02:29 12:00:00", MAKER_NOTE: b"secret\x00\x01\x02\x03\x04\x05"})
    exif.get_ifd(GPS_IFD).update({1: "N", 2: (48.0, 8.0, 15.5)})
    return exif.tobytes()


def assert_same_exif(exif: Image.Exif) -> None:
    assert exif.get(ORIENTATION, 1) == 1
    assert exif[MAKE] == "A maker of cameras"
    assert exif.get_ifd(EXIF_IFD)[TAKEN] == "2020:02:29 12:00:00"
    assert exif.get_ifd(EXIF_IFD)[MAKER_NOTE] == b"secret\x00\x01\x02\x03\x04\x05"
    assert [float(value) for value in exif.get_ifd(GPS_IFD)[2]] == [48.0, 8.0, 15.5]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "JPEG", "AVIF"])
def test_orientation_is_applied_once_and_reset(form, orientation):
    array = smooth(3)
    options = {"WEBP": {"lossless": True}, "TIFF": {"tiffinfo": {ORIENTATION: orientation}}}.get(form, {})
    data = pillow(array, form, exif=exif_block("MM", orientation), **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    picture = decode_picture(data, "x")
    assert picture.pixels.shape[:2] == ((HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT))
    np.testing.assert_allclose(picture.pixels * 255, np.asarray(upright), atol=0.01)
    again = decode_picture(rewritten(picture), "x")
    assert again.pixels.shape == picture.pixels.shape
    assert np.abs(again.pixels - picture.pixels).max() < 6 / 255
    assert Image.open(io.BytesIO(rewritten(picture))).getexif().get(ORIENTATION, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_alpha_turns_with_the_picture(orientation):
    array = samples(4, np.uint16)
    array[2:7, 3:5, 3] = 0
    chunk = png_chunk(b"eXIf", exif_block("II", orientation).removeprefix(b"Exif\0\0"))
    data = as_png(array)
    picture = decode_picture(data[:33] + chunk + data[33:], "x")
    transpose = ImageOps.exif_transpose
    planes = [Image.fromarray(array[..., c].astype(np.int32)) for c in range(4)]
    for plane in planes:
        plane.getexif()[ORIENTATION] = orientation
    np.testing.assert_array_equal(stored(picture), np.stack([np.asarray(transpose(p)) for p in planes], -1))
    np.testing.assert_array_equal(imagecodecs.png_decode(rewritten(picture)), stored(picture))


def test_jpeg_xl_is_turned_by_its_decoder_and_not_again_by_its_exif():
    array = samples(3)
    exif = exif_block("MM", 6).removeprefix(b"Exif\0\0")
    boxed = as_jxl(array, lossless=True, usecontainer=True)
    picture = decode_picture(boxed + box(b"Exif", bytes(4) + exif), "x")
    np.testing.assert_array_equal(stored(picture), array)
    kept = Image.Exif()
    assert picture.exif is not None
    kept.load(picture.exif)
    assert_same_exif(kept)


def test_an_exif_entry_that_points_astray_is_not_taken_into_a_tiff():
    exif = bytearray(exif_block("II").removeprefix(b"Exif\0\0"))
    entry = exif.index(struct.pack("<HH", MAKE, 2))
    struct.pack_into("<I", exif, entry + 8, len(exif) + 20)
    picture = decode_picture(pillow(samples(3), "JPEG", exif=b"Exif\0\0" + bytes(exif)), "x")
    with tifffile.TiffFile(io.BytesIO(rewritten(picture, "tif"))) as file:
        assert MAKE not in file.pages.first.tags
        assert EXIF_IFD in file.pages.first.tags


@pytest.mark.parametrize("mark", ["II", "MM"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("form", ["jpg", "png", "webp", "tif", "avif", "jxl"])
def test_exif_travels_between_all_formats(mark, source, form):
    picture = decode_picture(pillow(samples(3), source, exif=exif_block(mark, 6)), "x")
    data = rewritten(picture, form)
    if form == "jxl":  # which Pillow does not read
        exif, block = Image.Exif(), decode_picture(data, "x").exif
        assert block is not None
        exif.load(block)
    else:
        exif = Image.open(io.BytesIO(data)).getexif()
    assert_same_exif(exif)


def test_exif_and_icc_travel_in_16_bit_png():
    data = pillow(samples(3), "JPEG", exif=exif_block(), icc_profile=SRGB)
    source = decode_picture(data, "x")
    deep = decode_picture(as_png(samples(3, np.uint16)), "x")
    picture = Picture(**{**vars(deep), "exif": source.exif, "icc": source.icc})
    opened = Image.open(io.BytesIO(rewritten(picture)))  # Pillow checks the checksums
    opened.load()
    assert_same_exif(opened.getexif())
    assert opened.info["icc_profile"] == SRGB
    again = decode_picture(rewritten(picture), "x")
    assert (again.bits, again.exif, again.icc) == (16, source.exif, SRGB)


def test_the_thumbnail_of_the_unrestored_picture_is_unlinked():
    exif = Image.Exif()
    exif[MAKE] = "A maker of cameras"
    block = bytearray(exif.tobytes().removeprefix(b"Exif\0\0"))
    assert block[22:26] == b"\0\0\0\0"  # behind one entry: the pointer to the next directory
    block[22:26] = struct.pack(">I", 8)  # a second directory, here the first one again
    data = pillow(samples(3), "JPEG", exif=b"Exif\0\0" + bytes(block))
    kept = decode_picture(data, "x").exif
    assert kept is not None
    assert kept[22:26] == b"\0\0\0\0"
    assert kept[:22] == block[:22]
    assert kept[26:] == block[26:]


@pytest.mark.parametrize(
    "exif", [b"nonsense", b"II*\0\xff\xff\xff\xff" + b"\0" * 20, b"MM\0*\0\0\0\x08\xff\xff" + b"\0" * 9]
)
def test_damaged_exif_costs_a_note_and_not_the_picture(exif):
    data = pillow(samples(3), "JPEG", exif=b"Exif\0\0" + exif)
    picture = decode_picture(data, "x")
    assert picture.exif is None
    assert picture.notes == ("its EXIF is damaged and not kept",)


def test_exif_too_long_for_jpeg_is_a_loss_that_is_said(tmp_path):
    exif = Image.Exif()
    exif[MAKE] = "x" * 70_000
    picture = decode_picture(pillow(samples(3), "PNG", exif=exif), "x")
    assert check_writable("a.jpg", picture) == ("JPG cannot hold its EXIF",)
    assert check_writable("a.png", picture) == ()
    write_picture(tmp_path / "a.jpg", picture.pixels, picture)


# --- ICC, resolution, PNG's colour chunks -------------------------------------------------------------------


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("form", ["jpg", "png", "webp", "tif", "avif"])
def test_the_colour_profile_travels_between_formats(source, form):
    picture = decode_picture(pillow(samples(3), source, icc_profile=SRGB), "x")
    assert picture.icc == SRGB
    assert check_writable(f"a.{form}", picture) == ()
    assert Image.open(io.BytesIO(rewritten(picture, form))).info["icc_profile"] == SRGB


@pytest.mark.parametrize("form", ["jxl", "bmp"])
def test_a_profile_that_cannot_be_kept_is_said(form):
    picture = decode_picture(pillow(samples(3), "PNG", icc_profile=SRGB), "x")
    assert check_writable(f"a.{form}", picture) == ()  # sRGB is what the numbers mean anyway
    tables = replace(picture, icc=SRGB.replace(b"rXYZ", b"A2B0"))
    assert any("colour profile" in loss for loss in check_writable(f"a.{form}", tables))


def test_a_gray_profile_never_lands_in_a_colour_picture():
    gray = bytearray(SRGB)
    gray[16:20] = b"GRAY"
    picture = decode_picture(pillow(samples(1), "PNG", icc_profile=bytes(gray)), "x")
    assert "icc_profile" in Image.open(io.BytesIO(rewritten(picture))).info
    colour = np.repeat(picture.pixels, 3, axis=2)
    assert "icc_profile" not in Image.open(io.BytesIO(encode_picture(colour, picture, "png"))).info
    assert check_writable("a.png", picture) == ()
    assert check_writable("a.png", picture, channels=3) != ()
    assert check_writable("a.webp", picture) != ()


@pytest.mark.parametrize("icc", [b"x" * 200, SRGB[:100], SRGB[:-1], SRGB.replace(b"acsp", b"ascp")], ids=range(4))
def test_a_damaged_profile_costs_a_note(icc):
    picture = decode_picture(pillow(samples(3), "JPEG", icc_profile=icc), "x")
    assert picture.icc is None
    assert picture.notes == ("its colour profile is damaged and not kept",)


@pytest.mark.parametrize("source", ["PNG", "JPEG", "TIFF", "BMP"])
@pytest.mark.parametrize("form", ["png", "jpg", "tif", "bmp"])
def test_the_print_resolution_is_kept(source, form):
    picture = decode_picture(pillow(samples(3), source, dpi=(300, 150)), "x")
    dpi: Any = Image.open(io.BytesIO(rewritten(picture, form))).info["dpi"]
    np.testing.assert_allclose([float(dpi[0]), float(dpi[1])], (300, 150), rtol=0.001)


def test_the_print_resolution_turns_with_the_picture():
    data = pillow(samples(3), "PNG", dpi=(300, 150), exif=exif_block("MM", 6))
    assert decode_picture(data, "x").dpi == pytest.approx((150, 300), rel=0.001)


def test_png_colour_chunks_are_kept_verbatim():
    chunks = [(b"gAMA", struct.pack(">I", 45455)), (b"cHRM", struct.pack(">8I", *range(31270, 31278)))]
    data = pillow(samples(3), "PNG")
    picture = decode_picture(data[:33] + b"".join(png_chunk(*c) for c in chunks) + data[33:], "x")
    again = rewritten(picture)
    assert all(png_chunk(*chunk) in again for chunk in chunks)
    assert all(png_chunk(*chunk) not in rewritten(picture, "tif") for chunk in chunks)


# --- Transparency -------------------------------------------------------------------------------------------


def test_the_network_sees_no_colour_under_full_transparency():
    array = np.zeros((32, 32, 4), np.uint8)
    array[..., :3] = (255, 0, 255)  # garish where nobody sees it
    array[8:24, 8:20] = (10, 200, 30, 255)
    picture = decode_picture(as_png(array), "x")
    np.testing.assert_allclose(picture.pixels, np.tile(np.array([10, 200, 30]) / 255, (32, 32, 1)), atol=1e-6)


def test_filling_follows_the_nearest_visible_colours():
    array = np.zeros((32, 32, 4), np.uint8)
    array[:, :2] = (200, 0, 0, 255)
    array[:, -2:] = (0, 0, 200, 1)  # hardly visible still counts
    pixels = decode_picture(as_png(array), "x").pixels
    assert (pixels[:, :16, 0] > pixels[:, :16, 2]).all()
    assert (pixels[:, 16:, 0] < pixels[:, 16:, 2]).all()


def test_hidden_colours_come_back_under_changed_pixels():
    array = samples(4, np.uint16)
    array[5:9, 7:20, 3] = 0
    picture = decode_picture(as_png(array), "x")
    result = imagecodecs.png_decode(encode_picture(1 - picture.pixels, picture, "png"))
    invisible = array[..., 3] == 0
    np.testing.assert_array_equal(result[invisible], array[invisible])
    np.testing.assert_array_equal(result[~invisible][:, :3], 65535 - array[~invisible][:, :3])
    np.testing.assert_array_equal(result[..., 3], array[..., 3])


def test_a_wholly_transparent_picture_keeps_its_colours():
    array = samples(4)
    array[..., 3] = 0
    picture = decode_picture(as_png(array), "x")
    np.testing.assert_array_equal(np.rint(picture.pixels * 255), array[..., :3])
    np.testing.assert_array_equal(imagecodecs.png_decode(rewritten(picture)), array)


def test_alpha_is_scaled_when_the_depth_changes():
    array = samples(4, np.uint16)
    webp = _open(rewritten(decode_picture(as_png(array), "x"), "webp"))
    np.testing.assert_array_equal(webp[..., 3], np.rint(array[..., 3] / 257).astype(np.uint8))


@pytest.mark.parametrize("extension", [".jpg"])
def test_transparency_is_refused_where_it_would_be_lost(extension, tmp_path):
    array = samples(4)
    picture = decode_picture(as_png(array), "in.png")
    with pytest.raises(UserError, match=r"cannot hold the picture's transparency; write a \.png"):
        check_writable(f"a{extension}", picture)
    with pytest.raises(UserError, match="transparency"):
        write_picture(tmp_path / f"a{extension}", picture.pixels, picture)
    assert not list(tmp_path.iterdir())
    array[..., 3] = 255
    opaque = decode_picture(as_png(array), "in.png")
    write_picture(tmp_path / f"a{extension}", opaque.pixels, opaque)
    assert read_picture(tmp_path / f"a{extension}").alpha is None


# --- Depth --------------------------------------------------------------------------------------------------


def test_integers_are_clamped_and_rounded_half_to_even():
    pixels = np.array([-1, -0.001, 0.5 / 255, 1.5 / 255, 2.5 / 255, 0.999, 1.001, 7], np.float32)
    np.testing.assert_array_equal(images_io.quantise(pixels, 8), [0, 0, 0, 2, 2, 255, 255, 255])
    assert images_io.quantise(pixels, 16).dtype == np.uint16


@pytest.mark.parametrize(
    ("dtype", "extension", "bits", "losses"),
    [
        (np.uint8, ".png", 8, ()),
        (np.uint16, ".tif", 16, ()),
        (np.uint16, ".jpg", 8, ("16 bits become 8",)),
        (np.uint16, ".webp", 8, ("16 bits become 8",)),
        (np.uint16, ".avif", 12, ("16 bits become 12",)),
        (np.uint16, ".jxl", 16, ()),
        (np.float32, ".tif", 32, ()),
        (np.float32, ".jxl", 32, ()),
        (np.float32, ".png", 16, ("32 bits become 16",)),
    ],
)
def test_depth_is_kept_or_its_loss_is_said(dtype, extension, bits, losses, tmp_path):
    array = smooth(3) / np.float32(255)
    array = array if dtype is np.float32 else np.rint(array * np.iinfo(dtype).max).astype(dtype)
    picture = decode_picture(_tiff(array), "x")
    assert check_writable(tmp_path / f"a{extension}", picture) == losses
    write_picture(tmp_path / f"a{extension}", picture.pixels, picture)
    again = read_picture(tmp_path / f"a{extension}")
    assert again.bits == bits
    assert np.abs(again.pixels - picture.pixels).max() < 6 / 255


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_avif_keeps_its_bits_and_fills_16_in_png(bits, channels):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ramp = 0.1 + 0.9 * (x + y) / (HEIGHT + WIDTH - 2)
    array = np.rint(np.repeat(ramp[..., None], channels, 2) * (2**bits - 1)).astype(np.uint16)
    kind = None if channels == 1 else "444"
    data = as_avif(array, level=100, bitspersample=bits, pixelformat=kind, speed=9)
    picture = decode_picture(data, "x")
    assert (picture.bits, picture.depth) == (bits, 16)
    np.testing.assert_allclose(picture.pixels[..., 0], ramp, atol=0.002)
    png16 = imagecodecs.png_decode(rewritten(picture, "png"))
    np.testing.assert_allclose(png16.reshape(HEIGHT, WIDTH, -1)[..., -1] / 65535, ramp, atol=0.002)
    again = decode_picture(rewritten(picture), "x")
    assert again.bits == bits
    np.testing.assert_allclose(again.pixels, picture.pixels, atol=0.02)


def test_deep_avif_says_that_it_loses_metadata():
    array = samples(3, np.uint16)
    deep = decode_picture(as_png(array), "x")
    picture = Picture(**{**vars(deep), "icc": SRGB, "exif": exif_block().removeprefix(b"Exif\0\0")})
    assert len(check_writable("a.avif", picture)) == 2  # depth and EXIF; the profile says sRGB, as AVIF does by itself
    see_through = decode_picture(as_png(samples(4)), "x")
    assert check_writable("a.avif", see_through) == ("AVIF keeps transparency only approximately",)
    rewritten(picture, "avif")


# --- How lossy formats are written --------------------------------------------------------------------------


@pytest.mark.parametrize(("subsampling", "code"), [("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)])
def test_jpeg_subsampling(subsampling, code):
    picture = decode_picture(pillow(samples(3), "PNG"), "x")
    data = rewritten(picture, "jpg", subsampling=subsampling)
    assert JpegImagePlugin.get_sampling(Image.open(io.BytesIO(data))) == code
    assert JpegImagePlugin.get_sampling(Image.open(io.BytesIO(rewritten(picture, "jpg")))) == 0


@pytest.mark.parametrize("form", ["jpg", "webp", "avif", "jxl"])
def test_quality_is_95_unless_asked(form):
    picture = decode_picture(pillow(samples(3), "PNG"), "x")
    sizes = [len(rewritten(picture, form, quality=quality, lossless=False)) for quality in (30, 95)]
    assert sizes[0] < sizes[1] == len(rewritten(picture, form, lossless=False))
    if form == "jpg":
        tables = Image.open(io.BytesIO(rewritten(picture, "jpg"))).quantization  # type: ignore[attr-defined]
        assert tables == Image.open(io.BytesIO(pillow(samples(3), "JPEG", quality=95))).quantization  # type: ignore[attr-defined]


@pytest.mark.parametrize("form", ["webp", "jxl"])
@pytest.mark.parametrize("source", ["PNG", "JPEG"])
def test_lossless_follows_the_source_unless_asked(form, source):
    picture = decode_picture(pillow(samples(3), source), "x")
    assert decode_picture(rewritten(picture, form), "x").lossless == (source == "PNG")
    assert decode_picture(rewritten(picture, form, lossless=True), "x").lossless
    assert not decode_picture(rewritten(picture, form, lossless=False), "x").lossless


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 0}, "quality 0 is out of range; choose 1 to 100"),
        ({"quality": 101}, "quality 101 is out of range"),
        ({"subsampling": "4:1:0"}, "subsampling 4:1:0 is unknown; choose one of 4:4:4"),
    ],
)
def test_a_bad_option_is_one_line(options, message):
    picture = decode_picture(pillow(samples(3), "PNG"), "x")
    with pytest.raises(UserError, match=message):
        rewritten(picture, "jpg", **options)


# --- First frames and wrong names ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF", "TIFF", "MPO"])
def test_of_many_frames_the_first_is_read_with_a_note(form):
    array = smooth(3)
    others = [Image.fromarray(255 - array)] * 2
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}}.get(form, {})
    data = pillow(array, form, save_all=True, append_images=others, **options)
    picture = decode_picture(data, "x")
    assert np.abs(picture.pixels - array / 255).max() < 9 / 255
    assert len(picture.notes) == 1
    assert "only" in picture.notes[0]


@pytest.mark.parametrize("lossless", [True, False])
def test_an_animated_jpeg_xl_gives_its_first_frame(lossless):
    array = smooth(3)
    level = None if lossless else 95
    data = as_jxl(np.stack([array, 255 - array]), lossless=lossless, level=level)
    picture = decode_picture(data, "x")
    assert np.abs(picture.pixels - array / 255).max() < 6 / 255
    assert "animated" in picture.notes[0]


def test_a_deep_avif_sequence_does_not_reach_the_decoder_that_crashes():
    frames = np.stack([samples(3, np.uint16) >> 6, samples(3, np.uint16) >> 7])
    data = as_avif(frames, level=90, bitspersample=10, pixelformat="444", speed=9)
    picture = decode_picture(data, "x")
    assert picture.bits == 8
    assert any("10 bits are read as 8" in note for note in picture.notes)


def test_content_decides_and_not_the_name(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(pillow(samples(3), "PNG"))
    picture = read_picture(tmp_path / "photo.jpg")
    assert picture.format == "png"
    assert picture.notes == ("it is a PNG in spite of its name",)
    write_picture(tmp_path / "photo.jpg", picture.pixels, picture)
    assert (tmp_path / "photo.jpg").read_bytes()[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (64, 128), (300, 400), (9, 16), (5, 2000), (256, 8)])
@pytest.mark.parametrize("container", [True, False])
def test_the_jpeg_xl_header_says_the_size(height, width, container):
    array = np.zeros((height, width, 4), np.uint16)
    header = read_jxl(as_jxl(array, lossless=True, usecontainer=container))
    assert (header.height, header.width, header.bits, header.alpha) == (height, width, 16, True)
    assert not header.lossy
    lossy = read_jxl(as_jxl(array[..., :3], level=90, usecontainer=container))
    assert (lossy.height, lossy.width, lossy.alpha, lossy.lossy) == (height, width, False, True)


# --- Paths and files ----------------------------------------------------------------------------------------


def test_what_is_no_picture_is_said_in_one_line(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello there")
    (tmp_path / "page.png").write_text("<html>404</html>")
    (tmp_path / "moving.gif").write_bytes(pillow(samples(1), "GIF"))
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in {
        "missing.png": "no such file; check the path",
        "": "is a folder; name a picture in it",
        "empty.png": "is empty; copy or download it again",
        "text.png": "is not a picture of a known format; convert it",
        "page.png": "is a web page or an SVG, which is not read",
        "moving.gif": "is a GIF, which is not read; convert it to PNG",
        "phone.heic": "damaged",
        "pipe.png": "is not a regular file; pipe it in",
        "text.png/inside.png": "cannot be read",
        "x" * 300: "cannot be read",
        "zero\0byte": "cannot be read",
    }.items():
        with pytest.raises(UserError) as caught:
            read_picture(tmp_path / name)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_name_with_a_line_break_stays_one_line(tmp_path):
    with pytest.raises(UserError) as caught:
        read_picture(tmp_path / "two\nlines\x1b[31m.png")
    assert str(caught.value).isprintable()


def test_permission_denied_is_said(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x")

    def denied(*_: object) -> None:  # root may read everything, so chmod proves nothing
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(UserError, match=r"a\.png: permission denied; make the file readable"):
        read_picture(tmp_path / "a.png")


def test_an_extension_that_cannot_be_written_lists_those_that_can(tmp_path):
    picture = decode_picture(pillow(samples(3), "PNG"), "x")
    with pytest.raises(UserError, match=r'cannot write "\.gif"; use one of \.png, \.jpg'):
        write_picture(tmp_path / "a.gif", picture.pixels, picture)
    with pytest.raises(UserError, match="no extension"):
        check_writable("a", picture)


@pytest.mark.parametrize("extension", sorted({*WRITABLE, ".PNG"}))
def test_every_writable_extension_writes_its_format(extension, tmp_path):
    picture = decode_picture(pillow(samples(3), "PNG"), "x")
    path = tmp_path / f"a{extension}"
    write_picture(path, picture.pixels, picture)
    assert read_picture(path).format == WRITABLE[extension.lower()]
    assert read_picture(path).notes == ()


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    picture = decode_picture(pillow(samples(3), "PNG"), "x")
    path = tmp_path / "a.png"
    path.write_bytes(b"what was there")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(Failed, match=r"a\.png: cannot be written: No space left on device"):
            write_picture(path, picture.pixels, picture)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(Failed):
            write_picture(path, picture.pixels, picture)
    with pytest.raises(UserError, match="not finite"):
        write_picture(path, picture.pixels * np.nan, picture)
    assert path.read_bytes() == b"what was there"
    assert os.listdir(tmp_path) == ["a.png"]


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    picture = decode_picture(pillow(samples(3), "PNG"), "x")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_picture(tmp_path / "a.png", picture.pixels, picture)
    assert os.listdir(tmp_path) == []


def test_written_files_have_ordinary_permissions_and_links_stay_links(tmp_path):
    picture = decode_picture(pillow(samples(3), "PNG"), "x")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    previous = os.umask(0o027)
    try:
        write_picture(tmp_path / "link.png", picture.pixels, picture)
    finally:
        os.umask(previous)
    assert (tmp_path / "link.png").is_symlink()
    assert stat.S_IMODE((tmp_path / "real.png").stat().st_mode) == 0o640


def test_a_missing_folder_and_a_folder_in_the_way_are_said(tmp_path):
    picture = decode_picture(pillow(samples(3), "PNG"), "x")
    with pytest.raises(UserError, match="there is no folder"):
        write_picture(tmp_path / "no" / "a.png", picture.pixels, picture)
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        write_picture(tmp_path / "a.png", picture.pixels, picture)
    assert os.listdir(tmp_path) == ["a.png"]


def test_pixels_of_another_size_are_a_defect_of_the_caller():
    picture = decode_picture(pillow(samples(3), "PNG"), "x")
    with pytest.raises(ValueError, match=r"\(22, 29, 3\), of a picture of \(23, 29, 3\)"):
        encode_picture(picture.pixels[:-1], picture, "png")


def test_gray_may_come_back_as_colour_and_colour_as_gray():
    array = samples(2)
    array[:4, :, 1] = 0
    gray = decode_picture(as_png(array), "x")
    colour = encode_picture(np.repeat(gray.pixels, 3, axis=2), gray, "png")
    np.testing.assert_array_equal(imagecodecs.png_decode(colour), array[..., [0, 0, 0, 1]])
    rgb = decode_picture(as_png(samples(4)), "x")
    assert imagecodecs.png_decode(encode_picture(rgb.pixels[..., :1], rgb, "png")).shape == (HEIGHT, WIDTH, 2)


def test_sides_beyond_the_format_are_refused_before_the_work():
    picture = decode_picture(as_png(np.zeros((1, 20_000), np.uint8)), "x")
    with pytest.raises(UserError, match=r"WEBP holds at most 16,383 pixels a side; write a \.tif"):
        check_writable("a.webp", picture)
    assert check_writable("a.jpg", picture) == ()


# --- Cold start ---------------------------------------------------------------------------------------------


def modules_after(code: str) -> set[str]:
    command = f"import sys\n{code}\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_loads_no_decoder_and_reading_a_png_only_its_own(tmp_path):
    (tmp_path / "a.png").write_bytes(pillow(samples(3), "PNG"))
    heavy = {
        "torch",
        "tifffile",
        "PIL",
        "imagecodecs",
        "imageio",
        "skimage",
        "scipy",
        "matplotlib",
        "pillow_heif",
        "rawpy",
    }
    assert not heavy & modules_after("import restormer_cli.images.io")
    reading = f"from restormer_cli.images.io import read_picture; read_picture({str(tmp_path / 'a.png')!r})"
    assert heavy & modules_after(reading) == {"imagecodecs"}


def test_the_table_of_formats_is_complete():
    assert set(CODECS) == set(WRITABLE.values()) == set(table_module.READABLE.values())
    assert all(list(codec.depths) == sorted(codec.depths) for codec in CODECS.values())


def test_a_jpeg_xl_of_a_jpeg_is_written_as_a_lossy_one(tmp_path):
    """Its result cannot be a JPEG again, and without loss it would be many times as large."""
    jpeg = imagecodecs.jpeg_encode(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), level=85)
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode_jpeg(jpeg, usecontainer=True))
    picture = read_picture(tmp_path / "a.jxl")
    assert not picture.lossless
    write_picture(tmp_path / "b.jxl", picture.pixels, like=picture)
    assert (tmp_path / "b.jxl").stat().st_size < 2 * (tmp_path / "a.jxl").stat().st_size
    write_picture(tmp_path / "c.jxl", picture.pixels, like=picture, lossless=True)
    assert read_picture(tmp_path / "c.jxl").lossless
