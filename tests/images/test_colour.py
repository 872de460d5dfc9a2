"""What numbers mean, and that a network sees every picture as it was trained: by the codecs and engines of others."""

import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from skimage import data

from restormer_cli.images.colour import (
    ADOBE,
    D50_XYZ,
    D65,
    SRGB,
    Colour,
    TableColour,
    Working,
    float_scale,
    gamma_curve,
    make_icc,
    of_code,
    of_icc,
    of_points,
    read_colour,
    working_space,
)
from restormer_cli.images.formats.exif_icc import is_adobe_rgb
from restormer_cli.images.formats.png import png_chunk
from restormer_cli.images.io import Picture, check_writable, decode_picture, encode_picture

PROPHOTO = Colour(
    (gamma_curve(1.8),), of_points(((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), (0.3457, 0.3585))
)
REC2020_PQ, LINEAR = of_code(9, 16), of_code(1, 8)
assert REC2020_PQ is not None
assert LINEAR is not None


def tiff(samples: np.ndarray, icc: bytes | None = None) -> Picture:
    out = io.BytesIO()
    tifffile.imwrite(out, samples, photometric="rgb", iccprofile=icc)
    return decode_picture(out.getvalue(), "in.tif")


def png16(samples: np.ndarray, *chunks: tuple[bytes, bytes]) -> Picture:
    made = bytes(imagecodecs.png_encode(samples))
    return decode_picture(made[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + made[33:], "in.png")


def photograph() -> np.ndarray:
    """A piece of a photograph, sRGB in [0, 1]: float32 (h, w, 3)."""
    return data.chelsea()[60:188, 100:260].astype(np.float32) / 255


def by_tables(colour: Colour, gamma: float) -> bytes:
    """A profile of tables (lut16Type, both ways, by XYZ) that says what a matrix and a gamma say."""
    assert colour.to_srgb is not None
    matrix, most = of_xyz(colour), 65535 / 32768

    def table(convert: Any, grid: int, before: np.ndarray, after: np.ndarray) -> bytes:
        axes = np.meshgrid(*[np.linspace(0, 1, grid)] * 3, indexing="ij")
        head = b"mft2\0\0\0\0" + bytes([3, 3, grid, 0]) + struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel())
        parts = (*[before] * 3, convert(np.stack(axes, -1).reshape(-1, 3)), *[after] * 3)
        body = b"".join(np.rint(np.clip(part, 0, 1) * 65535).astype(">u2").tobytes() for part in parts)
        return head + struct.pack(">2H", len(before), len(after)) + body

    line = np.linspace(0, 1, 4096)
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78),
        b"cprt": b"text\0\0\0\0x\0\0\0",
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", *np.rint(D50_XYZ * 65536).astype(int)),
        b"A2B0": table(lambda rgb: rgb @ matrix.T / most, 2, line**gamma, line),
        # The way back in numbers from -0.5 to 1.5, so that what is cut off is cut after the table.
        b"B2A0": table(
            lambda xyz: (xyz * most @ np.linalg.inv(matrix).T + 0.5) / 2,
            33,
            line,
            np.clip(2 * line - 0.5, 0, 1) ** (1 / gamma),
        ),
    }
    start, rows, body = 132 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        rows += struct.pack(">4sII", name, start + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0" * 4, 0x02400000, b"prtr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp").ljust(44, b"\0")
    head += struct.pack(">3i", *np.rint(D50_XYZ * 65536).astype(int))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + rows + body


def of_xyz(colour: Colour) -> np.ndarray:
    """Linear light of a colour -> XYZ under D50, by the columns of the profile that we make of it."""
    icc, columns = make_icc(colour, "x"), []
    for row in range(int.from_bytes(icc[128:132], "big")):
        name, start, _ = struct.unpack_from(">4sII", icc, 132 + 12 * row)
        if name in (b"rXYZ", b"gXYZ", b"bXYZ"):
            columns.append(np.array(struct.unpack_from(">3i", icc, start + 8)) / 65536)
    return np.stack(columns, axis=1)


def versions(pixels: np.ndarray) -> dict[str, Picture]:
    """One picture in the numbers of several spaces, each as a file would have it."""
    shown = pixels.astype(np.float64)

    def numbers(colour: Colour) -> np.ndarray:
        return np.clip(Working(1.0, colour)._back(shown), 0, 1)

    assert REC2020_PQ is not None
    assert LINEAR is not None
    sixteen = np.rint(numbers(PROPHOTO) * 65535).astype(np.uint16)
    pq = np.rint(numbers(REC2020_PQ) * 65535).astype(np.uint16)
    return {
        "sRGB": tiff(np.rint(shown * 65535).astype(np.uint16)),
        "ProPhoto": tiff(sixteen, make_icc(PROPHOTO, "ProPhoto")),
        "tables": tiff(sixteen, by_tables(PROPHOTO, 1.8)),
        "Rec. 2020 PQ": png16(pq, (b"cICP", bytes([9, 16, 0, 1]))),
        "linear float": tiff(numbers(LINEAR).astype(np.float32), make_icc(LINEAR, "linear")),
        "float to 65535": tiff((shown * 65535).astype(np.float32)),
    }


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((np.clip(a, 0, 1) - np.clip(b, 0, 1)) ** 2)))


