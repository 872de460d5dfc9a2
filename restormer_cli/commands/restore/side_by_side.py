"""`--compare`: a picture with before on its left and after on its right, beside the result.

`out/photo.png` gets `out/photo.compare.png`, at the same depth, with the same metadata.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from restormer_cli.commands.restore.jobs import COMPARED, MAX_NAME, STANDARD, Job
from restormer_cli.errors import UserError
from restormer_cli.images.formats.raster import peak
from restormer_cli.images.io import Picture, check_writable, write_pages, write_picture

GAP = 0.01
"""Share of the width, at least two pixels, in mid-gray."""


def comparison_of(target: Path) -> Path:
    """`photo.png` -> `photo.compare.png`."""
    return target.with_name(f"{target.stem}{COMPARED}{target.suffix}")


def check_comparisons(jobs: Sequence[Job], may_exist: bool) -> None:
    """Raises UserError where a comparison would replace a picture, or fits nowhere, before any work."""
    taken = {path.absolute() for job in jobs for path in (job.source, job.target)}
    for job in jobs:
        if STANDARD in (job.source, job.target):
            raise UserError("--compare: puts a file beside the result: name files, not standard input or output")
        path = comparison_of(job.target)
        if path.absolute() in taken:
            raise UserError(f"--compare: {path} is another picture's name: choose another --suffix or folder")
        if len(os.fsencode(path.name)) <= MAX_NAME and path.exists() and not may_exist:
            raise UserError(f"{path}: already there: --overwrite replaces it, --skip-existing leaves it alone")


def write_comparison(target: Path, pages: Sequence[tuple[np.ndarray, Picture]], **options: object) -> tuple[str, ...]:
    """Write the comparison of each page's restored pixels (h, w, c) and what it was beside `target`.

    Returns a note where the format cannot hold it: the result itself is written, so that is no failure.
    """
    path, both = comparison_of(target), [side_by_side(before, after) for after, before in pages]
    try:
        for page in both:
            check_writable(path, page)
    except UserError as error:
        return (f"no comparison: {error}",)
    if len(os.fsencode(path.name)) > MAX_NAME:
        return (f"no comparison: {path.name[:40]}… is longer than file names can be",)
    if len(both) > 1:
        write_pages(path, [(page.pixels, page) for page in both])
    else:
        write_picture(path, both[0].pixels, like=both[0], **options)  # pyright: ignore
    return ()


def side_by_side(before: Picture, after: np.ndarray) -> Picture:
    """Both as one picture of the same kind: (h, 2·w + gap, c)."""
    height, width, channels = before.pixels.shape
    gap = max(2, round(GAP * width))
    pixels = np.full((height, 2 * width + gap, channels), 0.5, np.float32)
    pixels[:, :width], pixels[:, width + gap :] = before.pixels, after
    alpha = None
    if before.alpha is not None:
        alpha = np.full((height, 2 * width + gap, 1), peak(before.bits), before.alpha.dtype)
        alpha[:, :width] = alpha[:, width + gap :] = before.alpha
    return replace(before, pixels=pixels, alpha=alpha, hidden=None, premultiplied=False)
