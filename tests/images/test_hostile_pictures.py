"""Every file is hostile: whatever the bytes, a picture or one line, within bounds of time and memory.

Mutants are decoded in a process of its own under a limit of memory, since native decoders may take the process
down with them. Mutant number n is the same on every machine with the same library versions:

    python tests/images/test_hostile_pictures.py FIRST COUNT     decodes mutants FIRST .. FIRST + COUNT - 1
"""

import io
import logging
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from restormer_cli.errors import UserError
from restormer_cli.images.formats.jpeg_xl import box
from restormer_cli.images.formats.png import png_chunk
from restormer_cli.images.formats.raster import third_party
from restormer_cli.images.formats.table import CODECS
from restormer_cli.images.io import MAX_PIXELS, decode_picture, encode_picture, read_picture

MEMORY = 3 << 30  # bytes of address space for the process that decodes
SECONDS = 5  # of processor time, for one mutant
MAX_MUTANT_PIXELS = 4_000_000


# --- The healthy files --------------------------------------------------------------------------------------


def corpus() -> dict[str, bytes]:
    """Small sound files of all kinds that we read: name -> bytes."""
    y, x = np.mgrid[:23, :29]
    rgb = np.stack([x * 8 % 256, y * 11 % 256, (x * y) % 256], axis=-1).astype(np.uint8)
    files: dict[str, bytes] = {}
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A maker of cameras"
    exif.get_ifd(0x8769)[0x9003] = "2020:02:29 12:00:00"
    tags: dict[str, Any] = {
        "exif": exif.tobytes(),
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    }
    frames: dict[str, Any] = {"save_all": True, "append_images": [Image.fromarray(255 - rgb)]}

    def pillow(name: str, form: str, mode: str = "RGB", **options: Any) -> None:
        out = io.BytesIO()
        Image.fromarray(rgb).convert(mode).save(out, form, **options)
        files[name] = out.getvalue()

    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        pillow(f"png {mode}", "PNG", mode, **tags)
    pillow("png animated", "PNG", **frames)
    for mode in ("L", "RGB", "CMYK"):
        pillow(f"jpg {mode}", "JPEG", mode, **({} if mode == "CMYK" else tags))
    pillow("jpg progressive", "JPEG", progressive=True)
    pillow("jpg of two", "MPO", **frames)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        pillow(f"bmp {mode}", "BMP", mode)
    pillow("webp", "WEBP", **tags)
    pillow("webp lossless", "WEBP", "RGBA", lossless=True)
    pillow("webp animated", "WEBP", **frames)
    pillow("avif", "AVIF", speed=9, **tags)
    pillow("avif alpha", "AVIF", "RGBA", speed=9)
    pillow("avif animated", "AVIF", speed=9, **frames)
    for mode in ("1", "P"):
        pillow(f"tif {mode}", "TIFF", mode)
    pillow("tif exif", "TIFF", **tags)
    _deep(rgb, files)
    _tiffs(rgb, files)
    picture = decode_picture(files["png RGB"], "x")
    for form in ("tif", "jxl", "heic", "dng"):
        files[f"{form} of ours"] = encode_picture(picture.pixels, picture, form)
    return files


def _deep(rgb: np.ndarray, files: dict[str, bytes]) -> None:
    deep = rgb.astype(np.uint16) * 257
    files["png 16"] = bytes(imagecodecs.png_encode(deep))
    files["png 16 alpha"] = bytes(imagecodecs.png_encode(np.dstack([deep, deep[..., :1]])))
    for bits, kind in ((10, "444"), (12, "420")):
        options: dict[str, Any] = {"level": 80, "bitspersample": bits, "pixelformat": kind, "speed": 9}
        files[f"avif {bits}"] = bytes(imagecodecs.avif_encode(deep >> (16 - bits), **options))
        files[f"avif {bits} animated"] = bytes(
            imagecodecs.avif_encode(np.stack([deep, deep]) >> (16 - bits), **options)
        )
    floats = rgb.astype(np.float32) / 255
    for name, array in {"8": rgb, "16": deep, "32": floats, "alpha": np.dstack([rgb, rgb[..., 0]])}.items():
        files[f"jxl {name}"] = bytes(imagecodecs.jpegxl_encode(array, lossless=True))
        files[f"jxl {name} lossy"] = bytes(imagecodecs.jpegxl_encode(array, level=90, usecontainer=True))
    files["jxl animated"] = bytes(imagecodecs.jpegxl_encode(np.stack([rgb, 255 - rgb]), lossless=True))