def test_every_version_of_a_photograph_is_restored_alike():
    from restormer_cli.engine.restorer import Restorer
    from restormer_cli.model.weights import load_weights

    clean = photograph()
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 25 / 255, clean.shape), 0, 1).astype(np.float32)
    restorer = Restorer(load_weights("denoise").model)
    reached = {}
    for name, picture in versions(noisy).items():
        shown = picture.shown
        result = restorer(shown)
        if picture.working is not None:
            result = picture.working.carry(picture.pixels, shown, result)
            result = picture.working.convert(result)
        reached[name] = psnr(result, clean)
    assert reached["sRGB"] > psnr(noisy, clean) + 5
    assert {name: abs(value - reached["sRGB"]) < 0.1 for name, value in reached.items()} == dict.fromkeys(reached, True)


def test_nothing_changes_where_the_network_changes_nothing():
    for name, picture in versions(photograph()).items():
        if picture.working is not None:
            same = picture.working.carry(picture.pixels, picture.shown, picture.shown.copy())
            assert np.array_equal(same, picture.pixels), name


def test_what_srgb_cannot_show_stays_and_fades_in():
    colour = PROPHOTO
    working = Working(1.0, colour)
    pixels = np.array([[[0.0, 1.0, 0.0], [0.5, 0.5, 0.5]]], np.float32)  # far out of sRGB's gamut; gray
    shown = working.show(pixels)
    result = working.carry(pixels, shown, np.clip(shown + 0.1, 0, 1))
    assert np.array_equal(result[0, 0], pixels[0, 0])
    assert (result[0, 1] > pixels[0, 1] + 0.05).all()
    ramp = np.linspace(0.9, 1.3, 81, dtype=np.float32).reshape(1, 81, 1)
    light = Working()
    kept = light.carry(ramp, light.show(ramp), light.show(ramp) - 0.1) - ramp
    assert np.allclose(kept[0, ramp[0, :, 0] <= 1], -0.1, atol=1e-6)
    assert np.abs(kept[0, ramp[0, :, 0] > 1.1]).max() == 0
    assert (np.diff(kept[0, :, 0]) >= -1e-6).all()  # without a step


def test_lights_beyond_white_are_kept_in_a_float_tiff():
    samples = np.linspace(0, 6.4, 24 * 40 * 3, dtype=np.float32).reshape(24, 40, 3)
    picture = tiff(samples)
    assert picture.working is not None
    assert picture.working.scale == 1
    assert picture.shown.max() == 1
    result = picture.working.carry(picture.pixels, picture.shown, picture.shown * 0.5)
    assert np.array_equal(result[picture.pixels > 1.11], picture.pixels[picture.pixels > 1.11])


@pytest.mark.parametrize(
    ("top", "white"), [(1.0, 1), (6.4, 1), (250.0, 255), (255.0, 255), (65535.0, 65535), (4000, 4095)]
)
def test_white_of_floats(top, white):
    assert float_scale(np.linspace(0, top, 3000, dtype=np.float32)) == white


def test_a_dark_scene_with_lamps_is_not_taken_for_counts():
    scene = np.full(3000, 0.1, np.float32)
    scene[:20] = 300
    assert float_scale(scene) == 1


