#!/usr/bin/env python3
"""Prepare the sharp photographs (sharp_photographs.csv) for training and validation.

    python scripts/sharp_photographs.py --from FOLDER --out datasets/sharp

FOLDER holds the AVIF files that the list names: photographs from public repositories and packages, shrunk by the factor
in the list and stored without halving the colours. Writes PNG to OUT/train and OUT/validate, by the list's role; the
two share no photographer and no package. Exit code 3 where files are missing.
"""

import argparse
import csv
import sys
from pathlib import Path

from PIL import Image

LIST = Path(__file__).with_suffix(".csv")


def rows(role: str) -> list[dict[str, str]]:
    """The list's rows of a role: train, validate or spare."""
    with LIST.open(newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if row["role"] == role]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, required=True, help="folder of the listed files")
    parser.add_argument("--out", type=Path, default=Path("datasets/sharp"))
    options = parser.parse_args()
    missing = 0
    for role in ("train", "validate"):
        (options.out / role).mkdir(parents=True, exist_ok=True)
        for row in rows(role):
            source, target = options.source / row["file"], options.out / role / f"{Path(row['file']).stem}.png"
            if not source.is_file():
                missing += 1
                print(f"{source}: missing", file=sys.stderr)
            elif not target.exists():
                with Image.open(source) as picture:
                    picture.convert("RGB").save(target, compress_level=1)
        print(f"{role}: {len(list((options.out / role).glob('*.png')))} photographs in {options.out / role}")
    return 3 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
