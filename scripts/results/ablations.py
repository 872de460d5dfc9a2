"""The compact ablations of docs/reference/ablations.md, over hours: trained seed by seed, resumable, and written down.

    python scripts/results/ablations.py --out runs/ablations --data datasets/photographs  # start, or go on
    python scripts/results/ablations.py --out runs/ablations --only shape                 # one of the comparisons
    python scripts/results/ablations.py --out runs/ablations --write docs/reference/ablations.md   # tables, figures

Depth against width first, then attention and feed-forward network, one seed of each after the other, so that
whenever it ends every comparison has about equally many. `third` and `today` (networks of about equal seconds per
megapixel, on the sharp photographs) are trained only when they are named, with one seed and their recipe's length.
Ctrl-C and SIGTERM keep a checkpoint, a kill costs what came after the last one (50 iterations); the same command goes
on. With OMP_NUM_THREADS=1 two comparisons may run at the same time, each on a core: a third faster than one after the
other on both, or slower, where they wait for memory (docs/log.md). Tables come from the result.json that each
comparison keeps of its complete seeds; what has none leaves its part of the page as it is.
"""

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from restormer_cli.commands.ablate.types import Estimate
from restormer_cli.commands.ablate.verdict import CONFIDENCE, estimate
from restormer_cli.files import write_atomically

COMPARISONS = {
    "shape": ("--deep-narrow", "vs", "--middle", "vs", "--wide-shallow"),
    "blocks": ("--mdta", "--gdfn", "vs", "--mta", "--gdfn", "vs", "--mdta", "--fn", "vs", "--mta", "--fn"),
}
SECONDS = {
    "today": ((20, (0, 7, 3, 1)), (32, (0, 3, 1, 0))),
    "third": ((12, (0, 4, 2, 1)), (24, (0, 1, 0, 0)), (16, (0, 1, 2, 2))),
}
"""Dim and blocks of the networks beside the bundled one, seconds/NAME.toml, by about its seconds per megapixel."""
TITLES = {
    "shape": "Deeper or wider",
    "blocks": "Attention and feed-forward network",
    "today": "About the seconds of `denoise`",
    "third": "About the seconds of `denoise-fast`",
}
BLOCK = "<!-- {}: begin -->", "<!-- {}: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--data", type=Path, default=Path("datasets/photographs"))
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=(*COMPARISONS, *SECONDS), help="train this comparison only")
    parser.add_argument("--write", type=Path, help="write tables into this page and figures beside it; train nothing")
    arguments = parser.parse_args()
    if arguments.write is None:
        train(arguments)
        print(tables(arguments.out, {}), seconds_tables(arguments.out, {}))
        return
    figures = draw(arguments.out, arguments.write.parent)
    text = arguments.write.read_text(encoding="utf-8")
    for block, names, content in (("results", COMPARISONS, tables), ("seconds", SECONDS, seconds_tables)):
        if not any((arguments.out / name / "result.json").exists() for name in names):
            continue
        begin, end = (marker.format(block) for marker in BLOCK)
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        assert after, f"{arguments.write}: has no {begin} … {end}"
        text = f"{before}{begin}\n\n{content(arguments.out, figures)}\n{end}{after}"
    write_atomically(arguments.write, lambda stream: stream.write(text.encode()))


def train(arguments: argparse.Namespace) -> None:
    """Every comparison with one seed, then with two …; what is done is passed over."""
    if arguments.only in SECONDS:
        run([*by_seconds(arguments.only), "--seeds", "1", "--resume", "--out", str(arguments.out / arguments.only)])
        return
    for seeds in range(1, arguments.seeds + 1):
        for name, arms in COMPARISONS.items():
            if arguments.only not in (None, name) or complete(arguments.out / name) >= seeds:
                continue
            options = ["--seeds", seeds, "--iterations", arguments.iterations, "--out", arguments.out / name]
            options += ["--data", arguments.data / "train", "--validate", arguments.data / "validate", "--resume"]
            run([*arms, *map(str, options)])


def by_seconds(name: str) -> list[str]:
    """The arms and flags of a comparison of SECONDS."""
    arms = [f"scripts/results/seconds/{name}.toml"]
    for dim, blocks in SECONDS[name]:
        arm = f"{dim}-{''.join(map(str, blocks))}"
        values = f"model.dim={dim},model.blocks={json.dumps(blocks, separators=(',', ':'))}"
        arms += ["vs", "--arm", f"{arm}:{values},model.refinement=0,model.expansion=2.0"]
    return [*arms, "--any-budget", "--equal", "time"]


