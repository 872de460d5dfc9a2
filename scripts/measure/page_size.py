"""How large a restore page becomes: `python scripts/measure/page_size.py FOLDER`, photographs given noise at σ 25.

The noisy side is the worst that JPEG meets; the photographs take turns until there are as many as asked.
"""

import sys
from pathlib import Path

import numpy as np

from restormer_cli.commands.restore import page
from restormer_cli.images.io import quantise, read_picture
from restormer_cli.images.listing import find_pictures
from restormer_cli.report import comparison


def main(folder: Path) -> None:
    """One line per number of pictures."""
    cleans = [quantise(read_picture(path).pixels, 8) for path in find_pictures(folder)]
    rng = np.random.default_rng(0)
    noisy = [np.clip(c + rng.normal(0, 25, c.shape), 0, 255).astype(np.uint8) for c in cleans]
    megapixels = sum(c.shape[0] * c.shape[1] for c in cleans) / 1e6 / len(cleans)
    for count in (1, 10, 100, 300):
        share = comparison.share_of_page(count)
        made = [comparison.compare_samples(n, c, share) for n, c in list(zip(noisy, cleans, strict=True))[:count]]
        rows = [page.PictureRow(f"{k}.png", 1, 1, 1.0, comparison=made[k % len(made)]) for k in range(count)]
        size = len(page.restore_page(rows, source="in", target="out", settings=[]).encode())
        print(
            f"{count:4} pictures of {megapixels:.1f} megapixels: {share:10,} pixels each, page of {size / 1e6:.1f} MB"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