def _tiffs(rgb: np.ndarray, files: dict[str, bytes]) -> None:
    def add(name: str, array: np.ndarray, **options: Any) -> None:
        out = io.BytesIO()
        tifffile.imwrite(out, array, **{"photometric": "rgb", **options})
        files[f"tif {name}"] = out.getvalue()

    deep = rgb.astype(np.uint16) * 257
    for compression in (None, "lzw", "deflate", "packbits", "zstd"):
        predictor = 2 if compression in ("lzw", "deflate") else None
        for order in "<>":
            add(f"{compression} {order}", deep, compression=compression, byteorder=order, predictor=predictor)
    add("tiles", rgb, tile=(16, 16), compression="deflate")
    add("big", rgb, bigtiff=True)
    add("float", rgb.astype(np.float32), compression="deflate", predictor=3)
    add("jpeg", rgb, photometric="ycbcr", compression="jpeg")
    add("planes", np.ascontiguousarray(np.moveaxis(rgb, -1, 0)), planarconfig="separate")
    add("cmyk", np.dstack([rgb, rgb[..., 0]]), photometric="separated")


# --- The mutants --------------------------------------------------------------------------------------------

Mutation = Callable[[random.Random, bytearray, list[bytes]], bytearray]
EXTREMES = (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\1\0\0", b"\0\0\1\0")


def truncate(rng: random.Random, data: bytearray, others: list[bytes]) -> bytearray:
    return data[: rng.randrange(len(data))]


def flip_bits(rng: random.Random, data: bytearray, others: list[bytes]) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def spoil_header(rng: random.Random, data: bytearray, others: list[bytes]) -> bytearray:
    for _ in range(rng.choice((1, 3))):
        data[rng.randrange(min(len(data), 200))] = rng.choice((0, 1, 127, 128, 255))
    return data


def absurd_number(rng: random.Random, data: bytearray, others: list[bytes]) -> bytearray:
    at = rng.randrange(len(data))
    data[at : at + 4] = rng.choice(EXTREMES)
    return data


def splice(rng: random.Random, data: bytearray, others: list[bytes]) -> bytearray:
    other = rng.choice(others)
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def cut_out(rng: random.Random, data: bytearray, others: list[bytes]) -> bytearray:
    at = rng.randrange(len(data))
    del data[at : at + rng.randrange(1, 64)]
    return data


def repeat(rng: random.Random, data: bytearray, others: list[bytes]) -> bytearray:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randrange(1, 64)]
    return data


