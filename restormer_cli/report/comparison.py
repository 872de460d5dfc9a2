"""HTML pages from plain values, each one file that needs no network: report.py's other half, without a terminal.

    text = render("restore.html", title="Restored pictures", …)   # templates/restore.html, made of templates/parts.html

`templates/parts.html` has the macros that pages share: numbers, facts, table, figure, slider and viewer. Colours,
light and dark, are in `page.css`; what moves is in `page.js`. Both are written into the page, which carries a
content policy: no network, and no script but that one, whatever the name of a file says.
"""

import base64
import hashlib
import io
import re
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from restormer_cli import __version__
from restormer_cli.report.console import duration
from restormer_cli.images.formats.exif_icc import icc_space
from restormer_cli.images.formats.raster import peak
from restormer_cli.errors import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from restormer_cli.images.io import Picture

PAGE_PIXELS = 24_000_000
"""Pixels that a page shows in all, per side: 20 to 60 MB of HTML for photographs with noise at σ 25
(scripts/measure/page_size.py), less for others."""
LEAST_PIXELS = 150_000
MOST_SLIDERS = 300
"""More pictures than this are listed, but not shown: a browser has to hold them all."""
QUALITY = 90
SQUARES = 8  # of the chequerboard under transparency, in pixels


# --- Pages --------------------------------------------------------------------------------------------------


