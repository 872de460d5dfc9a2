"""TIFF as scanners and archives write it: fax, JPEG 2000, WebP and CIE Lab, with the right values."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageSequence
from typer.testing import CliRunner, Result

from restormer_cli import cli
from restormer_cli.errors import UserError
from restormer_cli.images.formats import tiff as tiff_module
from restormer_cli.images.formats.raster import Beside, Raster
from restormer_cli.images.formats.tiff import encode_pages
from restormer_cli.images.io import decode_picture, read_pages, write_pages


@pytest.fixture(scope="module")
def rgb(samples) -> np.ndarray:
    return samples(40, 56)


def by_pillow(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "TIFF", **options)
    return stream.getvalue()


def by_tifffile(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize("white", [0, 1])
@pytest.mark.parametrize("coding", ["group3", "group4", "tiff_ccitt"])
def test_a_fax_is_black_where_it_was(rgb, coding, white):
    page = rgb[..., 0] > 128
    picture = decode_picture(by_pillow(Image.fromarray(page), compression=coding, tiffinfo={262: 1 - white}), "a.tif")
    assert np.array_equal(picture.pixels[..., 0] > 0.5, page)
    assert set(np.unique(picture.pixels)) == {0, 1}
    assert picture.lossless


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_jpeg_2000_without_loss_is_exact(rgb, bits, tile):
    array = rgb if bits == 8 else rgb.astype(np.uint16) * 257
    picture = decode_picture(by_tifffile(array, photometric="rgb", compression="jpeg2000", tile=tile), "a.tif")
    assert (picture.bits, picture.lossless) == (bits, True)
    assert np.array_equal(np.rint(picture.pixels * (2**bits - 1)), array)


def test_lossy_codings_are_near_and_known_for_lossy(rgb):
    for coding, options in (("jpeg2000", {"level": 60}), ("webp", {"level": 90, "lossless": False})):
        data = by_tifffile(rgb, photometric="rgb", compression=coding, compressionargs=options)
        picture = decode_picture(data, "a.tif")
        assert not picture.lossless
        assert 0 < np.abs(picture.pixels * 255 - rgb).mean() < 4


def test_webp_without_loss_is_exact(rgb):
    data = by_tifffile(rgb, photometric="rgb", compression="webp", compressionargs={"lossless": True})
    picture = decode_picture(data, "a.tif")
    assert np.array_equal(np.rint(picture.pixels * 255), rgb)
    assert picture.lossless


def test_what_a_stream_claims_beyond_its_segment_is_refused(rgb):
    data = bytearray(by_tifffile(rgb, photometric="rgb", compression="jpeg2000"))
    at = data.index(b"\xff\x4f\xff\x51") + 8
    data[at : at + 4] = (60_000).to_bytes(4, "big")
    with pytest.raises(UserError, match="a strip or tile claims 60000 × 40 pixels within 56 × 40"):
        decode_picture(bytes(data), "a.tif")
    data = bytearray(by_tifffile(rgb, photometric="rgb", compression="webp", compressionargs={"lossless": True}))
    at = data.index(b"VP8L") + 9
    data[at : at + 2] = (16_000).to_bytes(2, "little")
    with pytest.raises(UserError, match="a strip or tile claims"):
        decode_picture(bytes(data), "a.tif")
    data = by_pillow(Image.fromarray(rgb[..., 0] > 128), compression="group4")
    with pytest.raises(UserError, match=r"damaged|truncated"):
        decode_picture(data.replace(b"\x02\x01\x03\0\x01\0\0\0\x01\0", b"\x02\x01\x03\0\x01\0\0\0\x08\0"), "a.tif")


COLOURS = {
    "white": ((100, 0, 0), (255, 255, 255)),
    "gray": ((53.585, 0, 0), (128, 128, 128)),
    "red": ((54.29, 80.80, 69.89), (255, 0, 0)),
    "blue": ((29.57, 68.30, -112.03), (0, 0, 255)),
}
"""CIE Lab under D50 of what sRGB has as these, adapted by Bradford."""


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["cielab", "icclab"])
def test_cie_lab_becomes_the_rgb_that_it_means(kind, bits):
    lab = np.array([[value for value, _ in COLOURS.values()]]).repeat(4, axis=0)
    step, top = (1, 255) if bits == 8 else (256, 65535)
    light = lab[..., :1] * ((65280 if kind == "icclab" and bits == 16 else top) / 100)
    ab = (lab[..., 1:] + (128 if kind == "icclab" else 0)) * step
    stored = np.rint(np.concatenate([light, ab], axis=2)).astype(np.int64) % (top + 1)
    data = by_tifffile(stored.astype(np.uint8 if bits == 8 else np.uint16), photometric=kind)
    picture = decode_picture(data, "a.tif")
    wanted = np.array([value for _, value in COLOURS.values()])
    assert picture.bits == bits
    assert "converted from CIE Lab to RGB" in picture.notes
    assert np.abs(picture.pixels[0] * 255 - wanted).max() < (6 if bits == 8 else 0.7)


def test_cie_lab_agrees_with_little_cms(rgb):
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")  # pyright: ignore
    lab = ImageCms.applyTransform(Image.fromarray(rgb), transform)
    assert lab is not None
    picture = decode_picture(by_pillow(lab), "a.tif")
    assert np.abs(picture.pixels * 255 - rgb).mean() < 1


def test_float_lab_is_refused_in_a_line(rgb):
    with pytest.raises(UserError, match="CIE Lab of 32 bits is not supported"):
        decode_picture(by_tifffile(rgb.astype(np.float32), photometric="cielab"), "a.tif")


def test_all_pages_are_restored_when_asked(tmp_path, rgb):
    source, out = tmp_path / "in" / "a.tif", tmp_path / "out"
    source.parent.mkdir()
    pages = [rgb, rgb[:24, :32, 0], (rgb[::-1].astype(np.uint16) * 257)]
    with tifffile.TiffWriter(source) as file:
        for page in pages:
            file.write(page, photometric="rgb" if page.ndim == 3 else "minisblack", resolution=(300, 300))
        file.write(rgb[::2, ::2], photometric="rgb", subfiletype=1)

    def restore(*flags: object) -> str:
        arguments = ["restore", tmp_path / "in", out, "--overwrite", "--device", "cpu", *flags]
        result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.stderr

    assert "3 pages" in restore("--strength", "0", "--pages", "all")
    with tifffile.TiffFile(out / "a.tif") as file:
        assert len(file.pages) == 3
        for page, wanted in zip(file.pages, pages, strict=True):
            assert np.array_equal(page.asarray(), wanted)
            assert page.asarray().dtype == wanted.dtype
            assert page.tags["XResolution"].value == (300_000, 1000)  # pyright: ignore
    restore("--degrade", "gaussian:9", "--pages", "all")
    changes = [tifffile.imread(out / "a.tif", key=key).astype(float) - pages[key] for key in (0, 1)]
    assert all(change.std() > 5 for change in changes)
    assert not np.array_equal(changes[0][:24, :32, 0], changes[1])  # each page has noise of its own
    assert "only the first is read" in restore("--strength", "0")
    assert "only the first is read" in restore("--strength", "0", "--pages", "all", "--ext", "png")
    flags = ["restore", str(source), str(out), "--overwrite", "--pages", "2"]
    assert "write --pages first or --pages all" in CliRunner().invoke(cli.app, flags).stderr


def test_all_pages_of_standard_input_are_restored(tmp_path, rgb):
    data = io.BytesIO()
    tifffile.imwrite(data, np.stack([rgb, rgb[::-1]]), photometric="rgb")

    def restore(target: Path | str) -> Result:
        flags = ["restore", "-", str(target), "--strength", "0", "--device", "cpu", "--pages", "all"]
        return CliRunner().invoke(cli.app, flags, input=data.getvalue())

    assert restore(tmp_path / "b.tif").exit_code == 0
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert len(file.pages) == 2
        assert np.array_equal(file.pages[1].asarray(), rgb[::-1])
    refused = restore("-")
    assert refused.exit_code == 2
    assert "error: --pages all: standard output takes one page: name a .tif to write to" in refused.stderr


def test_all_pages_together_are_held_to_the_limit(tmp_path, rgb):
    (tmp_path / "a.tif").write_bytes(by_tifffile(np.stack([rgb] * 3), photometric="rgb"))
    assert len(read_pages(tmp_path / "a.tif", max_pixels=3 * 40 * 56)) == 3
    with pytest.raises(UserError, match="more than the limit"):
        read_pages(tmp_path / "a.tif", max_pixels=2 * 40 * 56)


SUB = {33434: 0.25, 37386: 50.0}  # exposure time, focal length


def exif_of(endian: str, factor: float = 1, words: str = "words longer than four") -> bytes:
    exif = Image.Exif()
    exif.endian, exif[270], exif[285] = endian, words, "in front"
    exif.get_ifd(34665).update({tag: value * factor for tag, value in SUB.items()})
    return exif.tobytes()[6:]


def paged(path: Path, rgb: np.ndarray) -> None:
    """Three pages, each with texts, EXIF, XMP and a resolution of its own, the second with a profile."""
    arrays = [rgb, rgb[::-1, ::2], rgb[:24, :32, :1]]
    rasters = [
        Raster(
            np.ascontiguousarray(array),
            exif=exif_of("<>>"[number], number + 1, f"scan {number}"),
            beside=Beside(xmp=b"<x:xmpmeta>%d</x:xmpmeta>" % number),
            dpi=(100.0 * (number + 1), 100.0 * (number + 1)),
            icc=PROFILE if number == 1 else None,
        )
        for number, array in enumerate(arrays)
    ]
    path.write_bytes(encode_pages(rasters))


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def said(path: Path) -> list[dict[Any, Any]]:
    """What Pillow finds beside each page."""
    found = []
    with Image.open(path) as file:
        for page in ImageSequence.Iterator(file):
            tags = page.getexif()
            words = {tag: tags.get(tag) for tag in (270, 282, 285, 700, 305)}
            found.append({**words, **tags.get_ifd(34665), "icc": page.info.get("icc_profile")})
    return found


def test_every_page_keeps_what_is_said_beside_it(tmp_path, rgb):
    source, out = tmp_path / "a.tif", tmp_path / "out"
    paged(source, rgb)
    assert [page[33434] for page in said(source)] == [0.25, 0.5, 0.75]
    flags = ["restore", str(source), str(out) + "/", "--strength", "0", "--pages", "all", "--device", "cpu"]
    result = CliRunner().invoke(cli.app, flags)
    assert result.exit_code == 0, result.output
    assert said(out / "a.tif") == said(source)
    assert CliRunner().invoke(cli.app, [*flags, "--overwrite", "--strip"]).exit_code == 0
    assert all(page[270] is page[700] is None and 33434 not in page for page in said(out / "a.tif"))
    assert CliRunner().invoke(cli.app, [*flags, "--overwrite", "--sign"]).exit_code == 0
    assert all("restormer-cli" in page[305] and 33434 in page for page in said(out / "a.tif"))


def test_pages_in_the_other_byte_order_keep_their_exif(tmp_path, rgb):
    rasters = [Raster(rgb), *[Raster(rgb, exif=exif_of(endian)) for endian in "<>"]]
    for order in (rasters, rasters[::-1]):
        (tmp_path / "a.tif").write_bytes(encode_pages(order))
        pages = [page for page in said(tmp_path / "a.tif") if page[270]]
        assert [{tag: page[tag] for tag in SUB} for page in pages] == [SUB, SUB]


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True, "metadata": {"axes": "ZYX"}}, {}])
def test_a_stack_stays_a_stack_when_all_of_it_is_there(tmp_path, rgb, options):
    stack = np.stack([rgb[..., 0]] * 5)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", **options)
    pages = read_pages(tmp_path / "a.tif")
    write_pages(tmp_path / "b.tif", [(page.pixels, page) for page in pages])
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), stack)
    with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(tmp_path / "b.tif") as after:
        assert before.pages.first.description == after.pages.first.description != ""
    one = decode_picture((tmp_path / "a.tif").read_bytes(), "a.tif")
    assert any("speaks of all its pages" in note for note in one.notes)


def test_a_dry_run_plans_every_page_and_json_counts_them(tmp_path, rgb):
    paged(tmp_path / "a.tif", rgb)
    sizes = [(56, 40), (28, 40), (32, 24)]
    flags = ["restore", str(tmp_path / "a.tif"), str(tmp_path / "out") + "/", "--pages", "all", "--json"]
    planned = CliRunner().invoke(cli.app, [*flags, "--dry-run", "--device", "cpu"])
    (file,) = json.loads(planned.stdout)["files"]
    assert [(page["width"], page["height"]) for page in file["pages"]] == sizes
    assert all(page["plan"] and page["analysis"] for page in file["pages"])
    assert file["memory"] == max(page["memory"] for page in file["pages"])
    assert "page 3 of 3  32×24" in CliRunner().invoke(cli.app, [*flags[:-1], "--dry-run"]).stderr
    done = json.loads(CliRunner().invoke(cli.app, [*flags, "--strength", "0.5", "--device", "cpu"]).stdout)
    (file,) = done["files"]
    assert [(page["width"], page["height"]) for page in file["pages"]] == sizes
    assert (
        min(page["change"] for page in file["pages"]) < file["change"] < max(page["change"] for page in file["pages"])
    )
    assert done["summary"]["megapixels"] == sum(width * height for width, height in sizes) / 1e6


def test_pages_are_compared_and_shown_one_by_one(tmp_path, rgb):
    (tmp_path / "in").mkdir()
    paged(tmp_path / "in" / "a.tif", rgb)
    Image.fromarray(rgb).save(tmp_path / "in" / "b.png")
    page, out = tmp_path / "page.html", tmp_path / "out"
    flags = ["restore", str(tmp_path / "in"), str(out), "--strength", "0", "--pages", "all", "--compare"]
    result = CliRunner().invoke(cli.app, [*flags, "--report", str(page), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    with tifffile.TiffFile(out / "a.compare.tif") as file:
        assert [each.imagewidth for each in file.pages] == [2 * width + 2 for width in (56, 28, 32)]  # pyright: ignore
    text = page.read_text()
    assert text.count("<article") == 4
    assert all(f"a.tif, page {number} of 3" in text for number in (1, 2, 3))


def test_what_stands_beside_all_pages_is_bounded(tmp_path, rgb, monkeypatch):
    paged(tmp_path / "a.tif", rgb)
    monkeypatch.setattr(tiff_module, "MAX_HELD", 1000)
    with pytest.raises(UserError, match="more than 1,000 bytes of metadata beside its pages"):
        read_pages(tmp_path / "a.tif")


def test_a_note_names_the_pages_that_it_is_about(tmp_path, rgb):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(2):
            file.write(rgb, photometric="rgb")
        for _ in range(8):
            file.write(np.zeros((8, 8, 4), np.uint8), photometric="separated")
    flags = ["restore", str(tmp_path / "a.tif"), str(tmp_path / "out") + "/", "--pages", "all", "--strength", "0"]
    result = CliRunner().invoke(cli.app, flags)
    assert "a.tif: 10 pages" in result.stderr
    assert "a.tif: pages 3, 4, 5, 6, 7, 8 and 2 more: converted from CMYK to RGB" in result.stderr
