"""Cameras' raw files, made here as Bayer DNG by tifffile; LibRaw judges, and in the slow test Debian's tools."""

import io
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rawpy
import tifffile
from PIL import Image

from restormer_cli.commands.restore.jobs import Names
from restormer_cli.errors import UserError
from restormer_cli.images.formats import table
from restormer_cli.images.formats.exif_icc import turn
from restormer_cli.images.formats.raster import Raster
from restormer_cli.images.formats.raw import XYZ_TO_SRGB, is_raw
from restormer_cli.images.formats.tiff import write_tiff
from restormer_cli.images.io import check_writable, decode_picture, encode_picture, picture_size
from restormer_cli.images.light import curve_both_ways
from restormer_cli.images.listing import find_pictures, left_out

FROM_XYZ = np.array([[0.8, -0.2, -0.1], [-0.4, 1.2, 0.2], [-0.1, 0.2, 0.6]])
NEUTRAL = (0.5, 1.0, 0.7)
BLACK, WHITE = 256, 16383


def scene(height: int = 64, width: int = 96, light: float = 1.0) -> np.ndarray:
    """Soft linear light of sRGB."""
    y, x = np.mgrid[:height, :width] / width
    return light * np.stack([0.1 + 0.5 * x, 0.15 + 0.5 * y, 0.4 - 0.2 * x], axis=-1)


def bayer(light: np.ndarray) -> np.ndarray:
    """What a sensor of these colours counts: RGGB, (h, w)."""
    matrix = FROM_XYZ @ np.linalg.inv(XYZ_TO_SRGB)
    sensor = light @ (matrix / matrix.sum(axis=1, keepdims=True)).T * np.array(NEUTRAL)
    counts = np.empty(light.shape[:2])
    for (row, column), channel in {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 2}.items():
        counts[row::2, column::2] = sensor[row::2, column::2, channel]
    return np.clip(np.rint(BLACK + counts * (WHITE - BLACK)), 0, WHITE).astype(np.uint16)


def dng(light: np.ndarray | None = None, orientation: int = 1, crop: bool = True, **how: Any) -> bytes:
    light = scene() if light is None else light
    height, width = light.shape[:2]
    fractions = tuple(part for value in FROM_XYZ.ravel() for part in (round(value * 10_000), 10_000))
    neutral = tuple(part for value in NEUTRAL for part in (round(value * 10_000), 10_000))
    tags = [
        (50706, "B", 4, (1, 4, 0, 0), True), (50708, "s", 0, b"A camera", True), (271, "s", 0, b"A maker", True),
        (33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True), (274, "H", 1, orientation, True),
        (50714, "H", 1, BLACK, True), (50717, "H", 1, WHITE, True), (50721, "2i", 9, fractions, True),
        (50728, "2I", 3, neutral, True), (50778, "H", 1, 21, True),
    ]  # fmt: skip
    if crop:
        tags += [(50829, "I", 4, (2, 4, height - 2, width - 4), True), (50719, "I", 2, (6, 8), True)]
        tags += [(50720, "I", 2, (width - 24, height - 16), True)]
    out = io.BytesIO()
    tifffile.imwrite(out, bayer(light), photometric="CFA", extratags=tags, metadata=None, **how)
    return out.getvalue()


def test_it_is_developed_as_the_camera_saw_it():
    data = dng()
    assert is_raw(data)
    picture = decode_picture(data, "a.dng")
    assert (picture.bits, picture.format, picture.notes) == (16, "dng", ())
    assert picture.pixels.shape == (48, 72, 3)  # the camera's own crop
    wanted = scene()[10:58, 10:82]
    assert np.abs(curve_both_ways(picture.pixels) - wanted)[2:-2, 2:-2].max() < 0.01
    assert picture.working is None  # sRGB, nothing beyond it
    with rawpy.imread(io.BytesIO(data)) as raw:
        theirs = raw.postprocess(
            output_bps=16, no_auto_bright=True, adjust_maximum_thr=0, use_camera_wb=True, gamma=(1, 1)
        )
    assert np.abs(theirs[8:56, 6:78] / 65535 - curve_both_ways(picture.pixels)).max() < 1e-4


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_it_is_turned_once(orientation, tmp_path):
    data = dng(orientation=orientation)
    upright = decode_picture(dng(), "a.dng").pixels
    picture = decode_picture(data, "a.dng")
    assert np.array_equal(picture.pixels, turn(upright, orientation))
    (tmp_path / "a.dng").write_bytes(data)
    assert picture_size(tmp_path / "a.dng") == picture.pixels.shape[:2]
    again = decode_picture(encode_picture(picture.pixels, picture, "dng"), "b.dng")
    assert again.pixels.shape == picture.pixels.shape


def test_one_that_is_cut_short_is_refused_and_not_black():
    options = {"lossless": True, "bitspersample": 14}
    phones = dng(tile=(32, 32), compression="jpeg", compressionargs=options)
    assert np.array_equal(decode_picture(phones, "a.dng").pixels, decode_picture(dng(), "a.dng").pixels)
    for whole in (phones, dng()):
        for share in (0.4, 0.7, 0.99):
            with pytest.raises(UserError, match="truncated: the file ends too early"):
                decode_picture(whole[: int(share * len(whole))], "a.dng")