def run(arguments: list[str]) -> None:
    """`restormer ablate`; ends this program where that ends otherwise than well."""
    command = [sys.executable, "-m", "restormer_cli", "ablate", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        try:
            code = child.wait()
        except KeyboardInterrupt:  # the child has it too, and keeps a checkpoint
            code = child.wait()
    if code:
        sys.exit(code)


def complete(folder: Path) -> int:
    """How many seeds a comparison has."""
    path = folder / "result.json"
    return len(json.loads(path.read_text(encoding="utf-8"))["seeds"]) if path.exists() else 0


# --- Tables ---------------------------------------------------------------------------------------------------


def draw(folder: Path, beside: Path) -> dict[str, str]:
    """Each comparison's figure in a palette of 64 colours (a quarter of the bytes): Markdown by comparison."""
    shown = {}
    for name in (*COMPARISONS, *SECONDS):
        path = folder / name / "figure.png"
        if path.exists():
            with Image.open(path) as figure:
                figure.convert("RGB").quantize(64).save(beside / f"ablation-{name}.png", optimize=True)
            shown[name] = f"![Accuracy against speed, and by iteration](ablation-{name}.png)\n"
    return shown


def tables(folder: Path, figures: dict[str, str]) -> str:
    """Markdown of every comparison that has a complete seed."""
    parts = []
    for name in COMPARISONS:
        path = folder / name / "result.json"
        if not path.exists():
            parts.append(f"`{name}`: no seed is complete yet.\n")
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        detectable = document["trust"].partition(" This holds")[0]
        parts += [heading(name, document), arms_table(document), f"{detectable}\n"]
        if name == "blocks":
            parts.append(effects(document))
        if name in figures:
            parts.append(figures[name])
    return "\n".join(parts)


def seconds_tables(folder: Path, figures: dict[str, str]) -> str:
    """Markdown of the comparisons by seconds that there are."""
    parts = []
    for name in SECONDS:
        path = folder / name / "result.json"
        if path.exists():
            document = json.loads(path.read_text(encoding="utf-8"))
            parts += [heading(name, document), seconds_table(document), figures.get(name, "")]
    return "\n".join(parts)


def heading(name: str, document: dict[str, Any]) -> str:
    """What was compared, on what, and the command that does it."""
    machine = document["machine"]
    title, command = TITLES[name], f"python scripts/results/ablations.py --only {name}"
    if name in COMPARISONS:
        arms, seeds = " ".join(COMPARISONS[name]), len(document["seeds"])
        command = f"restormer ablate {arms} --seeds {seeds} --iterations {document['iterations']} "
        command += "--data datasets/photographs/train --validate datasets/photographs/validate"
    crop = f"centre crops of {document['crop']} pixels" if document["crop"] else "whole"
    return (
        f"## {title}\n\n`{command}`: seeds {', '.join(map(str, document['seeds']))}; "
        f"{document['degradation']}, {document['pictures']} photographs, {crop}; {machine['processor']}, "
        f"{machine['threads']} thread{'s' * (machine['threads'] > 1)}, torch {machine['libraries']['torch']}.\n"
    )


def arms_table(document: dict[str, Any]) -> str:
    """Our figures beside the paper's."""
    differences = {row["other"]: row for row in document["differences"]}
    first = document["arms"][0]["name"]
    lines = [
        "| arm | parameters | conv / all GMACs | training, s | s per MP | peak, GB | PSNR, dB | "
        f"{first} − | interval, dB | the paper's |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in document["arms"]:
        row = differences.get(arm["name"])
        macs = f"{arm['conv_macs'] / 1e9:.2f} / {(arm['conv_macs'] + arm['attention_macs']) / 1e9:.2f}"
        cells = [
            arm["name"],
            f"{arm['parameters']:,}",
            macs,
            f"{arm['training_seconds']:.0f}",
            "–" if arm["seconds_per_megapixel"] is None else f"{arm['seconds_per_megapixel']:.3g}",
            "–" if arm["peak"] is None else f"{arm['peak'] / 1e9:.2f}",
            f"{arm['psnr']:.3f} ± {arm['psnr_error']:.3f}",
            "" if row is None else f"{row['mean']:+.3f}",
            "" if row is None else interval(row),
            published(arm),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def seconds_table(document: dict[str, Any]) -> str:
    """Networks of about equal seconds, by what they cost and reach."""
    lines = [
        "| dim and blocks | parameters | training, s | s per MP | PSNR, dB |",
        "|---|---|---|---|---|",
    ]
    for arm in document["arms"]:
        model = arm["model"]
        cells = [
            f"{model['dim']}, {'-'.join(map(str, model['blocks']))}",
            f"{arm['parameters']:,}",
            f"{arm['training_seconds']:.0f}",
            f"{arm['seconds_per_megapixel']:.3g}",
            f"{arm['psnr']:.2f} ± {arm['psnr_error']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def published(arm: dict[str, Any]) -> str:
    """The paper's figure, and whether it is only recalled."""
    figure = arm["published"]
    return "–" if figure is None else f"{figure['psnr']:.2f}{' (recalled)' * figure['recalled']}"


def interval(row: dict[str, Any]) -> str:
    """As a range with its confidence; none after one seed."""
    if row["low"] is None:
        return "none: one seed"
    return f"{row['low']:+.3f} to {row['high']:+.3f} ({100 * row['confidence']:.3g} %)"


def effects(document: dict[str, Any]) -> str:
    """The main effects of the 2 × 2 design: each is paired over the other factor, seeds and pictures."""
    scores = {
        arm["name"]: np.array([[picture["psnr"] for picture in run["pictures"]] for run in arm["runs"]])
        for arm in document["arms"]
    }
    paper = {arm["name"]: arm["published"]["psnr"] for arm in document["arms"]}
    lines = ["| effect, dB | ours | interval | the paper's |", "|---|---|---|---|"]
    for name, better, worse in (
        ("MDTA − MTA", ("mdta+gdfn", "mdta+fn"), ("mta+gdfn", "mta+fn")),
        ("GDFN − FN", ("mdta+gdfn", "mta+gdfn"), ("mdta+fn", "mta+fn")),
    ):
        table = sum(scores[a] - scores[b] for a, b in zip(better, worse, strict=True)) / 2
        assert isinstance(table, np.ndarray)
        theirs = sum(paper[a] - paper[b] for a, b in zip(better, worse, strict=True)) / 2
        found: Estimate = estimate(table, CONFIDENCE)
        row = {"low": found.low, "high": found.high, "confidence": found.confidence}
        lines.append(f"| {name} | {found.mean:+.3f} | {interval(row)} | {theirs:+.3f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
