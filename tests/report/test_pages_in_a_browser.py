"""The restore page in a real headless Chromium: the divider moves, the zoom shows the pixels, both colour schemes.

Skipped where Chromium or Playwright is missing; an error there when RESTORMER_TEST_BROWSER=required, as in CI.
"""

import base64
import io
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from restormer_cli.commands.restore import page as page_module
from restormer_cli.commands.restore.page import PictureRow
from restormer_cli.engine.control import Control, apply_control, detail_layer
from restormer_cli.pixels import LUMA
from restormer_cli.report import comparison as pages
from restormer_cli.report.comparison import Comparison

INSTALL = "apt-get install chromium && pip install 'restormer-cli[test]'"
RED, BLUE = (200, 30, 40), (20, 60, 190)
HOSTILE = """</bdi><script>document.title = "owned"</script><img src=x onerror="document.title = 'owned'">"""


def missing(what: str) -> None:
    message = f"{what} is missing: {INSTALL}"
    if os.environ.get("RESTORMER_TEST_BROWSER") == "required":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        missing("Chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright")
        raise
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(browser, tmp_path) -> Iterator[Callable[..., Any]]:
    """`show(rows, **context)` opens a page with them; at the end nothing was asked of a network or went wrong."""
    contexts, wrongs = [], []

    def show(rows: list[PictureRow], knobs: str | None = None, **context: Any) -> Any:
        file = tmp_path / "page.html"
        file.write_text(
            page_module.restore_page(rows, source="in", target="out", settings=[("device", "cpu")], knobs=knobs)
        )
        contexts.append(browser.new_context(viewport={"width": 900, "height": 700}, **context))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrongs.append(str(error)))
        page.on("console", lambda message: wrongs.append(message.text))
        page.on("dialog", lambda dialog: wrongs.append(dialog.message))
        page.on("request", lambda it: it.url.startswith(("file:", "data:")) or wrongs.append(it.url))
        page.goto(file.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert wrongs == []


def plain(colour: tuple[int, int, int], height: int = 300, width: int = 400) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)).copy()


def red_and_blue(name: str = "a.png", **size: int) -> PictureRow:
    comparison = pages.compare_samples(plain(RED, **size), plain(BLUE, **size))
    assert comparison is not None
    return PictureRow(name, comparison.width, comparison.height, 1.0, comparison=comparison)


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Something whose every pixel differs from its neighbours, and that JPEG keeps."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(120, 25, (height, width, 3)), 0, 255).astype(np.uint8)


def shot(target: Any) -> np.ndarray:
    with Image.open(io.BytesIO(target.screenshot())) as picture:
        return np.asarray(picture.convert("RGB"))


