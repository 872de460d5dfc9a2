"""What files hold beside plain sRGB samples: carried, or told; the codecs of others judge."""

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from restormer_cli.images.formats.exif_icc import read_ifd
from restormer_cli.images.formats.jpeg_xl import read_jxl
from restormer_cli.images.formats.png import png_chunk
from restormer_cli.images.io import Picture, check_writable, decode_picture, encode_picture, picture_size, read_picture

FILES = Path(__file__).parent / "files"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" xmp:Rating="4"/></x:xmpmeta>'
GRAY = np.full((24, 40, 3), 128, np.uint8)


def png(*chunks: tuple[bytes, bytes], samples: np.ndarray = GRAY) -> Picture:
    data = bytes(imagecodecs.png_encode(samples))
    return decode_picture(data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:], "in.png")


def again(picture: Picture, form: str, **options: object) -> Picture:
    return decode_picture(encode_picture(picture.pixels, picture, form, **options), f"out.{form}")  # pyright: ignore


# --- Colours ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_jpeg_xl_is_declared_as_what_it_is(dtype, lossless, channels):
    ramp = np.linspace(0, 1, 24 * 40 * channels, dtype=np.float32).reshape(24, 40, channels)
    stored = (ramp * 65535).astype(np.uint16) if dtype is np.uint16 else ramp
    out = io.BytesIO()
    tifffile.imwrite(
        out, stored[..., 0] if channels == 1 else stored, photometric="minisblack" if channels == 1 else "rgb"
    )
    picture = decode_picture(out.getvalue(), "in.tif")
    data = encode_picture(picture.pixels, picture, "jxl", lossless=lossless)
    assert read_jxl(data).cicp == (1, 13)
    back = decode_picture(data, "out.jxl")
    assert np.abs(back.pixels - picture.pixels).mean() < (1e-6 if lossless else 0.01)


def test_a_lossy_jpeg_xl_with_a_profile_is_as_bright_as_it_was():
    picture = read_picture(FILES / "icc_lossy.jxl")
    assert 0.33 < picture.pixels.mean() < 0.43  # as linear light: 0.16
    assert any("converted from its profile" in note for note in picture.notes)


@pytest.mark.parametrize(("name", "cicp"), [("p3.avif", (12, 13)), ("pq10.avif", (9, 16))])
def test_an_avif_keeps_primaries_and_transfer(name, cicp):
    picture = read_picture(FILES / name)
    assert picture.colour == ((b"cICP", bytes([*cicp, 0, 1])),)
    assert again(picture, "avif").colour == picture.colour
    assert again(picture, "png").colour == picture.colour
    assert any("cannot say what its colours mean" in note for note in check_writable("out.jpg", picture))


LINEAR = (b"gAMA", struct.pack(">I", 100_000))
PQ = (b"cICP", bytes([9, 16, 0, 1]))
P3 = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))


@pytest.mark.parametrize("chunk", [LINEAR, PQ, P3])
@pytest.mark.parametrize("target", ["out.jpg", "out.tif", "out.webp"])
def test_colours_that_a_format_cannot_say_are_told(chunk, target):
    assert any("colours" in note for note in check_writable(target, png(chunk)))
    assert not check_writable("out.png", png(chunk))
    assert not check_writable(target, png((b"gAMA", struct.pack(">I", 45455))))


def test_linear_light_stays_linear_in_a_deep_jpeg_xl():
    picture = png(LINEAR, samples=GRAY.astype(np.uint16) * 257)
    data = encode_picture(picture.pixels, picture, "jxl", lossless=True)
    assert read_jxl(data).cicp == (1, 8)
    assert decode_picture(data, "x.jxl").colour == ((b"cICP", bytes([1, 8, 0, 1])),)


def test_png_keeps_light_levels_and_significant_bits():
    chunks = ((b"mDCV", bytes(24)), (b"cLLI", bytes(8)), (b"sBIT", b"\5\6\5"))
    assert again(png(*chunks), "png").colour == chunks


def test_significant_bits_of_other_channels_are_not_written():
    picture = png((b"sBIT", b"\5\6\5"))
    data = encode_picture(picture.pixels[..., :1], picture, "png")
    assert b"sBIT" not in data


def test_a_deep_avif_is_written_at_a_bearable_speed(monkeypatch):
    picture, given = read_picture(FILES / "pq10.avif"), {}
    encode = imagecodecs.avif_encode
    monkeypatch.setattr(imagecodecs, "avif_encode", lambda *a, **more: given.update(more) or encode(*a, **more))
    encode_picture(picture.pixels, picture, "avif")
    assert given["speed"] == 6


# --- Depths and densities -----------------------------------------------------------------------------------


