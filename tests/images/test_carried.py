"""What files hold beside plain sRGB samples: carried, or told; the codecs of others judge."""

import io
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from restormer_cli.errors import UserError
from restormer_cli.images.colour import Working, make_icc, of_code, read_colour
from restormer_cli.images.formats.exif_icc import read_ifd
from restormer_cli.images.formats.jpeg_xl import decode_jxl, encode_jxl, jxl_keeps, read_jxl
from restormer_cli.images.formats.png import png_chunk
from restormer_cli.images.formats.raster import Beside, Options, Raster
from restormer_cli.images.formats.table import CODECS
from restormer_cli.images.io import Picture, check_writable, decode_picture, encode_picture, picture_size, read_picture
from restormer_cli.images.provenance import signed, stripped

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
    assert looks_alike(again(picture, "jpg"), picture)


LINEAR = (b"gAMA", struct.pack(">I", 100_000))
PQ = (b"cICP", bytes([9, 16, 0, 1]))
P3 = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))


def looks_alike(one: Picture, other: Picture) -> bool:
    """Whether the two show the same, each by what it says of its numbers."""
    seen = []
    for picture in (one, other):
        colour = read_colour(picture.icc, picture.colour, picture.exif)
        seen.append(np.clip(picture.pixels if colour is None else Working(1.0, colour).convert(picture.pixels), 0, 1))
    return bool(np.abs(seen[0] - seen[1]).mean() < 0.03)


