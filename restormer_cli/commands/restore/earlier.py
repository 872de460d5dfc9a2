"""What earlier runs wrote, so that results are not taken for inputs.

Where results lie in or below the folder of the inputs, a hidden file beside them says so: the names of the results, or
a star where all of the folder is an OUT. A name alone proves nothing: `a_x.png` beside `a.png` may be the user's own.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

RECORD = ".restormer-results"
ALL = "*"


def recorded(folder: Path) -> set[str]:
    """The names of results in a folder, by its record."""
    try:
        return set((folder / RECORD).read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    except OSError:
        return set()


def is_earlier_out(folder: Path) -> bool:
    """Whether a folder was the OUT of a run whose IN lies above it."""
    return ALL in recorded(folder)


def record(targets: Iterable[Path], sources: Iterable[Path], out: Path) -> None:
    """Say of results that they are some, where a later run could take them for inputs.

    sources: the INs; out: the OUT. What cannot be written is left: it only serves later runs.
    """
    results = out.resolve()
    for source in sources:
        here = source.resolve()
        if here in results.parents:
            _add(out, [ALL])
        elif here == results:
            by_folder: dict[Path, list[str]] = {}
            for target in targets:
                by_folder.setdefault(target.parent, []).append(target.name)
            for folder, names in by_folder.items():
                _add(folder, names)


def _add(folder: Path, names: list[str]) -> None:
    with suppress(OSError):
        new = sorted(set(names) - recorded(folder))
        if new:
            os.makedirs(folder, exist_ok=True)
            with open(folder / RECORD, "a", encoding="utf-8", errors="surrogateescape") as stream:
                stream.write("".join(f"{name}\n" for name in new if "\n" not in name))
