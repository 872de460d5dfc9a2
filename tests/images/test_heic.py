"""HEIC, read and written; pillow-heif and, in the slow test, Debian's tools judge."""

import io
import shutil
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from restormer_cli.errors import UserError
from restormer_cli.images.colour import make_icc, of_code
from restormer_cli.images.formats import table
from restormer_cli.images.formats.exif_icc import read_ifd
from restormer_cli.images.formats.heic import _beside, decode_heic
from restormer_cli.images.formats.raster import peak
from restormer_cli.images.io import decode_picture, encode_picture, picture_size
from restormer_cli.images.listing import find_pictures, left_out

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmp:Rating="4"/></x:xmpmeta>'


def samples(bits: int, channels: int = 3) -> np.ndarray:
    """Soft ramps at any depth: (64, 96, channels)."""
    y, x = np.mgrid[:64, :96] / 96
    ramps = np.stack([0.1 + 0.8 * x, 0.2 + 0.6 * y, 0.5 + 0.2 * (x - y), 0.3 + 0.5 * x][:channels], axis=-1)
    return np.rint(ramps * peak(bits)).astype(np.uint8 if bits == 8 else np.uint16)


def heic(bits: int = 8, channels: int = 3, **options: object) -> bytes:
    """By pillow-heif alone."""
    out, stored = io.BytesIO(), samples(bits, channels)
    mode = ("L", "LA", "RGB", "RGBA")[channels - 1] + (f";{bits}" if bits > 8 else "")
    pillow_heif.encode(mode, (96, 64), stored.tobytes(), out, quality=95, chroma=444, bit_depth=bits, **options)
    return out.getvalue()


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_depth_is_read_and_written(bits, channels):
    picture = decode_picture(heic(bits, channels), "a.heic")
    assert (picture.bits, picture.format, picture.notes) == (bits, "heic", ())
    wanted = samples(bits, channels)
    colours = wanted[..., :3] / peak(bits)
    assert np.abs(picture.pixels - colours).max() < 0.03
    again = decode_picture(encode_picture(picture.pixels, picture, "heic"), "b.heic")
    assert again.bits == bits
    assert np.abs(again.pixels - picture.pixels).max() < 0.03
    if channels == 4:
        assert again.alpha is not None
        assert np.abs(again.alpha / peak(bits) - wanted[..., 3:] / peak(bits)).max() < 0.03


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_once(orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "A maker"
    out = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(samples(8))).save(out, quality=90, exif=exif.tobytes())
    picture = decode_picture(out.getvalue(), "a.heic")
    turned = (96, 64) if orientation >= 5 else (64, 96)
    assert picture.pixels.shape[:2] == turned
    assert picture_size_of(out.getvalue()) == turned
    upright = Image.Exif()
    upright[0x0112] = orientation
    wanted = Image.fromarray(samples(8))
    steps = {2: (0,), 3: (3,), 4: (1,), 5: (5,), 6: (4,), 7: (6,), 8: (2,)}
    for step in steps.get(orientation, ()):
        wanted = wanted.transpose(Image.Transpose(step))
    assert np.abs(picture.pixels * 255 - np.asarray(wanted)).mean() < 4
    assert picture.exif is not None
    again = decode_picture(encode_picture(picture.pixels, picture, "heic"), "b.heic")
    assert again.pixels.shape == picture.pixels.shape
    assert again.exif is not None
    assert {tag for tag, *_ in read_ifd(again.exif).entries} >= {0x010F}


def picture_size_of(data: bytes) -> tuple[int, int]:
    from restormer_cli.images.formats.heic import heic_size

    return heic_size(data)


def test_profile_numbers_and_xmp_travel():
    pq = decode_picture(heic(10, color_primaries=9, transfer_characteristics=16, matrix_coefficients=9), "a.heic")
    assert pq.colour == ((b"cICP", bytes([9, 16, 0, 1])),)
    assert decode_picture(encode_picture(pq.pixels, pq, "heic"), "b.heic").colour == pq.colour
    assert decode_picture(encode_picture(pq.pixels, pq, "png"), "b.png").colour == pq.colour
    p3 = of_code(12, 13)
    assert p3 is not None
    icc = make_icc(p3, "P3")
    picture = decode_picture(heic(8, icc_profile=icc, icc_profile_type="prof", xmp=XMP), "a.heic")
    for form in ("heic", "jpg", "png", "tif", "webp"):
        again = decode_picture(encode_picture(picture.pixels, picture, form), f"b.{form}")
        assert (again.icc, again.beside.xmp) == (icc, XMP), form


def test_gain_map_and_depth_are_told():
    told = _beside([1, 2], {"aux": {"urn:com:apple:photo:2020:aux:hdrgainmap": [3]}, "depth_images": [4]})
    assert [word in " ".join(told) for word in ("gain map", "depth map", "2 pictures")] == [True] * 3
    assert _beside([1], {"aux": {}, "depth_images": []}) == []


def test_the_size_is_known_before_anything_is_decoded(monkeypatch):
    data = heic()
    monkeypatch.setattr(pillow_heif.heif.BaseImage, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="more than the limit"):
        decode_heic(data, 100)


def test_without_the_extra_it_is_told_and_counted(tmp_path, monkeypatch):
    data = heic()
    (tmp_path / "a.heic").write_bytes(data)
    (tmp_path / "b.HEIC").write_bytes(data)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    table.missing_extra.cache_clear()
    try:
        with pytest.raises(UserError, match=r"needs pillow-heif: pip install 'restormer-cli\[heic\]'"):
            decode_picture(data, "a.heic")
        assert find_pictures(tmp_path) == []
        told = left_out([tmp_path], {}, lambda folder: False, lambda folder: set(), tmp_path / "out")
        assert told == "2 left out: 2 .heic (pip install 'restormer-cli[heic]')"
    finally:
        monkeypatch.undo()
        table.missing_extra.cache_clear()
    assert [path.name for path in find_pictures(tmp_path)] == ["a.heic", "b.HEIC"]


def test_hostile_bytes_cost_one_line():
    data, random, read = heic(10), np.random.default_rng(0), 0
    for _ in range(60):
        broken = bytearray(data[: random.integers(40, len(data))] if random.random() < 0.3 else data)
        for place in random.integers(8, min(len(broken), 1000000), 4):
            broken[place] = random.integers(256)
        with suppress(UserError):  # of one line, as everywhere; anything else fails here
            read += decode_picture(bytes(broken), "x", max_pixels=1_000_000).pixels.ndim == 3
    assert read


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("heif-info") is None, reason="needs Debian's libheif-examples")
def test_debians_tools_agree(tmp_path):
    picture = decode_picture(heic(10, color_primaries=9, transfer_characteristics=16, matrix_coefficients=9), "a.heic")
    path = tmp_path / "out.heic"
    path.write_bytes(encode_picture(picture.pixels, picture, "heic"))
    assert picture_size(path) == (64, 96)
    told = subprocess.run(["heif-info", path], capture_output=True, text=True, check=True).stdout
    assert "96x64" in told
    assert "main brand: heix" in told  # the brand of more than 8 bits
    assert "color profile: nclx" in told
    subprocess.run(["heif-convert", path, tmp_path / "seen.png"], capture_output=True, check=True)
    seen = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB")) / 255
    assert np.abs(seen - picture.pixels).mean() < 0.02