MUTATIONS: tuple[Mutation, ...] = (truncate, flip_bits, spoil_header, absurd_number, splice, cut_out, repeat)


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose damage gets past the checksums, to the decoder."""
    result, at = bytearray(data), 8
    while at + 12 <= len(result):
        end = at + 8 + struct.unpack_from(">I", result, at)[0]
        if end + 4 > len(result):
            break
        struct.pack_into(">I", result, end, zlib.crc32(result[at + 4 : end]))
        at = end + 4
    return bytes(result)


def mutant(number: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """The mutant of a number, with its origin."""
    rng = random.Random(number)
    name = rng.choice(sorted(files))
    mutation = rng.choice(MUTATIONS)
    data = bytes(mutation(rng, bytearray(files[name]), list(files.values())))
    if name.startswith("png") and rng.random() < 0.7:
        data = with_right_checksums(data)
    return f"{number} ({name}, {mutation.__name__})", data


def judge(name: str, data: bytes, max_pixels: int = MAX_MUTANT_PIXELS) -> str:
    """Decode: "read" or "refused". Anything but a sound picture or one line is an AssertionError."""
    start = time.process_time()
    try:
        picture = decode_picture(data, "mutant", max_pixels=max_pixels)
    except UserError as error:
        message, result = str(error), "refused"
        assert message.isprintable(), f"{name}: not one line: {message!r}"
        assert message.startswith("mutant: "), f"{name}: {message}"
        assert len(message) < 300, f"{name}: {len(message)} characters: {message}"
    else:
        result = "read"
        assert np.isfinite(picture.pixels).all(), name
        assert (
            picture.bits == 32
            or picture.camera is not None
            or (picture.pixels.min() >= 0 and picture.pixels.max() <= 1)
        ), name
        assert all(note.isprintable() for note in picture.notes), f"{name}: {picture.notes}"
    took = time.process_time() - start
    assert took < SECONDS, f"{name}: took {took:.1f} s"
    return result


# Sound in form, absurd in claim: each is a few hundred bytes and says that it is huge.


def giants() -> dict[str, bytes]:
    """Tiny files that claim 400 megapixels, within the default limit: name -> bytes."""
    side = 20_000
    files = corpus()
    result = {}
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    idat = (b"IDAT", zlib.compress(b"\0" * 1000))
    chunks = [(b"IHDR", header), idat, (b"IEND", b"")]
    result["png"] = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    bmp = bytearray(files["bmp RGB"])
    struct.pack_into("<ii", bmp, 18, side, side)
    result["bmp"] = bytes(bmp)
    jpg = bytearray(files["jpg RGB"])
    struct.pack_into(">HH", jpg, jpg.index(b"\xff\xc0") + 5, side, side)
    result["jpg"] = bytes(jpg)
    for name in ("None <", "lzw <", "deflate <", "packbits <", "tiles"):
        with tifffile.TiffFile(io.BytesIO(files[f"tif {name}"])) as tiff:
            places = [tiff.pages.first.tags[tag].valueoffset for tag in (256, 257, 278) if tag in tiff.pages.first.tags]
        tif = bytearray(files[f"tif {name}"])
        for place in places:
            tif[place : place + 2] = struct.pack("<H", side)
        result[f"tif {name}"] = bytes(tif)
    return result


@pytest.mark.parametrize("name", sorted(giants()))
def test_a_tiny_file_that_claims_a_huge_picture_costs_nothing(name):
    data = giants()[name]
    assert len(data) < 20_000
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"cannot hold|it needs|truncated"):
            decode_picture(data, "x", max_pixels=MAX_PIXELS)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", sorted(corpus()))
def test_every_healthy_file_is_read_and_the_limit_holds_before_decoding(name, monkeypatch):
    data = corpus()[name]
    picture = decode_picture(data, "x", max_pixels=23 * 29)
    assert {*picture.pixels.shape[:2]} == {23, 29}
    for module in ("png", "jpegxl", "avif"):  # none of them may be reached
        monkeypatch.setattr(imagecodecs, f"{module}_decode", None)
    monkeypatch.setattr(Image.Image, "tobytes", None)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", None)
    with pytest.raises(UserError, match="more than the limit of 666; raise the limit"):
        decode_picture(data, "x", max_pixels=23 * 29 - 1)


def test_a_png_that_inflates_to_more_than_it_claims_is_cut_short():
    bomb = zlib.compress(b"\0" * (200 << 20))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 50, 50, 8, 2, 0, 0, 0)), (b"IDAT", bomb), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    assert peak_of(lambda: decode_picture(data, "x")) < 8 << 20


def peak_of(action: Callable[[], object]) -> int:
    """Bytes at the most that Python allocated meanwhile."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_bombs_in_png_metadata_cost_a_note_at_the_most():
    zeros = zlib.compress(b"\0" * (200 << 20))
    chunks = [
        (b"iCCP", b"profile\0\0" + zeros),
        (b"iTXt", b"comment\0\1\0\0\0" + zeros),
        (b"zTXt", b"comment\0\0" + zeros),
    ]
    data = corpus()["png 16"]
    data = data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:]
    assert peak_of(lambda: decode_picture(data, "x")) < 64 << 20
    assert decode_picture(data, "x").notes == ("its colour profile is damaged and not kept",)