@pytest.mark.parametrize("colour", [LINEAR, REC2020_PQ, of_code(12, 13), of_code(9, 18), PROPHOTO])
def test_our_profiles_are_read_by_a_colour_engine_and_by_us(colour):
    icc = make_icc(colour, "named")
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    assert ImageCms.getProfileDescription(profile).strip() == "named"
    again = of_icc(icc)
    assert isinstance(again, Colour)
    assert again.to_srgb is not None
    assert np.abs(again.to_srgb - colour.to_srgb).max() < 1e-3
    # lcms and we turn the same numbers into the same sRGB, where sRGB can show them
    shown = np.random.default_rng(1).random((4, 5, 3)) * 0.7 + 0.1
    numbers = Working(1.0, colour)._back(shown)
    eight = np.rint(np.clip(numbers, 0, 1) * 255).astype(np.uint8)
    there = ImageCms.profileToProfile(
        Image.fromarray(eight), profile, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    ours = Working(1.0, again)._forth(eight / np.float32(255))
    inside = (ours > 0.05) & (ours < 0.95)
    assert there is not None
    assert np.abs(np.asarray(there) / 255 - ours)[inside].max() < 0.02


def test_a_profile_of_lcms_is_srgb():
    colour = of_icc(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert isinstance(colour, Colour)
    assert colour.alike
    assert np.abs(colour.to_srgb - np.eye(3)).max() < 2e-3  # pyright: ignore


def test_colours_near_srgb_are_shown_as_they_are():
    pixels = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    for colour in (of_code(12, 13), Colour((gamma_curve(2.2),), of_points(ADOBE, D65)), of_code(1, 1)):
        assert working_space(colour, pixels, floats=False) is None
    for colour in (LINEAR, REC2020_PQ, PROPHOTO, of_code(9, 18)):
        assert working_space(colour, pixels, floats=False) is not None


def test_png_chunks_say_what_numbers_mean():
    linear = read_colour(None, [(b"gAMA", struct.pack(">I", 100_000))])
    assert isinstance(linear, Colour)
    assert np.allclose(linear.curves[0].light(np.array([0.25])), 0.25)
    assert read_colour(None, [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))]) is None
    points = [31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600]
    wide = read_colour(None, [(b"cHRM", struct.pack(">8I", *points))])
    assert isinstance(wide, Colour)
    assert not wide.narrow
    assert np.abs(wide.to_srgb - of_code(9, 13).to_srgb).max() < 1e-6  # pyright: ignore


def test_adobe_rgb_of_a_camera_is_read_from_exif():
    def exif(space: int, index: str) -> bytes:
        made = Image.Exif()
        below = made.get_ifd(0x8769)
        below[0xA001] = space
        below[0xA005] = {1: index}
        return made.tobytes().removeprefix(b"Exif\0\0")

    assert is_adobe_rgb(exif(65535, "R03"))
    assert not is_adobe_rgb(exif(1, "R98"))
    assert not is_adobe_rgb(b"II*\0\x08\0\0\0\x01\0")
    colour = read_colour(None, (), exif(65535, "R03"))
    assert isinstance(colour, Colour)
    assert np.abs(colour.to_srgb - of_points(ADOBE, D65)).max() < 1e-9


def test_profiles_of_tables_mean_what_a_matrix_means():
    icc = by_tables(PROPHOTO, 1.8)
    tables = of_icc(icc)
    assert isinstance(tables, TableColour)
    assert ImageCms.ImageCmsProfile(io.BytesIO(icc))  # lcms takes it
    pixels = np.random.default_rng(0).uniform(0.2, 0.8, (40, 50, 3)).astype(np.float32)
    by_tables_, by_matrix = Working(1.0, tables), Working(1.0, PROPHOTO)
    shown = by_matrix.show(pixels)
    assert np.abs(shown - pixels).max() > 0.05
    assert np.abs(by_tables_.show(pixels) - shown).max() < 0.002
    assert np.array_equal(by_tables_.carry(pixels, by_tables_.show(pixels), by_tables_.show(pixels)), pixels)
    inside = (by_matrix.convert(pixels) > 0.02).all(axis=2)
    brighter = by_tables_.carry(pixels, shown, shown + np.float32(0.02)) - pixels
    assert np.abs(brighter - (by_matrix.carry(pixels, shown, shown + np.float32(0.02)) - pixels))[inside].max() < 0.004
    assert brighter[inside].min() > 0


def test_a_profile_of_tables_is_kept_or_converted():
    picture = tiff(np.rint(photograph() * 65535).astype(np.uint16), by_tables(PROPHOTO, 1.8))
    kept = decode_picture(encode_picture(picture.pixels, picture, "tif"), "out.tif")
    assert kept.icc == picture.icc
    assert picture.working is not None
    assert "converted to sRGB" in " ".join(check_writable("a.bmp", picture))
    converted = decode_picture(encode_picture(picture.pixels, picture, "bmp"), "out.bmp")
    assert np.abs(converted.pixels - picture.shown).max() < 0.003


def test_profiles_that_are_broken_are_no_colours():
    icc = make_icc(PROPHOTO, "x")
    random = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(icc)
        for place in random.integers(128, 420, 3):
            broken[place] = random.integers(256)
        colour = of_icc(bytes(broken))
        if colour is not None:
            shown = Working(1.0, colour).show(np.full((2, 2, 3), 0.5, np.float32))
            assert shown.shape == (2, 2, 3)


def test_srgb_curve_both_ways():
    values = np.linspace(0, 2, 101)
    assert np.abs(SRGB.signal(SRGB.light(values)) - values).max() < 1e-9


def test_a_strip_of_a_photograph_keeps_its_file(tmp_path: Path):
    """Bytes in, bytes out: the numbers of a ProPhoto picture are written as they were read."""
    picture = versions(photograph())["ProPhoto"]
    again = decode_picture(encode_picture(picture.pixels, picture, "tif"), "out.tif")
    assert np.array_equal(again.pixels, picture.pixels)
    assert again.icc == picture.icc
