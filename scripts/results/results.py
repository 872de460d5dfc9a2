#!/usr/bin/env python3
"""Run every comparison of scripts/results/comparisons.toml through `restormer bench`, and write what they show.

    python scripts/results/results.py                    # all tasks that are bundled; takes about an hour on two cores
    python scripts/results/results.py --only denoise-25  # one row; the others stay as they are
    python scripts/results/results.py --write            # measure nothing, write the pages from what is there

Writes docs/reference/comparisons.md (between its markers) with its pictures, the model cards docs/cards/*.md, and
restormer_cli/checkpoints/measured.json, which `restormer restore --task help` shows.

Each row is kept in docs/results/KEY.json as the JSON of `bench`, with the hash of the weights and the command: an
interrupted run is taken up where it stopped, what is there already is not measured again, and new weights are.
Classical methods get the strengths of strengths.json, tuned on training photographs. They are slow (BM3D: 45 s per
megapixel), so rows score centre crops of --crop pixels (512); --crop 0 scores whole photographs.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from result_pages import Measured, kept_rows, weights_hash, write_cards, write_measured, write_results
from result_pictures import draw_failures, draw_rows
from strengths import STRENGTHS, read_rows

from restormer_cli.model.cards import CHECKPOINTS

KEPT = Path(__file__).resolve().parents[2] / "docs" / "results"


def command_of(row: dict[str, Any], photographs: Path, crop: int, strengths: dict[str, dict[str, float]]) -> list[str]:
    """The row's `restormer bench`, without --json."""
    tuned = strengths.get(row["degrade"], {})
    folder = row.get("photographs", str(photographs))
    against = [f"{name}={tuned[name]:g}" if name in tuned else name for name in row["against"]]
    command = ["restormer", "bench", row["task"], "--clean", folder, "--degrade", row["degrade"]]
    if not row["degrade"].removeprefix("gaussian:").isdecimal():
        command += ["--protocol", "plain"]  # RGB in all tasks, so that gains compare
    if crop and not row.get("whole"):
        command += ["--crop", str(crop)]
    if row.get("tile"):
        command += ["--tile", row["tile"]]
    return [*command, "--against", ",".join(against)] if against else command


def measure(row: dict[str, Any], command: list[str], kept: Path, again: bool) -> Measured:
    """The row's document, from the folder where it was measured on these weights by this command."""
    stamp = {"command": command, "weights": weights_hash(row["task"])}
    if kept.exists() and not again:
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["stamp"] == stamp:
            return Measured(row, command, found["document"])
    print(f"{row['key']}: {shlex.join(command)}", file=sys.stderr, flush=True)
    begun = time.monotonic()
    # This interpreter's package, whatever `restormer` is on the path.
    done = subprocess.run([sys.executable, "-m", "restormer_cli", *command[1:], "--json"], stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{row['key']}: bench ended with {done.returncode}")
    document = json.loads(done.stdout)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"stamp": stamp, "document": document}, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{row['key']}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return Measured(row, command, document)


def load(row: dict[str, Any], kept: Path) -> Measured | None:
    """What is there of a row, if it was measured on the weights that are bundled now."""
    if not kept.exists():
        return None
    found = json.loads(kept.read_text(encoding="utf-8"))
    if found["stamp"]["weights"] != weights_hash(row["task"]):
        print(f"{row['key']}: was measured on other weights; left out", file=sys.stderr)
        return None
    return Measured(row, found["stamp"]["command"], found["document"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, default=Path("datasets/photographs/validate"))
    parser.add_argument("--out", type=Path, default=KEPT, help="keeps what was measured, for every row")
    parser.add_argument("--crop", type=int, default=512, help="centre crops of so many pixels; 0: whole photographs")
    parser.add_argument("--only", action="append", metavar="KEY", help="rows of comparisons.toml (repeat for several)")
    parser.add_argument("--again", action="store_true", help="measure again what is there")
    parser.add_argument("--write", action="store_true", help="measure nothing; write the pages")
    options = parser.parse_args()
    rows = read_rows()
    if unknown := set(options.only or ()) - {row["key"] for row in rows}:
        parser.error(f"no row {', '.join(sorted(unknown))} in comparisons.toml: {', '.join(r['key'] for r in rows)}")
    strengths = json.loads(STRENGTHS.read_text())["strengths"] if STRENGTHS.exists() else {}
    measured = {}
    for row in rows:
        if not (CHECKPOINTS / f"{row['task']}.safetensors").exists():
            print(f"{row['key']}: no checkpoint {row['task']} is bundled; left out", file=sys.stderr)
            continue
        kept = options.out / f"{row['key']}.json"
        if options.write or (options.only and row["key"] not in options.only):
            found = load(row, kept)
        else:
            if untuned := set(row["against"]) - strengths.get(row["degrade"], {}).keys():
                parser.error(
                    f"{row['key']}: {', '.join(sorted(untuned))} not tuned; first python scripts/results/strengths.py"
                )
            command = command_of(row, options.photographs, options.crop, strengths)
            found = measure(row, command, kept, options.again)
        if found is not None:
            measured[row["key"]] = found
    tasks = list(dict.fromkeys(row["task"] for row in rows if (CHECKPOINTS / f"{row['task']}.safetensors").exists()))
    draw_rows(list(measured.values()))
    failures = {task: draw_failures(task) for task in tasks}
    kept = kept_rows(rows, measured)  # before the hashes become today's
    write_measured(rows, measured, kept, failures)
    write_cards(tasks)
    write_results(rows, measured, kept)


if __name__ == "__main__":
    main()