def test_a_bomb_in_a_brotli_box_is_bounded():
    data = corpus()["jxl of ours"]
    start = data.index(b"Exif") - 4
    exif = data[start + 8 :]
    for payload, kept in ((exif, True), (exif + b"\0" * (200 << 20), False)):
        boxed = data[:start] + box(b"brob", b"Exif" + imagecodecs.brotli_encode(payload))
        picture = decode_picture(boxed, "x")
        assert (picture.exif is not None) == kept
        assert bool(picture.notes) != kept


def test_a_wrong_checksum_is_damage_even_when_the_picture_could_be_read():
    data = bytearray(corpus()["png 16"])
    data[-13] ^= 1  # the checksum of the pixels
    with pytest.raises(UserError, match="a checksum does not match"):
        decode_picture(bytes(data), "x")


def test_a_damaged_remark_in_a_png_costs_a_note():
    data = corpus()["png 16"]
    remark = bytearray(png_chunk(b"tEXt", b"a remark"))
    remark[-1] ^= 1
    picture = decode_picture(data[:33] + bytes(remark) + data[33:], "x")
    assert picture.notes == ("damaged parts are not kept: tEXt",)


def test_samples_beyond_the_palette_are_black_and_libpng_stays_silent(capfd):
    header = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
    pixels = zlib.compress(b"\0\1\xc8" + b"more than there are pixels")
    chunks = [(b"IHDR", header), (b"PLTE", b"\x0a\x14\x1e" * 2), (b"IDAT", pixels), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    samples = decode_picture(data, "x").pixels * 255
    np.testing.assert_allclose(samples, [[[10, 20, 30], [0, 0, 0]]], atol=1e-4)
    assert capfd.readouterr().err == ""


def test_a_side_beyond_what_libpng_takes_is_refused_in_silence(capfd):
    header = struct.pack(">IIBBBBB", 1_000_001, 1, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1_000_002))), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    with pytest.raises(UserError, match="its header claims 1000001 × 1 pixels"):
        decode_picture(data, "x")
    assert capfd.readouterr().err == ""


def patched_tiff(name: str, **values: int) -> bytes:
    """A TIFF of the corpus with the first value of some tags overwritten."""
    data = bytearray(corpus()[f"tif {name}"])
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        for tag, value in values.items():
            entry = tiff.pages.first.tags[tag]
            struct.pack_into({3: "<H", 4: "<I"}[entry.dtype], data, entry.valueoffset, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("None <", {"ImageLength": 27, "RowsPerStrip": 14}, "it needs 2 strips or tiles and lists 1"),
        ("None <", {"StripOffsets": 20_000}, "truncated: its strips or tiles lie outside the file"),
        ("lzw <", {"StripByteCounts": 0}, "lie outside the file"),
        ("tiles", {"TileWidth": 60_000, "TileLength": 60_000}, "it claims tiles of 60000 × 60000 pixels"),
        ("tiles", {"TileWidth": 0}, "damaged"),
        ("None <", {"Compression": 34934}, "TIFF compression 34934 is not supported; save it as LZW"),
        ("None <", {"PhotometricInterpretation": 10}, "TIFF colour model 10 is not supported; convert"),
        ("None <", {"SamplesPerPixel": 2}, "damaged|claims 2 channels"),
    ],
)
def test_what_a_tiff_claims_is_checked_before_it_is_believed(name, values, message):
    with pytest.raises(UserError, match=message):
        decode_picture(patched_tiff(name, **values), "x")