def image(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return np.asarray(picture)


def colours_at(slider: Any, *columns: float) -> list[str]:
    """Which side is seen at some parts of the slider's width, above the handle and the labels."""
    seen = shot(slider)
    row = seen[round(seen.shape[0] * 0.25)]
    return ["red" if row[round((seen.shape[1] - 1) * column)][0] > 100 else "blue" for column in columns]


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()


def point(target: Any, x: float, y: float) -> tuple[float, float]:
    box = target.bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


# --- The slider -----------------------------------------------------------------------------------------------


def test_the_divider_follows_the_mouse(show):
    page = show([red_and_blue()])
    slider = page.locator(".slider")
    assert colours_at(slider, 0.05, 0.45, 0.55, 0.95) == ["red", "red", "blue", "blue"]
    drag(page, point(slider, 0.5, 0.5), point(slider, 0.8, 0.4))
    assert colours_at(slider, 0.05, 0.75, 0.85, 0.95) == ["red", "red", "blue", "blue"]
    page.mouse.click(*point(slider, 0.2, 0.9))
    assert colours_at(slider, 0.15, 0.25) == ["red", "blue"]
    page.mouse.move(*point(slider, 0.6, 0.5))  # not held any more
    assert colours_at(slider, 0.15, 0.25) == ["red", "blue"]
    np.testing.assert_allclose(shot(slider)[20, 10], RED, atol=3)
    np.testing.assert_allclose(shot(slider)[100, -10], BLUE, atol=3)


def test_the_divider_follows_the_keys(show):
    page = show([red_and_blue()])
    slider = page.locator(".slider")
    slider.locator("input").focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert colours_at(slider, 0.57, 0.63) == ["red", "blue"]
    page.keyboard.press("End")
    assert colours_at(slider, 0.05, 0.95) == ["red", "red"]
    page.keyboard.press("Home")
    assert colours_at(slider, 0.05, 0.95) == ["blue", "blue"]
    assert slider.locator("input").get_attribute("aria-valuetext") == "0 % before"


def test_the_divider_follows_a_finger_and_lets_it_scroll(show):
    page = show([red_and_blue(height=600)], has_touch=True)
    slider = page.locator(".slider")
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    touch("touchStart", point(slider, 0.5, 0.3))
    assert colours_at(slider, 0.45, 0.55) == ["red", "blue"]
    for part in (0.55, 0.65, 0.7):
        touch("touchMove", point(slider, part, 0.3))
    touch("touchEnd")
    assert colours_at(slider, 0.65, 0.75) == ["red", "blue"]
    x, y = point(slider, 0.2, 0.6)
    touch("touchStart", (x, y))
    for down in range(10, 200, 20):
        touch("touchMove", (x, y - down))
    touch("touchEnd")
    page.wait_for_function("scrollY > 0")
    assert colours_at(slider, 0.65, 0.75) == ["red", "blue"]
    page.touchscreen.tap(*point(slider, 0.3, 0.5))
    assert colours_at(slider, 0.25, 0.35) == ["red", "blue"]


# --- The viewer -----------------------------------------------------------------------------------------------


def whole(seed: int = 0, height: int = 300, width: int = 500) -> Comparison:
    comparison = pages.compare_samples(texture(height, width, seed), texture(height, width, seed + 50))
    assert comparison is not None
    return comparison


def seen_pixels(page: Any) -> tuple[np.ndarray, int, int]:
    """The stage's screenshot, and where the picture's upper left corner lies in it."""
    left, top = page.evaluate(
        "(({left, top}) => [parseInt(left), parseInt(top)])(document.querySelector('.world').style)"
    )
    return shot(page.locator(".stage")), left, top


def test_zoomed_to_100_percent_every_pixel_is_the_pictures_own(show):
    comparison = whole()
    page = show([PictureRow("a.png", 500, 300, 1.0, comparison=comparison)])
    slider = page.locator(".slider")
    slider.hover()
    slider.locator(".zoom").click()
    assert page.locator(".scale").inner_text() == "100 %"
    seen, left, top = seen_pixels(page)
    before, after = image(comparison.before), image(comparison.after)
    middle = seen.shape[1] // 2 - left
    np.testing.assert_allclose(seen[top : top + 100, left : left + middle - 4], before[:100, : middle - 4], atol=2)
    np.testing.assert_allclose(seen[top : top + 100, left + middle + 4 : left + 500], after[:100, middle + 4 :], atol=2)
    page.locator(".stage .edge").focus()
    page.keyboard.press("End")  # the before side alone
    seen, left, top = seen_pixels(page)
    np.testing.assert_allclose(seen[top : top + 300, left : left + 500], before, atol=2)
    page.keyboard.press("Home")
    np.testing.assert_allclose(seen_pixels(page)[0][top : top + 100, left + 40 : left + 500], after[:100, 40:], atol=2)


def test_a_large_picture_opens_at_its_crop_pixel_by_pixel_and_can_be_moved(show):
    before, after = texture(1500, 2400), texture(1500, 2400, 1)
    before[:, :1200] = after[:, :1200] = 128  # so that the crop is in the right half
    comparison = pages.compare_samples(before, after, 500_000)
    assert comparison is not None
    crop = comparison.crop
    assert crop is not None
    assert crop.left >= 1100
    page = show([PictureRow("a.png", 2400, 1500, 1.0, comparison=comparison)])
    page.locator(".slider").dblclick(position={"x": 100, "y": 100})
    page.locator(".stage .edge").focus()
    page.keyboard.press("End")

    def expect_crop() -> int:
        seen, left, top = seen_pixels(page)
        x, y = max(1, crop.left + left + 1), max(1, crop.top + top + 1)  # past the frame
        wanted = image(crop.before)[y - crop.top - top :, x - crop.left - left :]
        wanted = wanted[: seen.shape[0] - y - 40, : seen.shape[1] - x - 40]
        assert min(wanted.shape[:2]) > 200
        np.testing.assert_allclose(seen[y : y + wanted.shape[0], x : x + wanted.shape[1]], wanted, atol=2)
        return left

    left = expect_crop()
    stage = page.locator(".stage")
    drag(page, point(stage, 0.5, 0.5), point(stage, 0.6, 0.55))
    assert expect_crop() - left == pytest.approx(0.1 * stage.bounding_box()["width"], abs=2)


def test_zooming_keeps_what_is_under_the_pointer(show):
    page = show([PictureRow("a.png", 1200, 900, 1.0, comparison=whole(0, 900, 1200))])
    page.locator(".slider").dblclick()
    stage = page.locator(".stage")
    here = point(stage, 0.3, 0.4)
    page.mouse.move(*here)

    def under() -> list[float]:
        return page.evaluate(
            """([x, y]) => { const box = document.querySelector(".world").getBoundingClientRect();
            return [1200 * (x - box.left) / box.width, 900 * (y - box.top) / box.height, box.width / 1200]; }""",
            list(here),
        )

    x, y, scale = under()
    assert scale == 1
    page.mouse.wheel(0, -400)
    page.wait_for_function("document.querySelector('.scale').value !== '100 %'")
    assert under() == pytest.approx([x, y, np.e], abs=1.5)
    page.keyboard.press("f")
    assert page.locator(".world").first.bounding_box()["height"] <= stage.bounding_box()["height"]
    page.keyboard.press("1")
    assert under()[2] == 1


def test_pictures_can_be_leafed_through_and_the_divider_stays_where_it_was_put(show):
    page = show([red_and_blue(f"{name}.png") for name in "abc"])
    page.locator(".slider").nth(1).dblclick()
    name = page.locator(".viewer .name")
    assert name.inner_text() == "b.png"
    page.keyboard.press("n")
    page.keyboard.press("n")
    assert name.inner_text() == "a.png"
    page.keyboard.press("p")
    assert name.inner_text() == "c.png"
    stage, edge = page.locator(".stage"), page.locator(".stage .edge")
    drag(page, point(edge, 0.5, 0.3), point(stage, 0.55, 0.3))
    assert edge.get_attribute("aria-valuenow") == "55"
    page.keyboard.press("Escape")
    page.wait_for_function("!document.querySelector('.viewer').open")
    assert colours_at(page.locator(".slider").nth(2), 0.52, 0.58) == ["red", "blue"]


# --- The rest -------------------------------------------------------------------------------------------------


CONTRASTS = """() => {
  const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(x => x / 255).map(
    x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = element => { for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (!colour.startsWith("rgba(0, 0, 0, 0")) return colour; } };
  const seen = document.querySelectorAll("h1, .lead, dt, dd, .note, h2, li span, .small, td, th, footer");
  return [...seen].map(element => {
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
    return [element.tagName + "." + element.className, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]; });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_can_be_read(show, scheme):
    rows = [red_and_blue(), PictureRow("b.png", error="b.png: torn"), PictureRow("c.png", 3, 2, 1.0, notes=("a note",))]
    page = show(rows, color_scheme=scheme)
    ground = shot(page)[5, 5].mean()
    assert ground > 200 if scheme == "light" else ground < 60
    page.locator("summary").click()
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 20
    assert [pair for pair in contrasts if pair[1] < 4.5] == []
    for wanted in ("light", "dark", "as the system"):
        page.locator(".theme").click()
        assert page.locator(".theme").get_attribute("aria-label") == f"Theme: {wanted}"
        bright = bool(shot(page)[5, 5].mean() > 128)
        assert bright is (wanted == "light" or (wanted == "as the system" and scheme == "light"))


def test_a_hostile_name_is_only_text(show):
    rows = [red_and_blue(HOSTILE), PictureRow(HOSTILE, error=f"{HOSTILE}: torn")]
    page = show(rows)
    assert page.title() == "Restored pictures"
    assert page.locator(".gallery .name").inner_text() == HOSTILE
    page.locator(".slider").dblclick()
    assert page.locator(".viewer .name").inner_text() == HOSTILE
    assert page.title() == "Restored pictures"


def test_even_a_script_that_got_in_would_not_run(show, monkeypatch, browser, tmp_path):
    text = page_module.restore_page([], source="in", target="out", settings=[])
    file = tmp_path / "page.html"
    file.write_text(
        text.replace("<main>", "<main><script>document.title = 'owned'</script><img src='http://a.test/x'>")
    )
    page = browser.new_page()
    asked = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    assert page.title() == "Restored pictures"
    assert [url for url in asked if url.startswith("http")] == []
    page.close()


def test_a_telephone_scrolls_one_way_only(show):
    rows = [
        red_and_blue("a-very-long-name-without-any-blank-in-it-" * 3),
        red_and_blue(width=40),
        red_and_blue(height=40),
    ]
    page = show([*rows, PictureRow("b" * 200, error="b" * 300)])
    page.set_viewport_size({"width": 340, "height": 700})
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 340


# --- Knobs ----------------------------------------------------------------------------------------------------


def turn(page: Any, **values: float) -> None:
    """Set knobs as a hand does, and wait until the page shows it."""
    page.evaluate(
        """values => {
            for (const [name, value] of Object.entries(values)) {
                const input = document.querySelector(`.knobs input[name=${name}]`);
                input.value = value;
                input.dispatchEvent(new Event("input", { bubbles: true }));
                input.dispatchEvent(new Event("change", { bubbles: true }));
            }
        }""",
        values,
    )
    page.wait_for_function(
        """values => {
            const shown = JSON.parse(document.querySelector(".knobs").dataset.shown || "{}");
            return Object.entries(values).every(([name, value]) => shown[name] === value);
        }""",
        arg=values,
    )


def shown_after(page: Any) -> np.ndarray:
    return image(page.locator(".slider img.after").get_attribute("src"))[..., :3].astype(float)


@pytest.fixture
def knobs_page(show):
    """A page with knobs, and what was noisy and restored in it: uint8."""
    rng = np.random.default_rng(3)
    y, x, c = np.ogrid[0:120, 0:160, 0:3]
    clean = 120 + 40 * np.sin(x / 31 + c) * np.cos(y / 23) + 25 * np.sin(1.9 * x) * np.cos(1.7 * y) * (x > 80)
    noisy, restored = (
        np.clip(np.rint(values), 0, 255).astype(np.uint8)
        for values in (clean + rng.normal(0, 8, clean.shape), clean * 0.9 + 12)
    )
    comparison = pages.compare_samples(noisy, restored, detail=detail_layer(noisy, restored))
    assert comparison is not None
    row = PictureRow("a.png", comparison.width, comparison.height, 1.0, comparison=comparison)
    return show([row], knobs="restormer restore in out --overwrite"), noisy, restored


def test_knobs_show_what_the_command_makes(knobs_page):
    page, noisy, restored = knobs_page
    before, after = noisy.astype(np.float32) / 255, restored.astype(np.float32) / 255
    for values in (
        {"luma": 0.4, "chroma": 1, "detail": 0},
        {"luma": 1, "chroma": 0.25, "detail": 0},
        {"luma": 0.8, "chroma": 0.5, "detail": 0.75},
        {"luma": 1, "chroma": 1, "detail": 1, "strength": 0.5},
    ):
        turn(page, **values)
        wanted = np.clip(apply_control(before, after.copy(), Control(**values)), 0, 1) * 255
        difference = np.abs(shown_after(page) - wanted)
        assert difference.mean() < 2.5, values  # both sides of the page are JPEGs of a noisy picture
        assert np.abs(restored - wanted).mean() > 1.3 * difference.mean()  # the knob did something


def test_knobs_blend_as_the_engine_does(knobs_page):
    page, _, _ = knobs_page
    slider = page.locator(".slider")
    before, after = (
        image(slider.locator(f"img.{side}").get_attribute("src")).astype(np.float64) for side in ("before", "after")
    )
    layer = (image(slider.get_attribute("data-detail"))[..., None].astype(np.float64) - 128) / 2
    change = after - before
    luma = change @ LUMA[:, None]
    for strength, kept, chroma, detail in ((1, 0.4, 1, 0), (0.5, 1, 0.25, 0), (0.9, 0.8, 0.5, 0.75)):
        turn(page, strength=strength, luma=kept, chroma=chroma, detail=detail)
        wanted = before + strength * (kept * (luma - detail * layer) + chroma * (change - luma))
        assert np.abs(shown_after(page) - np.clip(wanted, 0, 255)).max() <= 1


def test_knobs_go_back_to_what_was_restored(knobs_page):
    page, _, _ = knobs_page
    first = page.locator(".slider img.after").get_attribute("src")
    turn(page, luma=0.2)
    assert page.locator(".slider img.after").get_attribute("src") != first
    page.locator(".knobs .usual").click()
    page.wait_for_function("first => document.querySelector('.slider img.after').src === first", arg=first)


def test_the_command_is_copied(knobs_page):
    page, _, _ = knobs_page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    turn(page, chroma=0.5, detail=0.25)
    page.locator(".knobs .copy").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == "restormer restore in out --overwrite --chroma 0.5 --detail 0.25"
    assert page.locator(".knobs .copy").text_content() == "Copied"


def test_crops_are_blended_too(show):
    before, after = texture(300, 400), texture(300, 400, seed=1)
    comparison = pages.compare_samples(before, after, 40_000, detail=detail_layer(before, after))
    assert comparison is not None
    assert comparison.crop is not None
    row = PictureRow("a.png", 400, 300, 1.0, comparison=comparison)
    page = show([row], knobs="restormer restore in out --overwrite")
    turn(page, strength=0)
    page.locator(".zoom").click()
    crop = page.locator(".layer.after .world img").nth(1).get_attribute("src")
    difference = image(crop)[..., :3].astype(float) - image(comparison.crop.before)
    assert np.abs(difference).max() <= 1


def test_without_a_layer_there_are_no_knobs(show):
    page = show([red_and_blue()], knobs="restormer restore in out")
    assert page.locator(".knobs").count() == 0