def render(template: str, *, title: str, **values: Any) -> str:
    """A page as text. Every value is escaped; markup has to come as `Markup`, as `drawing` makes it.

    template: a file of restormer_cli/report/templates that extends base.html. `made`, the time below the page, can be given.
    """
    environment = _environment()
    loader = environment.loader
    assert loader is not None
    script, style = (loader.get_source(environment, name)[0] for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shared = {
        "version": __version__,
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "script": Markup(script),
        "style": Markup(style),
        "script_hash": f"sha256-{digest}",
    }
    text = environment.get_template(template).render(**shared | values, title=title)
    return text.encode("utf-8", "replace").decode()  # names of files may hold halves of characters


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("restormer_cli", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@dataclass(frozen=True)
class PictureRow:
    """One file of a restore page: done (`seconds`), skipped (neither) or failed (`error` says why)."""

    name: str
    width: int = 0
    height: int = 0
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    comparison: "Comparison | None" = None

    @property
    def details(self) -> str:
        """Size and time in a phrase."""
        size = f"{self.width:,} × {self.height:,}" if self.width else ""
        return " · ".join(part for part in (size, "" if self.seconds is None else f"{self.seconds:.1f} s") if part)

    @property
    def outcome(self) -> str:
        """What became of it, in a word."""
        return "failed" if self.error else "skipped" if self.seconds is None else "restored"


def restore_page(
    rows: list[PictureRow],
    *,
    source: str,
    target: str,
    settings: list[tuple[str, str]],
    notes: tuple[str, ...] = (),
    seconds: float | None = None,
    title: str = "Restored pictures",
) -> str:
    """The page of a restoration: a slider per picture, failures first, settings, times.

    settings: (name, value) pairs, shown as they are. seconds: the whole run's, by the clock; None: the sum of the
    pictures' own.
    """
    done = [row for row in rows if row.outcome == "restored"]
    failures = [row for row in rows if row.error]
    shown = [row for row in rows if row.comparison]
    megapixels = sum(row.width * row.height for row in done) / 1e6
    took = sum(row.seconds or 0.0 for row in done) if seconds is None else seconds
    numbers: list[tuple[str, ...]] = [(f"{len(done):,}", "restored", "good" if done else "")]
    if skipped := len(rows) - len(done) - len(failures):
        numbers.append((f"{skipped:,}", "skipped", ""))
    if failures:
        numbers.append((f"{len(failures):,}", "failed", "bad"))
    numbers += [(f"{megapixels:,.1f}", "megapixels", ""), (duration(took, 1), "in all", "")]
    if megapixels and took:
        numbers.append((f"{megapixels / took:.2f}", "megapixels per second", ""))
    return render(
        "restore.html",
        title=title,
        source=one_line(source),
        target=one_line(target),
        numbers=numbers,
        settings=[(name, one_line(value)) for name, value in settings],
        notes=notes,
        failures=failures,
        shown=shown,
        columns=["file ", "outcome ", "width", "height", "seconds", "notes "],
        rows=[
            (
                row.name,
                row.outcome,
                row.width or "",
                row.height or "",
                "" if row.seconds is None else f"{row.seconds:.2f}",
                "; ".join(row.notes),
            )
            for row in rows
        ],
    )


# --- Figures ------------------------------------------------------------------------------------------------


def drawing(figure: "Figure") -> Markup:
    """A matplotlib figure as SVG for the macro `figure`: no background, and black follows the page's theme."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "restormer"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"#000000|(?<=: )black\b", "currentColor", text)
    # Text has no fill of its own in matplotlib's SVG where it is black.
    return Markup(text.replace("<svg ", '<svg fill="currentColor" ', 1))


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as an address inside the page; `kind` is a media type such as "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


# --- Comparisons --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crop:
    """A part of both pictures, pixel by pixel: where it is, and its two sides as data URIs."""

    left: int
    top: int
    width: int
    height: int
    before: str
    after: str


@dataclass(frozen=True)
class Comparison:
    """Two pictures of one size for the macro `slider`: full size in pixels, both sides as data URIs.

    Large pictures are shown smaller, with a crop where they differ most; without a crop they are whole.
    """

    width: int
    height: int
    before: str
    after: str
    crop: Crop | None = None


def share_of_page(pictures: int) -> int:
    """How many pixels each of so many pictures may show."""
    return max(LEAST_PIXELS, PAGE_PIXELS // max(1, min(pictures, MOST_SLIDERS)))


def compare(before: "Picture", after: "Picture", pixels: int = PAGE_PIXELS) -> Comparison | None:
    """Two pictures side over side in at most about `pixels` pixels each; None where their sizes differ."""
    return compare_samples(visible(before), visible(after), pixels, before.icc, after.icc)


def compare_samples(
    before: np.ndarray,
    after: np.ndarray,
    pixels: int = PAGE_PIXELS,
    before_icc: bytes | None = None,
    after_icc: bytes | None = None,
) -> Comparison | None:
    """`compare` for uint8 (h, w, 1 or 3). Half of the pixels go to a smaller picture, half to a crop at full size,
    unless all of it fits."""
    if before.shape[:2] != after.shape[:2]:
        return None
    height, width = before.shape[:2]
    if height * width <= pixels:
        return Comparison(width, height, _jpeg(before, before_icc), _jpeg(after, after_icc))
    scale = (0.5 * pixels / (height * width)) ** 0.5
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top, w, h = most_changed(before, after, pixels // 2)
    part = np.s_[top : top + h, left : left + w]
    crop = Crop(left, top, w, h, _jpeg(before[part], before_icc), _jpeg(after[part], after_icc))
    return Comparison(width, height, _jpeg(before, before_icc, size), _jpeg(after, after_icc, size), crop)


def visible(picture: "Picture") -> np.ndarray:
    """A picture as a screen shows it: uint8 (h, w, 1 or 3), transparency over a chequerboard."""
    from restormer_cli.images.io import quantise

    if picture.alpha is None:
        return quantise(picture.pixels, 8)
    alpha = picture.alpha.astype(np.float32) / peak(picture.bits)
    height, width = alpha.shape[:2]
    rows, columns = np.arange(height) // SQUARES, np.arange(width) // SQUARES
    board = np.where((rows[:, None] + columns) % 2, 0.6, 0.8).astype(np.float32)[..., None]
    colour = picture.pixels if picture.premultiplied else picture.pixels * alpha
    return quantise(colour + board * (1 - alpha), 8)


def most_changed(before: np.ndarray, after: np.ndarray, pixels: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of about `pixels` pixels, as square as may be, where two pictures differ most."""
    height, width = before.shape[:2]
    block = 16
    h, w = min(height, round(pixels**0.5)), min(width, round(pixels**0.5))
    h, w = min(height, max(h, pixels // w)), min(width, max(w, pixels // h))
    rows, columns = height // block, width // block
    if not rows or not columns:
        return 0, 0, w, h
    change = np.zeros((rows, columns), np.float64)
    for row in range(rows):  # row by row: a difference of the whole picture would need its memory again
        band = np.s_[row * block : (row + 1) * block, : columns * block, 1 % before.shape[2]]
        after_band = np.s_[row * block : (row + 1) * block, : columns * block, 1 % after.shape[2]]
        difference = np.abs(before[band].astype(np.int16) - after[after_band])
        change[row] = difference.reshape(block, columns, block).mean(axis=(0, 2))
    # Sums over all windows at once, from the sums over all corners.
    sums = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    high, wide = max(1, min(rows, h // block)), max(1, min(columns, w // block))
    windows = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    top, left = (int(index) * block for index in np.unravel_index(windows.argmax(), windows.shape))
    return min(left, width - w), min(top, height - h), w, h


def _jpeg(samples: np.ndarray, icc: bytes | None, size: tuple[int, int] | None = None) -> str:
    """uint8 (h, w, 1 or 3) as a data URI, made smaller where `size` (width, height) says so.

    JPEG at full chroma: what a denoiser changes is chroma noise too, which WebP would blur away.
    """
    from PIL import Image

    gray = samples.shape[2] == 1
    picture = Image.fromarray(np.ascontiguousarray(samples[..., 0] if gray else samples))
    if size is not None:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    profile = icc if icc and icc_space(icc) == ("GRAY" if gray else "RGB") else None
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY, subsampling=0, icc_profile=profile)
    return data_uri(stream.getvalue(), "image/jpeg")