@pytest.mark.parametrize(
    "chunk", [LINEAR, PQ, P3, (b"gAMA", struct.pack(">I", 45455)), (b"cICP", bytes([9, 18, 0, 1]))]
)
@pytest.mark.parametrize("target", ["jpg", "tif", "webp", "bmp", "jxl", "avif", "png"])
@pytest.mark.parametrize("deep", [False, True])
def test_colours_mean_the_same_in_every_format(chunk, target, deep):
    y, x = np.mgrid[:48, :64]
    samples = np.stack([90 + x, 80 + y, 120 + x // 2], axis=-1).astype(np.uint8)
    picture = png(chunk, samples=samples.astype(np.uint16) * 257 if deep else samples)
    result = again(picture, target)
    assert looks_alike(result, picture), check_writable(f"out.{target}", picture)
    told = any("colours" in note for note in check_writable(f"out.{target}", picture))
    kept = target in ("png", "avif", "jxl")
    srgb = chunk[1] == struct.pack(">I", 45455)
    hdr = chunk[0] == b"cICP"
    assert told == (not (kept or srgb) and (hdr or target == "bmp"))


def test_a_profile_that_a_format_cannot_hold_is_converted():
    wide = of_code(9, 13)
    assert wide is not None
    out = io.BytesIO()
    samples = np.linspace(9000, 50000, 24 * 40 * 3).reshape(24, 40, 3).astype(np.uint16)
    tifffile.imwrite(out, samples, photometric="rgb", iccprofile=make_icc(wide, "wide"))
    picture = decode_picture(out.getvalue(), "in.tif")
    for form, told in (("bmp", True), ("jxl", False), ("avif", False)):  # H.273 has a number for this one
        assert looks_alike(again(picture, form), picture)
        assert any("converted to sRGB" in note for note in check_writable(f"a.{form}", picture)) == told


def test_counted_floats_are_scaled_where_there_are_no_floats():
    out = io.BytesIO()
    ramp = np.linspace(0, 65535, 24 * 40 * 3, dtype=np.float32).reshape(24, 40, 3)
    tifffile.imwrite(out, ramp, photometric="rgb")
    picture = decode_picture(out.getvalue(), "in.tif")
    assert np.abs(again(picture, "png").pixels - ramp / 65535).max() < 1e-4
    assert np.array_equal(again(picture, "tif").pixels, ramp)


def test_linear_light_stays_linear_in_a_deep_jpeg_xl():
    picture = png(LINEAR, samples=GRAY.astype(np.uint16) * 257)
    data = encode_picture(picture.pixels, picture, "jxl", lossless=True)
    assert read_jxl(data).cicp == (1, 8)
    assert decode_picture(data, "x.jxl").colour == ((b"cICP", bytes([1, 8, 0, 1])),)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize(("kind", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("cicp", [(12, 13), (9, 16), (9, 18), (9, 13), (1, 8)])
def test_jpeg_xl_says_what_its_colours_are(cicp, channels, kind, top, lossless):
    y, x = np.mgrid[:48, :64] / 64
    ramp = np.stack([0.3 + 0.1 * x, 0.35 + 0.1 * y, 0.4 - 0.1 * x, 0.5 + 0.3 * x], axis=-1)
    wanted = ramp[..., :channels] * top
    samples = (wanted if top == 1 else np.rint(wanted)).astype(kind)
    chunk = ((b"cICP", bytes([*cicp, 0, 1])),)
    bits = {255: 8, 65535: 16, 1: 32}[top]
    assert jxl_keeps(chunk, bits, lossless)
    data = encode_jxl(Raster(samples, bits, colour=chunk), Options(95, "4:4:4", lossless))
    result = decode_jxl(data, 10_000)
    primaries, transfer = cicp if channels > 1 else (1, cicp[1])
    assert read_jxl(data).cicp == (primaries, transfer)
    assert (result.bits, result.lossless, result.samples.shape) == (bits, lossless, samples.shape)
    if lossless:
        assert np.array_equal(result.samples, samples)
    assert np.abs(result.samples.astype(float) - samples).mean() < 0.006 * top


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jxlinfo") is None, reason="needs Debian's libjxl-tools")
@pytest.mark.parametrize("lossless", [True, False])
def test_debians_tools_see_the_colours_of_jpeg_xl(tmp_path, lossless):
    y, x = np.mgrid[:48, :64] / 64
    ramp = np.rint(np.stack([0.3 + 0.1 * x, 0.35 + 0.1 * y, 0.4 - 0.1 * x], axis=-1) * 65535).astype(np.uint16)
    names = {(12, 13): "P3 primaries, sRGB", (9, 16): "Rec.2100 primaries, PQ", (9, 18): "Rec.2100 primaries, HLG"}
    path, shown = tmp_path / "a.jxl", tmp_path / "a.png"
    for cicp, words in names.items():
        chunk = ((b"cICP", bytes([*cicp, 0, 1])),)
        path.write_bytes(encode_jxl(Raster(ramp, 16, colour=chunk), Options(95, "4:4:4", lossless)))
        told = subprocess.run(["jxlinfo", path], capture_output=True, text=True, check=True).stdout
        assert f"RGB, D65, {words} transfer function" in told
        subprocess.run(["djxl", path, shown, "--bits_per_sample=16"], capture_output=True, check=True)
        seen = imagecodecs.png_decode(shown.read_bytes()).astype(float)
        assert np.abs(seen - ramp).mean() < (1 if lossless else 0.006 * 65535)


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


def raw_profile(name: bytes, body: bytes, packed: bool) -> tuple[bytes, bytes]:
    """As ImageMagick, GIMP and exiv2 write it: hexadecimal digits in lines of 72."""
    digits = body.hex().encode()
    spelled = b"\n%s\n%8d\n" % (name, len(body))
    spelled += b"".join(digits[at : at + 72] + b"\n" for at in range(0, len(digits), 72))
    keyword = b"Raw profile type " + name + b"\0"
    return (b"zTXt", keyword + b"\0" + zlib.compress(spelled)) if packed else (b"tEXt", keyword + spelled)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", [b"exif", b"APP1"])
def test_exif_spelled_in_png_text_is_exif(packed, name, tmp_path):
    made = Image.Exif()
    made[0x0112], made[0x010F] = 6, "A maker"
    data = bytes(imagecodecs.png_encode(GRAY))
    chunk = png_chunk(*raw_profile(name, made.tobytes(), packed))
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    picture = read_picture(tmp_path / "a.png")
    assert picture.pixels.shape == (40, 24, 3)  # turned, once
    assert picture_size(tmp_path / "a.png") == (40, 24)
    result = again(picture, "png")
    assert result.pixels.shape == (40, 24, 3)
    assert result.exif is not None
    assert b"A maker" in result.exif
    assert result.beside.text == ()


def test_iptc_goes_from_jpeg_to_png_and_back():
    picture = read_picture(FILES / "photo.jpg")
    assert picture.beside.iptc
    there = again(picture, "png")
    assert there.beside.iptc == picture.beside.iptc
    assert again(there, "jpg").beside.iptc == picture.beside.iptc


def test_a_spelled_profile_that_is_damaged_costs_a_note():
    kind, body = raw_profile(b"exif", b"II*\0" + bytes(20), False)
    picture = png((kind, body[:-9] + b"zz\n"))
    assert picture.exif is None
    assert any("damaged" in note for note in picture.notes)


def test_long_xmp_of_a_jpeg_is_kept_in_jpeg_and_told_elsewhere():
    extended = b"<x:xmpmeta>" + bytes(range(32, 127)) * 1500 + b"</x:xmpmeta>"
    base = png()
    base = replace(base, beside=Beside(xmp=XMP, extended=extended))
    data = encode_picture(base.pixels, base, "jpg")
    assert b"HasExtendedXMP" in data
    picture = decode_picture(data, "a.jpg")
    assert picture.beside.extended == extended
    assert again(picture, "jpg").beside.extended == extended
    assert picture.beside.xmp is not None
    assert b"HasExtendedXMP" not in picture.beside.xmp  # other formats have no segments to point to
    assert any("extended XMP" in note for note in check_writable("a.png", picture))


@pytest.mark.parametrize("form", ["jpg", "png", "tif", "webp", "avif", "jxl", "heic", "dng"])
def test_strip_takes_everything_but_what_colours_mean(form):
    picture = read_picture(FILES / "photo.jpg")
    assert picture.exif or picture.beside.xmp
    wide = of_code(9, 13)
    assert wide is not None
    bare = stripped(replace(picture, icc=make_icc(wide, "wide")))
    result = decode_picture(encode_picture(bare.pixels, bare, form), f"a.{form}")
    assert (result.exif, result.beside) == (None, Beside())
    assert (result.icc == bare.icc) == (form not in ("jxl", "dng"))  # by numbers in one, converted in the other


@pytest.mark.parametrize("form", ["jpg", "png", "tif", "webp", "avif", "jxl", "heic"])
def test_sign_says_what_made_it(form):
    for picture in (read_picture(FILES / "photo.jpg"), png()):
        mine = signed(picture, "9.8.7", "denoise <25>")
        result = decode_picture(encode_picture(mine.pixels, mine, form), f"a.{form}")
        assert result.exif is not None
        read = Image.Exif()
        read.load(b"Exif\0\0" + result.exif)
        assert read[305] == "restormer-cli 9.8.7, denoise <25>"
        assert result.beside.xmp is not None
        fields = ElementTree.fromstring(result.beside.xmp[result.beside.xmp.index(b"<x:") :].partition(b"<?xpacket")[0])
        said = [row.attrib for row in fields.iter() if any("restormer" in key for key in row.attrib)]
        assert {key.rpartition("}")[2]: value for key, value in said[0].items()} | {"about": ""} == {
            "about": "", "software": "restormer-cli", "version": "9.8.7", "task": "denoise <25>",
        }  # fmt: skip
        if picture.exif:
            before = Image.Exif()
            before.load(b"Exif\0\0" + picture.exif)
            kept = set(before) & {
                270,
                271,
                272,
                306,
                315,
                33432,
            }  # what says something of the picture, not of its bytes
            assert {tag: read[tag] for tag in kept} == {tag: before[tag] for tag in kept}


def test_the_table_of_what_is_kept_is_true():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.count("|") == 10
    ]
    heading, _, *rows = rows
    assert len(rows) == len(CODECS)
    wide, made = of_code(9, 13), Image.Exif()
    assert wide is not None
    made[0x010F] = "A maker"
    y, x = np.mgrid[:48, :64]
    full = replace(
        png(samples=np.stack([90 + x, 80 + y, 120 + x // 2], axis=-1).astype(np.uint8)),
        exif=made.tobytes().removeprefix(b"Exif\0\0"),
        beside=Beside(xmp=XMP.replace(b'"6"', b'"1"'), iptc=b"\x1c\x02\x19\0\3sun", text=((b"tEXt", b"Title\0sun"),)),
    )
    kept = {"EXIF": "exif", "ICC profile": "icc", "XMP": "xmp", "IPTC": "iptc", "text": "text"}
    for name, *cells in rows:
        form = {"TIFF": "tif", "JPEG": "jpg", "JPEG XL": "jxl"}.get(name, name.lower())
        for column, cell in zip(heading[1:], cells, strict=True):
            where = f"{name}, {column}"
            if column in ("gain map", "film"):  # of a phone's JPEG, which goes into this format
                phone = read_picture(FILES / ("ultrahdr.jpg" if column == "gain map" else "motion.jpg"))
                assert any("gain map" in note or "motion photo" in note for note in phone.notes), where
                assert cell == "told", where
                continue
            profile = make_icc(wide, "wide") if column == "ICC profile" else None
            chunks = ((b"cICP", bytes([9, 13, 0, 1])),) if column == "colours by numbers" else ()
            picture = replace(full, icc=profile, colour=chunks)
            result = decode_picture(encode_picture(picture.pixels, picture, form), f"a.{form}")
            told = " ".join(check_writable(f"a.{form}", picture))
            if column in kept:
                field = kept[column]
                seen = getattr(result, field) if field in ("exif", "icc") else getattr(result.beside, field)
                there = "yes" if seen else "converted" if "converted to sRGB" in told else "told"
                there = "by numbers" if profile and result.colour else there
                assert there == cell, where
                assert cell != "told" or column in told, where
            else:
                there = "yes" if result.colour == chunks else "by profile" if result.icc else "converted"
                assert there == cell, where
                assert looks_alike(result, picture), where


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_ends_too_early_is_salvaged_when_asked(tmp_path, progressive):
    out = io.BytesIO()
    Image.effect_noise((96, 128), 60).convert("RGB").save(out, "JPEG", progressive=progressive, quality=90)
    whole = decode_picture(out.getvalue(), "a.jpg").pixels
    path = tmp_path / "a.jpg"
    path.write_bytes(out.getvalue()[: int(0.7 * len(out.getvalue()))])
    with pytest.raises(UserError, match=r"truncated: the file ends too early; .* take what is there of it: --salvage$"):
        read_picture(path)
    picture = read_picture(path, salvage=True)
    assert picture.pixels.shape == whole.shape
    assert any("ends too early" in note for note in picture.notes)
    if not progressive:
        assert np.array_equal(picture.pixels[:64], whole[:64])
    path.write_bytes(out.getvalue()[:100])
    with pytest.raises(UserError):
        read_picture(path, salvage=True)


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


def test_the_first_of_two_descriptions_is_kept():
    """tifffile writes its own behind that of `description=`."""
    out = io.BytesIO()
    tifffile.imwrite(out, GRAY, photometric="rgb", description="a lake")
    picture = decode_picture(out.getvalue(), "a.tif")
    page = tifffile.TiffFile(io.BytesIO(encode_picture(picture.pixels, picture, "tif"))).pages.first
    assert page.description == "a lake"


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


@pytest.mark.parametrize(
    ("ends", "clipped"),
    [
        ((0, 6.4), "what lies beyond white is clipped"),
        ((-0.5, 1), "what lies below black is clipped"),
        ((-0.5, 2.5), "what lies below black or beyond white is clipped"),
        ((0, 255), None),
        ((0, 1.001), None),
    ],
)
def test_floats_that_integers_clip_are_told(ends, clipped):
    out = io.BytesIO()
    tifffile.imwrite(
        out, np.linspace(ends[0], ends[1], 24 * 40 * 3, dtype=np.float32).reshape(24, 40, 3), photometric="rgb"
    )
    picture = decode_picture(out.getvalue(), "f.tif")
    assert not any("stays" in note for note in picture.notes)
    assert [loss for loss in check_writable("f.jpg", picture) if "clipped" in loss] == [clipped] * bool(clipped)
    assert not any("clipped" in loss for loss in check_writable("f.tif", picture))
