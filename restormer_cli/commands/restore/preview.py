"""`--preview SHEET.png`: a few crops of a picture at several strengths, or by several tasks, before the long wait.

Rows are crops: where it is noisiest, where it has most detail, and the middle. Columns are the input and what would be
made of it. Only the crops go through the network, each with a margin.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from restormer_cli.commands.restore.jobs import without_results
from restormer_cli.commands.restore.operations import DEFAULT_TASK, Restoring, check_knobs, control_of
from restormer_cli.commands.restore.steps import diagnose
from restormer_cli.commands.restore.types import AUTO, Request
from restormer_cli.errors import UserError, one_line
from restormer_cli.files import check_folder, write_atomically
from restormer_cli.images.io import Picture, quantise, read_picture
from restormer_cli.images.listing import find_pictures

SIDE, MARGIN = 192, 16
"""Side of a crop, and margin around it for the network, in pixels."""
STRENGTHS = (0.5, 0.75, 1.0)
TASKS = ("denoise", "defocus", "motion-deblur", "derain")
FONT = "{}/fonts/ttf/DejaVuSans.ttf"
"""Pillow's own has no σ and no ×."""
BAR, GAP = 26, 6
"""Height of a line of text, and space between crops, in pixels."""

Column = tuple[str, str | None, float]
"""A label, a bundled task (None: the request's own weights), and the strength; 0 is the input."""


@dataclass(frozen=True)
class Crop:
    """A part of a picture, and why it was chosen."""

    top: int
    left: int
    height: int
    width: int
    why: str


def write_preview(request: Request, sheet: Path) -> str:
    """Write the sheet of the first picture of the request; returns what to tell in a line."""
    begun = time.perf_counter()
    _check(request, sheet)
    picture = read_picture(_first(request.source), salvage=request.salvage)
    pixels = picture.shown
    crops = choose_crops(pixels)
    diagnosis = diagnose(picture, followed=request.task == AUTO)
    if request.task == AUTO:
        columns: list[Column] = [("as it is" + " (auto)" * (diagnosis.task is None), None, 0.0)]
        columns += [(task + " (auto)" * (task == diagnosis.task), task, request.strength) for task in TASKS]
    else:
        task = request.task or (None if request.weights else DEFAULT_TASK)
        columns = [("as it is", None, 0.0)]
        columns += [(f"--strength {strength:g}", task, strength) for strength in STRENGTHS]
    rows = _rows(request, pixels, crops, columns)
    heading = [f"{one_line(picture.path.name)}: {diagnosis.words}", diagnosis.reason]
    drawn = _draw([label for label, *_ in columns], crops, rows, heading)
    sheet.parent.mkdir(parents=True, exist_ok=True)
    data = _png(drawn, picture)
    write_atomically(sheet, lambda stream: stream.write(data))
    seconds = time.perf_counter() - begun
    counted = f"{len(crops)} crop{'s' * (len(crops) > 1)}"
    return f"{sheet}: {counted} of {picture.path}, {len(columns)} columns, {seconds:.1f} s; {diagnosis.reason}"


def _check(request: Request, sheet: Path) -> None:
    if sheet.suffix.lower() != ".png":
        raise UserError(f"--preview {sheet}: is written as PNG: name it {sheet.with_suffix('.png').name}")
    if request.more:
        raise UserError("--preview: writes no OUT: name one picture alone, or a folder, of which it shows the first")
    if request.degrade is not None or request.right is not None:
        raise UserError("--preview: shows what restoring one picture would do: leave --degrade and --right out")
    if sheet.resolve() == request.source.resolve():
        raise UserError(f"--preview {sheet}: is the input, which is never overwritten: name another file")
    if sheet.exists() and not (request.overwrite or _is_sheet(sheet)):
        raise UserError(f"--preview {sheet}: already there, and not written by --preview: --overwrite replaces it")
    check_knobs(request)
    check_folder(sheet.parent)


SOFTWARE = "restormer preview"


def _is_sheet(path: Path) -> bool:
    with path.open("rb") as stream:
        return SOFTWARE.encode() in stream.read(4096)


def _first(source: Path) -> Path:
    if not source.is_dir():
        return source
    pictures = without_results(find_pictures(source, recursive=True), source)
    if not pictures:
        raise UserError(f"{source}: no pictures in it")
    return pictures[0]


