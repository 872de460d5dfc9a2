"""Pages: one file, nothing from outside, everything escaped, a sensible size, and pictures that are the pictures."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restormer_cli.commands.restore import page as page_module
from restormer_cli.commands.restore.page import PictureRow
from restormer_cli.images.io import Picture
from restormer_cli.report import comparison as pages
from restormer_cli.report import figures, html
from restormer_cli.report.console import duration

HOSTILE = """<script>document.title = "owned"</script><img src=x onerror='alert(1)'> & "a" 'b'.png"""


def page(rows: list[PictureRow], **changes) -> str:
    values = {"source": "in", "target": "out", "settings": [("device", "cpu")], **changes}
    return page_module.restore_page(rows, **values)


def image(uri: str) -> np.ndarray:
    """The pixels of a picture inside a page."""
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return np.asarray(picture)


def picture(pixels: np.ndarray, **changes) -> Picture:
    values = {"alpha": None, "bits": 8, "icc": None, "exif": None, "format": "png", "path": Path("a.png")}
    return Picture(pixels=pixels.astype(np.float32), **{**values, **changes})


# --- Text -----------------------------------------------------------------------------------------------------


def test_a_page_needs_nothing_from_outside(samples):
    comparison = pages.compare_samples(samples(20, 30), samples(20, 30))
    text = page([PictureRow("a.png", 30, 20, 1.0, comparison=comparison)])
    addresses = re.findall(r"""(?:src|href|url|action)\s*[=(]\s*["']?([^"'\s>)]*)""", text)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text


def test_the_name_of_a_file_is_never_markup():
    text = page([PictureRow(HOSTILE, 3, 2, 1.0), PictureRow(HOSTILE, error=f"{HOSTILE}: torn")], source=HOSTILE)
    assert text.count("<script>") == 1  # ours
    assert "<img" not in text
    assert "&lt;script&gt;" in text


def test_a_name_that_is_no_text_still_gives_a_page():
    assert page([PictureRow("half \udce9.png", 3, 2, 1.0)]).encode()


def test_failures_skipped_files_and_figures_are_told():
    rows = [
        PictureRow("a.png", 2000, 1000, 4.0, notes=("16 bits become 8",)),
        PictureRow("b.png", 1000, 1000, 2.0),
        PictureRow("c.png"),
        PictureRow("d.png", error="d.png: is torn; copy it again"),
    ]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page(rows)[page(rows).index("<main>") :]))
    for wanted in (
        "2 restored", "1 skipped", "1 failed", "3.0 megapixels", "6.0 s in all", "0.50 megapixels per second",
        "d.png d.png: is torn; copy it again", "16 bits become 8", "All 4 files", "device cpu",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert "0.25 megapixels per second" in re.sub(r"<[^>]*>", " ", page(rows, seconds=12.0)).replace("\n", "").replace(
        "  ", " "
    )


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (245, "4 min 05 s"), (7385, "2 h 03 min")])
def test_durations(seconds, text):
    assert duration(seconds, 1) == text


def test_a_value_that_a_template_lacks_is_an_error_not_a_blank():
    with pytest.raises(Exception, match="undefined"):
        html.render("restore.html", title="x")


def test_a_drawing_follows_the_theme_and_has_no_ground():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([1, 2], [3, 4], color="#0b6e60")
    drawing = figures.drawing(figure)
    assert drawing.startswith('<svg fill="currentColor"')
    assert "#0b6e60" in drawing
    assert "#000000" not in drawing
    assert set(re.findall(r"https?://[^/]+", drawing)) == {"http://www.w3.org"}  # names of SVG, not addresses
    assert drawing == figures.drawing(figure)


# --- Comparisons ----------------------------------------------------------------------------------------------


def test_a_small_picture_is_whole(samples):
    before, after = samples(41, 57), 255 - samples(41, 57)
    comparison = pages.compare_samples(before, after, 41 * 57)
    assert comparison is not None
    assert (comparison.width, comparison.height, comparison.crop) == (57, 41, None)
    assert np.abs(image(comparison.before).astype(int) - before).mean() < 2
    assert np.abs(image(comparison.after).astype(int) - after).mean() < 2


def test_a_large_picture_is_smaller_with_a_crop_where_it_changed(samples):
    before = samples(300, 500)
    after = before.copy()
    after[200:240, 400:450] = 255
    comparison = pages.compare_samples(before, after, 20_000)
    assert comparison is not None
    assert (comparison.width, comparison.height) == (500, 300)
    small = image(comparison.after)
    assert small.shape[0] * small.shape[1] == pytest.approx(10_000, rel=0.05)
    crop = comparison.crop
    assert crop is not None
    assert crop.width * crop.height == pytest.approx(10_000, rel=0.05)
    assert crop.left <= 400
    assert crop.left + crop.width >= 450
    assert crop.top <= 200
    assert crop.top + crop.height >= 240
    part = np.s_[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    assert np.abs(image(crop.before).astype(int) - before[part]).mean() < 2
    assert np.abs(image(crop.after).astype(int) - after[part]).mean() < 2


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (17, 3001), (3001, 17), (333, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_lies_inside_pictures_of_any_shape(shape, channels):
    before = np.zeros((*shape, channels), np.uint8)
    comparison = pages.compare_samples(before, before + 9, 900)
    assert comparison is not None
    assert comparison.crop is not None
    crop = comparison.crop
    assert 0 <= crop.left <= crop.left + crop.width <= shape[1]
    assert 0 <= crop.top <= crop.top + crop.height <= shape[0]
    assert image(crop.after).shape[:2] == (crop.height, crop.width)


def test_pictures_of_two_sizes_are_not_compared(samples):
    assert pages.compare_samples(samples(20, 30), samples(30, 20)) is None


def test_depth_gray_and_transparency_become_what_a_screen_shows():
    gray = picture(np.full((4, 6, 1), 0.5), bits=16)
    assert (pages.visible(gray) == 128).all()
    clear = picture(np.ones((16, 16, 3)), alpha=np.zeros((16, 16, 1), np.uint16), bits=16)
    assert {153, 204} == set(np.unique(pages.visible(clear)))
    opaque = picture(np.ones((16, 16, 3)), alpha=np.full((16, 16, 1), 255, np.uint8))
    assert (pages.visible(opaque) == 255).all()
    comparison = pages.compare(gray, gray)
    assert comparison is not None
    assert image(comparison.after).shape == (4, 6)


def test_a_profile_travels_with_the_colours_it_describes():
    from PIL import ImageCms

    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    coloured = picture(np.full((4, 6, 3), 0.5), icc=icc)
    gray = picture(np.full((4, 6, 1), 0.5), icc=icc)
    comparison = pages.compare(coloured, gray)
    assert comparison is not None
    for uri, profile in ((comparison.before, icc), (comparison.after, None)):
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as stored:
            assert stored.info.get("icc_profile") == profile


def test_hundreds_of_pictures_share_the_page():
    assert pages.share_of_page(1) == pages.PAGE_PIXELS
    assert pages.share_of_page(10) == pages.PAGE_PIXELS // 10
    assert pages.share_of_page(100_000) == pages.LEAST_PIXELS