def test_a_jpeg_of_12_bits_is_read():
    ramp = np.repeat(np.linspace(0, 4095, 64).astype(np.uint16)[None, :], 32, axis=0)
    picture = decode_picture(bytes(imagecodecs.jpeg8_encode(ramp, level=98, bitspersample=12)), "deep.jpg")
    assert picture.bits == 12
    assert np.abs(picture.pixels[..., 0] * 4095 - ramp).max() < 40


def test_a_bmp_keeps_its_transparency():
    rgba = np.random.default_rng(0).integers(0, 256, (9, 13, 4), dtype=np.uint8)
    picture = decode_picture(bytes(imagecodecs.png_encode(rgba)), "a.png")
    data = encode_picture(picture.pixels, picture, "bmp")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")), rgba)
    back = decode_picture(data, "a.bmp")
    assert back.alpha is not None
    assert np.array_equal(back.alpha, rgba[..., 3:])


@pytest.mark.parametrize("masks", [(0x7C00, 0x3E0, 0x1F, 0x8000), (0xF00, 0xF0, 0xF, 0xF000)])
def test_a_bmp_of_16_bits_with_alpha_is_read(masks):
    rows = np.random.default_rng(1).integers(0, 65536, (6, 8), dtype=np.uint16)
    header = struct.pack("<IiiHHIIiiII4I", 108, 8, 6, 1, 16, 3, rows.nbytes, 0, 0, 0, 0, *masks).ljust(108, b"\0")
    data = struct.pack("<2sIHHI", b"BM", 122 + rows.nbytes, 0, 0, 122) + header + rows.tobytes()
    picture = decode_picture(data, "a.bmp")
    low = masks[1] & -masks[1]
    expected = np.rint((rows[::-1] & masks[1]) / low * (255 / (masks[1] // low)))
    assert picture.alpha is not None
    visible = picture.alpha[..., 0] > 0
    assert np.allclose(picture.pixels[..., 1][visible] * 255, expected[visible], atol=0.01)
    assert picture.alpha.shape == (6, 8, 1)


def test_no_density_is_invented():
    exif = Image.Exif()
    exif[271] = "Maker"
    out = io.BytesIO()
    Image.fromarray(GRAY).save(out, "JPEG", exif=exif)
    assert decode_picture(out.getvalue(), "a.jpg").dpi is None
    out = io.BytesIO()
    Image.fromarray(GRAY).save(out, "JPEG", exif=exif, dpi=(300, 300))
    assert decode_picture(out.getvalue(), "a.jpg").dpi == (300, 300)


# --- Beside the pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["png", "jpg", "tif", "webp", "avif", "jxl"])
def test_xmp_goes_from_format_to_format_and_is_upright(form):
    first = again(png((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))), form)
    assert first.beside.xmp is not None
    assert first.beside.xmp.rstrip(b"\0") == XMP.replace(b'Orientation="6"', b'Orientation="1"')
    assert again(first, "png").beside.xmp == first.beside.xmp
    assert not any("XMP" in note for note in check_writable(f"out.{form}", first))
    assert any("XMP" in note for note in check_writable("out.bmp", first))


def test_png_text_stays_in_png_and_is_told_elsewhere():
    chunks = ((b"tEXt", b"workflow\0{}"), (b"iTXt", b"Title\0\0\0\0\0A title"))
    picture = png(*chunks)
    assert again(picture, "png").beside.text == chunks
    assert any("text (Title, workflow)" in note for note in check_writable("out.jpg", picture))


def test_keywords_and_comments_of_a_jpeg_are_kept():
    picture = read_picture(FILES / "photo.jpg")
    held = picture.beside
    assert held.iptc
    assert held.xmp
    assert held.comment
    back = again(picture, "jpg").beside
    assert (back.iptc, back.xmp, back.comment) == (held.iptc, held.xmp, held.comment)
    assert again(picture, "tif").beside.iptc == held.iptc
    notes = check_writable("out.webp", picture)
    assert any("IPTC and comment" in note for note in notes)


def test_drone_and_panorama_data_are_kept():
    picture = read_picture(FILES / "panorama.jpg")
    assert b"GPano" in (again(picture, "jpg").beside.xmp or b"")


def test_a_gain_map_is_told_and_no_longer_claimed():
    picture = read_picture(FILES / "ultrahdr.jpg")
    assert any("gain map is not kept" in note for note in picture.notes)
    assert b"hdrgm:Version=" not in (picture.beside.xmp or b"")


def test_a_motion_photo_is_told():
    out = io.BytesIO()
    Image.fromarray(GRAY).save(out, "JPEG", xmp=b'<rdf:Description GCamera:MotionPhoto="1" xmp:Rating="5"/>')
    picture = decode_picture(out.getvalue() + b"\0\0\0\x18ftypmp42" + bytes(64), "motion.jpg")
    assert any("video of the motion photo" in note for note in picture.notes)
    assert picture.beside.xmp == b'<rdf:Description xmp:Rating="5"/>'


# --- TIFF ---------------------------------------------------------------------------------------------------


def tiff(*, big: bool = False, **options: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, GRAY, photometric="rgb", metadata=None, bigtiff=big, **options)  # pyright: ignore
    return out.getvalue()


def test_georeference_is_kept():
    tags = [(33550, 12, 3, (0.5, 0.5, 0.0), True), (34735, 3, 4, (1, 1, 0, 0), True), (42113, 2, 6, "-9999", True)]
    picture = decode_picture(tiff(extratags=tags), "geo.tif")
    page = tifffile.TiffFile(io.BytesIO(encode_picture(picture.pixels, picture, "tif"))).pages.first
    assert page.tags[33550].value == (0.5, 0.5, 0.0)
    assert page.tags[34735].value == (1, 1, 0, 0)
    assert page.tags[42113].value == "-9999"
    assert any("georeference" in note for note in check_writable("out.png", picture))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_in_a_tiff_is_copied_as_it_is(big, order):
    """Interoperability within EXIF, a maker's note by absolute offset; BigTIFF likewise."""
    note = b"MAKER" + bytes(range(40))
    head, entry, field, offset = ("Q", "HHQ", 8, "Q") if big else ("H", "HHI", 4, "I")

    def directory(*rows: tuple[int, int, int, bytes]) -> bytes:
        body = b"".join(struct.pack(order + entry, *row[:3]) + row[3].ljust(field, b"\0") for row in rows)
        return struct.pack(order + head, len(rows)) + body + bytes(field)

    first = tiff(big=big, byteorder=order)
    data = bytearray(first)
    page = tifffile.TiffFile(io.BytesIO(first)).pages.first
    at_note = len(data)
    data += note + bytes(len(note) % 2)
    at_interop = len(data)
    data += directory((1, 2, 4, b"R03\0"))
    at_exif = len(data)
    place = {name: struct.pack(order + offset, at) for name, at in (("n", at_note), ("i", at_interop), ("e", at_exif))}
    data += directory((37500, 7, len(note), place["n"]), (40965, 4, 1, struct.pack(order + "I", at_interop)))
    rows, step = [], 20 if big else 12
    count = struct.unpack_from(order + head, data, page.offset)[0]
    for index in range(count):
        row = page.offset + (8 if big else 2) + index * step
        rows.append((*struct.unpack_from(order + entry, data, row), bytes(data[row + step - field : row + step])))
    at_main = len(data)
    data += directory(*rows, (34665, 4, 1, struct.pack(order + "I", at_exif)))
    struct.pack_into(order + offset, data, 8 if big else 4, at_main)

    picture = decode_picture(bytes(data), "in.tif")
    assert not any("damaged" in text for text in picture.notes)
    exif = picture.exif
    assert exif is not None
    assert exif[at_note : at_note + len(note)] == note
    loaded = Image.Exif()
    loaded.load(b"Exif\0\0" + exif)
    assert loaded.get_ifd(34665)[37500] == note
    assert b"R03\0" in exif
    assert read_ifd(exif).order == order


def test_a_bigtiff_without_exif_is_not_called_damaged():
    assert decode_picture(tiff(big=True), "big.tif").notes == ()


def test_a_description_of_pages_that_are_not_there_is_not_kept():
    out = io.BytesIO()
    tifffile.imwrite(out, np.zeros((5, 24, 40), np.uint8), imagej=True)
    picture = decode_picture(out.getvalue(), "stack.tif")
    data = encode_picture(picture.pixels, picture, "tif")
    assert tifffile.imread(io.BytesIO(data)).shape == (24, 40)
    assert any("speaks of all its pages" in note for note in picture.notes)


def test_the_picture_is_read_and_not_the_thumbnail_before_it(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as film:
        film.write(np.zeros((16, 24, 3), np.uint8), photometric="rgb", subfiletype=1, metadata=None)
        film.write(np.full((64, 96, 3), 9, np.uint8), photometric="rgb", metadata=None)
    picture = read_picture(path)
    assert picture.pixels.shape == (64, 96, 3)
    assert picture_size(path) == (64, 96)
    assert any("thumbnail" in note for note in picture.notes)


@pytest.mark.parametrize(("top", "told"), [(255.0, True), (65535.0, True), (6.4, True), (1.0, False)])
def test_floats_that_do_not_end_at_one_are_told(top, told):
    out = io.BytesIO()
    tifffile.imwrite(out, np.linspace(0, top, 24 * 40 * 3, dtype=np.float32).reshape(24, 40, 3), photometric="rgb")
    assert any("values reach" in note for note in decode_picture(out.getvalue(), "f.tif").notes) == told