def choose_crops(pixels: np.ndarray, side: int = SIDE) -> list[Crop]:
    """Where (h, w, c) is noisiest for its structure, where it has most detail, and its textured middle; they differ.

    Of a picture hardly larger than a crop, all of it.
    """
    height, width = pixels.shape[:2]
    if height <= side or width <= side:
        top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
        return [Crop(top, left, min(side, height), min(side, width), "the middle")]
    rows, columns = (np.unique(np.linspace(0, n - side, max(2, 2 * n // side)).astype(int)) for n in (height, width))
    places = [(int(y), int(x)) for y in rows for x in columns]
    fine, coarse = np.array([_texture(pixels[y : y + side, x : x + side]) for y, x in places]).T
    away = [np.hypot((y + side / 2) / height - 0.5, (x + side / 2) / width - 0.5) for y, x in places]
    near = np.exp(-8 * np.square(away))
    crops: list[Crop] = []
    wishes = (("noisiest", fine / (coarse + 0.01)), ("most detail", coarse), ("the middle", near * (coarse + 1e-6)))
    for why, score in wishes:
        for index in np.argsort(-score, kind="stable"):
            y, x = places[int(index)]
            if all(abs(y - crop.top) >= side // 2 or abs(x - crop.left) >= side // 2 for crop in crops):
                crops.append(Crop(y, x, side, side, why))
                break
    return crops


def _texture(tile: np.ndarray) -> tuple[float, float]:
    """Mean differences of neighbours, which noise has, and of means of 4 × 4 pixels, which it hardly has."""
    plane = tile.mean(axis=2)
    height, width = (length // 4 * 4 for length in plane.shape)
    means = plane[:height, :width].reshape(height // 4, 4, width // 4, 4).mean(axis=(1, 3))
    fine = np.median(np.abs(np.diff(plane, n=2, axis=1)))
    return float(fine), float(np.abs(np.diff(means, axis=0)).mean() + np.abs(np.diff(means, axis=1)).mean())


def _rows(request: Request, pixels: np.ndarray, crops: list[Crop], columns: list[Column]) -> list[list[np.ndarray]]:
    """Each crop in each column: float32 (h, w, c)."""
    from restormer_cli.engine.control import apply_control

    stages: dict[str | None, Restoring] = {}
    rows: list[list[np.ndarray]] = [[] for _ in crops]
    answers: dict[tuple[str | None, int], tuple[np.ndarray, np.ndarray]] = {}
    plain = replace(request, strength=1.0, luma=1.0, chroma=1.0, detail=0.0, grain=0.0, protect=None, mask=None)
    for _, task, strength in columns:
        for number, crop in enumerate(crops):
            top, left = max(0, crop.top - MARGIN), max(0, crop.left - MARGIN)
            wide = pixels[top : crop.top + crop.height + MARGIN, left : crop.left + crop.width + MARGIN]
            if strength == 0:
                result = wide
            else:
                if task not in stages:
                    stages[task] = Restoring(plain if task is None else replace(plain, task=task, weights=None))
                if (task, number) not in answers:
                    wide = np.ascontiguousarray(wide)
                    answers[task, number] = wide, stages[task].restored(wide)[0]
                before, answer = answers[task, number]
                result = apply_control(before, answer.copy(), replace(control_of(request), strength=strength))
            y, x = crop.top - top, crop.left - left
            rows[number].append(result[y : y + crop.height, x : x + crop.width])
    return rows


def _draw(labels: list[str], crops: list[Crop], rows: list[list[np.ndarray]], heading: list[str]) -> np.ndarray:
    """The sheet: uint8 (h, w, 3)."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    wide = max(crop.width for crop in crops)
    width = GAP + len(labels) * (wide + GAP)
    height = BAR * (1 + len(heading)) + sum(BAR + crop.height + GAP for crop in crops)
    sheet = Image.new("RGB", (width, height), (40, 40, 40))
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT.format(matplotlib.get_data_path()), 13)

    def write(x: int, y: int, text: str) -> None:
        pen.text(
            (x, y + 5), _fitting(text, lambda words: pen.textlength(words, font), width - x - GAP), (235,) * 3, font
        )

    for number, line in enumerate(heading):
        write(GAP, BAR * number, line)
    top = BAR * len(heading)
    for column, label in enumerate(labels):
        write(GAP + column * (wide + GAP), top, label)
    top += BAR
    for crop, results in zip(crops, rows, strict=True):
        write(GAP, top, f"{crop.why}: {crop.width} × {crop.height} at {crop.left}, {crop.top}")
        top += BAR
        for column, result in enumerate(results):
            shown = np.repeat(quantise(result, 8), 3 // result.shape[2], axis=2)
            sheet.paste(Image.fromarray(shown), (GAP + column * (wide + GAP), top))
        top += crop.height + GAP
    return np.asarray(sheet)


def _fitting(text: str, length: Callable[[str], float], room: float) -> str:
    while len(text) > 1 and length(text) > room:
        text = text[:-2].rstrip() + "…"
    return text


def _png(drawn: np.ndarray, picture: Picture) -> bytes:
    from PIL import PngImagePlugin

    from restormer_cli.images.formats.exif_icc import icc_space
    from restormer_cli.images.formats.pillow import encode_8_bits

    profile = picture.icc if picture.icc and icc_space(picture.icc) == "RGB" and not picture.working else None
    words = PngImagePlugin.PngInfo()
    words.add_text("Software", SOFTWARE)
    return encode_8_bits(drawn, "PNG", pnginfo=words, icc_profile=profile)