def test_a_linear_dng_holds_the_sensors_colours():
    picture = decode_picture(dng(scene() - [0, 0, 0.3]), "a.dng")  # yellow and green beyond sRGB's gamut
    assert picture.pixels.min() < -0.1
    assert picture.working is not None
    written = encode_picture(picture.pixels, picture, "dng")
    again = decode_picture(written, "b.dng")
    assert np.abs(again.pixels - picture.pixels).max() < 2e-3
    with rawpy.imread(io.BytesIO(written)) as raw:
        assert np.allclose(raw.camera_whitebalance[:3], 1 / np.array(NEUTRAL), atol=1e-3)
        assert raw.white_level == 65535
    with tifffile.TiffFile(io.BytesIO(written)) as tiff:
        page = tiff.pages.first
        assert (page.photometric, page.bitspersample, page.compression) == (34892, 16, 1)
        matrix = np.array(page.tags[50721].value, float)
        matrix = matrix[::2] / matrix[1::2]
        assert np.allclose(matrix / matrix[4], FROM_XYZ.ravel() / FROM_XYZ[1, 1], atol=2e-3)


def test_other_formats_get_srgb():
    picture = decode_picture(dng(), "a.dng")
    for form, tolerance in (("png", 1e-4), ("tif", 1e-4), ("jpg", 0.05)):
        again = decode_picture(encode_picture(picture.pixels, picture, form), f"b.{form}")
        assert again.bits == (8 if form == "jpg" else 16)
        assert np.abs(again.pixels - picture.pixels).max() < tolerance
        assert again.icc is None
    assert check_writable("b.png", picture) == ()


def test_exif_of_a_raw_file_is_kept():
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "A maker", "A camera"
    exif.get_ifd(0x8769)[0x8827], exif.get_ifd(0x8769)[0xA434] = 1600, "50 mm f/1.8"
    fractions = tuple(part for value in FROM_XYZ.ravel() for part in (round(value * 10_000), 10_000))
    raster = Raster(bayer(scene())[..., None], 16, exif=exif.tobytes().removeprefix(b"Exif\0\0"))
    data = write_tiff(raster, {
        262: ("H", (32803,)), 50706: ("B", (1, 4, 0, 0)), 33421: ("H", (2, 2)), 33422: ("B", (0, 1, 1, 2)),
        50721: ("i", fractions), 50778: ("H", (21,)), 254: ("I", (0,)), 50717: ("H", (WHITE,)),
    }, deflate=False)  # fmt: skip
    picture = decode_picture(data, "a.dng")
    for form in ("dng", "jpg", "tif"):
        again = decode_picture(encode_picture(picture.pixels, picture, form), f"b.{form}")
        assert again.exif is not None, form
        read = Image.Exif()
        read.load(b"Exif\0\0" + again.exif)
        assert read[0x0110] == "A camera", form
        assert read.get_ifd(0x8769)[0x8827] == 1600, form
        assert read.get_ifd(0x8769)[0xA434] == "50 mm f/1.8", form


def test_any_picture_becomes_a_linear_dng():
    ramp = np.linspace(0, 255, 32 * 48 * 3).reshape(32, 48, 3).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(ramp).save(out, "PNG")
    picture = decode_picture(out.getvalue(), "a.png")
    again = decode_picture(encode_picture(picture.pixels, picture, "dng"), "b.dng")
    assert np.abs(again.pixels - picture.pixels).max() < 4e-3


def test_names_of_results():
    assert Names(suffix="_x").of(Path("IMG_1.NEF")) == "IMG_1_x.dng"
    assert Names(".jpg").of(Path("IMG_1.DNG")) == "IMG_1.jpg"


def test_without_the_extra_it_is_told_and_counted(tmp_path, monkeypatch):
    data = dng()
    (tmp_path / "a.NEF").write_bytes(data)
    monkeypatch.setitem(sys.modules, "rawpy", None)
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    table.missing_extra.cache_clear()
    try:
        with pytest.raises(UserError, match=r"needs rawpy: pip install 'restormer-cli\[raw\]'"):
            decode_picture(data, "a.dng")
        told = left_out([tmp_path], {}, lambda folder: False, lambda folder: set(), tmp_path / "out")
        assert told == "1 left out: 1 .nef (pip install 'restormer-cli[raw]')"
    finally:
        monkeypatch.undo()
        table.missing_extra.cache_clear()
    assert [path.name for path in find_pictures(tmp_path)] == ["a.NEF"]


def test_hostile_bytes_cost_one_line():
    data, random, read = dng(), np.random.default_rng(0), 0
    for _ in range(60):
        broken = bytearray(data[: random.integers(40, len(data))] if random.random() < 0.3 else data)
        for place in random.integers(8, min(len(broken), 700), 4):
            broken[place] = random.integers(256)
        with suppress(UserError):  # of one line, as everywhere; anything else fails here
            read += decode_picture(bytes(broken), "x", max_pixels=1_000_000).pixels.ndim == 3
    assert read


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("dcraw_emu") and shutil.which("exiftool")), reason="needs Debian's tools")
def test_raw_converters_open_our_dng(tmp_path):
    picture = decode_picture(dng(), "a.dng")
    for name, data in (("in", dng()), ("out", encode_picture(picture.pixels, picture, "dng"))):
        (tmp_path / f"{name}.dng").write_bytes(data)
        subprocess.run(["dcraw_emu", "-w", "-4", "-T", "-o", "1", tmp_path / f"{name}.dng"], check=True)
    before, after = (tifffile.imread(tmp_path / f"{name}.dng.tiff").astype(float) for name in ("in", "out"))
    assert np.abs(after - before[8:56, 6:78]).max() < 8  # of 65535
    told = subprocess.run(["exiftool", "-validate", "-a", tmp_path / "out.dng"], capture_output=True, text=True).stdout
    assert "Error" not in told
