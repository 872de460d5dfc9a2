"""Make docs/restore-report.png: a restore page in headless Chromium, light above, dark and at 100 % below.

    restormer restore docs/samples/ out/ --report out/page.html
    python scripts/pictures/report_screenshot.py out/page.html docs/restore-report.png

Or any other page, its first window light and its second one dark, each so many pixels high:

    python scripts/pictures/report_screenshot.py page.html docs/bench-report.png 1100

Needs Debian's `chromium` and `pip install playwright`.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

SIZE = (1240, 800)
DIVIDERS = (30, 50, 70)


def shoot(page: Page) -> Image.Image:
    """The window as a picture."""
    page.wait_for_timeout(300)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def main(source: Path, target: Path, height: int | None) -> None:
    """Two windows, one below the other."""
    size = (SIZE[0], height or SIZE[1])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        views = []
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
            page.goto(source.resolve().as_uri())
            for number, percent in enumerate(DIVIDERS if height is None else ()):
                slider = page.locator(".slider").nth(number)
                box = slider.bounding_box()
                assert box is not None
                page.mouse.click(box["x"] + box["width"] * percent / 100, box["y"] + box["height"] * 0.9)
            page.mouse.move(5, 5)
            if scheme == "dark" and height is None:
                page.locator(".slider").nth(2).dblclick(position={"x": 180, "y": 120})
                page.keyboard.press("+")
                page.keyboard.press("+")
            if scheme == "dark" and height is not None:
                page.mouse.wheel(0, height)
            views.append(shoot(page))
        browser.close()
    both = Image.new("RGB", (size[0], 2 * size[1] + 20), "white")
    for number, view in enumerate(views):
        both.paste(view, (0, number * (size[1] + 20)))
    both.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