def test_what_decoders_warn_of_stays_silent():
    with warnings.catch_warnings(record=True) as noise, third_party():
        warnings.warn_explicit("noise", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
    assert not noise
    assert not logging.getLogger("tifffile").isEnabledFor(logging.CRITICAL)


def test_a_jpeg_of_endless_scans_is_refused():
    data = corpus()["jpg progressive"]
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(UserError, match="more than 200 scans"):
        decode_picture(data[:-2] + scan * 300 + data[-2:], "x")


def test_a_truncated_file_of_any_format_is_refused():
    for name, data in corpus().items():
        if "animated" in name or name in ("jpg of two", "jxl of ours"):
            continue  # the picture comes first, and may be whole
        for length in (len(data) // 3, len(data) * 2 // 3):
            with pytest.raises(UserError, match=r"damaged|truncated"):
                decode_picture(data[:length], "x")


def test_too_many_bytes_are_refused_before_they_are_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(1 << 40)  # a hole: costs no disk
    with pytest.raises(UserError, match="more than any picture within the limit needs"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(UserError, match="more than any picture"):
        decode_picture(b"\x89PNG\r\n\x1a\n" + bytes((64 << 20) + 2000), "x", max_pixels=100)


def test_reading_reserves_no_more_than_the_file(tmp_path):
    """A file object's `read` allocates what it is asked for; 8 GB, the limit, would be refused on a small machine."""
    (tmp_path / "a.png").write_bytes(corpus()["png RGB"])
    tracemalloc.start()
    try:
        read_picture(tmp_path / "a.png")
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_a_broken_decoder_is_one_line_with_a_cure(monkeypatch):
    def stumble(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines \x1b[31mand colour")

    monkeypatch.setattr(imagecodecs, "png_decode", stumble)
    with pytest.raises(UserError) as caught:
        decode_picture(corpus()["png RGB"], "x")
    assert str(caught.value) == "x: damaged (two lines ?[31mand colour); copy or download it again"


def test_a_decoder_that_stumbles_gives_no_python_jargon(monkeypatch):
    def stumble(*_: object, **__: object) -> None:
        raise TypeError("unsupported operand type(s) for //: 'tuple' and 'int'")

    monkeypatch.setattr(imagecodecs, "png_decode", stumble)
    with pytest.raises(UserError, match=r"^x: damaged; copy or download it again$"):
        decode_picture(corpus()["png RGB"], "x")


def test_no_memory_is_one_line(monkeypatch):
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(imagecodecs, "png_decode", exhausted)
    with pytest.raises(UserError, match=r"^x: not enough memory to read it"):
        decode_picture(corpus()["png RGB"], "x")


# --- Fuzzing ------------------------------------------------------------------------------------------------


def decode_mutants(first: int, count: int) -> None:
    """In a process of its own: decode so many mutants under the limit of memory, and say how it went."""
    import resource

    files = corpus()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    tally = {"read": 0, "refused": 0}
    for number in range(first, first + count):
        name, data = mutant(number, files)
        print("mutant", name, flush=True)
        tally[judge(name, data)] += 1
    print("giants", flush=True)
    for name, data in giants().items():
        judge(name, data, MAX_PIXELS)
    print(tally["read"], tally["refused"], flush=True)


def assert_mutants_are_survived(first: int, count: int) -> None:
    command = [sys.executable, __file__, str(first), str(count)]
    done = subprocess.run(command, capture_output=True, text=True)  # pytest's timeout ends a hang
    lines = done.stdout.splitlines() or ["nothing"]
    assert done.returncode == 0, f"died with {done.returncode} at {lines[-1]}: {done.stderr[-2000:]}"
    assert done.stderr == "", "decoders must not write to stderr"
    read, refused = map(int, lines[-1].split())
    assert read + refused == count
    # Or the mutants prove nothing: some must get through the decoders, most must not.
    assert read > count / 10
    assert refused > count / 3


def test_hundreds_of_mutants_are_read_or_refused_in_one_line():
    assert_mutants_are_survived(0, 600)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "last"), list(pairwise(range(1000, 31_001, 6000))))
def test_thousands_of_mutants_are_read_or_refused_in_one_line(first, last):
    assert_mutants_are_survived(first, last - first)


def test_every_format_is_among_the_mutants():
    assert {decode_picture(data, "x").format for data in corpus().values()} == set(CODECS)


if __name__ == "__main__":
    decode_mutants(*map(int, sys.argv[1:3]))
