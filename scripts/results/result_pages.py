"""What docs/results.md, docs/reference/comparisons.md, the cards and `--task help` say, from measured comparisons."""

import csv
import hashlib
import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picture_kinds import KINDS

from restormer_cli.benchmark.classical import METHODS
from restormer_cli.model.cards import CHECKPOINTS, MEASURED, Card, bundled_cards, read_cards

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COMPARISONS = DOCS / "reference" / "comparisons.md"


@dataclass(frozen=True)
class Measured:
    """A row of comparisons.toml, the command that measured it and bench's JSON."""

    row: dict[str, Any]
    command: list[str]
    document: dict[str, Any]

    @property
    def summaries(self) -> list[dict[str, Any]]:
        """Input first, then ours, then the others; over all pictures."""
        return [summary for summary in self.document["quality"]["summaries"] if summary["group"] is None]

    @property
    def rival(self) -> dict[str, Any] | None:
        """The classical method with the highest mean PSNR; None where none took part."""
        found = [s for s in self.summaries if s["contestant"] and s["contestant"]["kind"] in METHODS]
        return max(found, key=lambda s: s["measures"]["psnr"]["mean"])["contestant"] if found else None

    def summary(self, kind: str | None) -> dict[str, Any]:
        """Of a kind of contestant, `None` for the input; its first."""
        return next(s for s in self.summaries if (s["contestant"] and s["contestant"]["kind"]) == kind)

    def psnr(self, kind: str | None) -> float | None:
        """Mean PSNR; None where it is infinite."""
        return self.summary(kind)["measures"]["psnr"]["mean"]

    @property
    def margin(self) -> float:
        """What `must` and `aim` are held against, in dB."""
        than = self.row["than"]
        ours = self.psnr("restormer")
        assert ours is not None
        if than == "clean":
            return ours
        if than == "whole":
            tiled = [
                s["measures"]["psnr"]["mean"] for s in self.summaries if s["contestant"] and s["contestant"]["tile"]
            ]
            return min((value - ours for value in tiled), key=lambda d: -abs(d))
        other = self.psnr(None if than == "input" else than)
        assert other is not None
        return ours - other

    @property
    def faster(self) -> float | None:
        """How many times as fast per megapixel as the method in `than`, where the row asks for it."""
        if "faster" not in self.row:
            return None
        ours, other = (self.summary(kind)["seconds_per_megapixel"] for kind in ("restormer", self.row["than"]))
        return other / ours


# --- Pieces of Markdown -------------------------------------------------------------------------------------


def table(one: Measured) -> str:
    """The command and what it found."""
    quality, before = one.document["quality"], one.psnr(None)
    lines = [f"    {shlex.join(one.command)}", "", "| | PSNR, dB | gain | SSIM | s per MP |", "|---|---|---|---|---|"]
    for summary in one.summaries:
        measures, rate = summary["measures"], summary["seconds_per_megapixel"]
        psnr, ssim = measures["psnr"]["mean"], measures["ssim"]["mean"]
        gain = f"{psnr - before:+.2f}" if summary["contestant"] and before is not None else ""
        score = "∞" if psnr is None else f"{psnr:.2f} ± {measures['psnr']['deviation']:.2f}"
        speed = "" if rate is None else f"{rate:.3g}"
        lines.append(f"| {_name(summary['contestant'])} | {score} | {gain} | {ssim:.4f} | {speed} |")
    if quality["failed"]:
        lines.append(f"\n{quality['failed']} photographs failed.")
    return "\n".join(lines)


def _name(contestant: dict[str, Any] | None) -> str:
    if contestant is None:
        return "input"
    if contestant["kind"] == "restormer":
        return f"**{contestant['name']}**"
    return f"{contestant['name']} (strength {contestant['strength']:g})"


def verdicts(
    rows: list[dict[str, Any]], measured: dict[str, Measured], kept: frozenset[str] = frozenset(), before: str = ""
) -> str:
    """What must be shown, what is aimed at, what was reached; rows of the keys `kept` as they are in `before`."""
    lines = ["| task | what | against | must | aim | reached | |", "|---|---|---|---|---|---|---|"]
    missing = []
    for row in rows:
        if "must" not in row:
            continue
        one = measured.get(row["key"])
        if one is None:
            begins = f"| {row['task']} | {row['title']} |"
            old = [line for line in before.splitlines() if line.startswith(begins) and row["key"] in kept]
            lines += old
            missing += [] if old else [row["title"]]
            continue
        lines.append(_verdict(row, row["than"], row["must"], row.get("aim"), one.margin, "dB"))
        if one.faster is not None:
            must, aim = row["faster"]
            lines.append(_verdict(row, f"{row['than']}, speed", must, aim, one.faster, "×"))
    if missing:
        lines += ["", f"Not measured on these weights: {'; '.join(missing)}."]
    return "\n".join(lines)


def _verdict(row: dict[str, Any], than: str, must: float, aim: float | None, value: float, unit: str) -> str:
    signed = unit == "dB" and row["than"] != "clean"

    def show(number: float | None) -> str:
        if number is None:
            return ""
        return f"{number:+.2f} {unit}" if signed else f"{number:.1f} {unit}"

    held = abs(value) <= abs(must) if row["than"] == "whole" and unit == "dB" else value >= must
    word = "aim" if held and aim is not None and value >= aim else "held" if held else "**short**"
    reached = show(value)
    if not held and reached.lstrip("+-") == show(must).lstrip("+-"):  # so little short that two decimals hide it
        reached = f"{value:+.3f} {unit}"
    bound = f"within {abs(must):.2f} dB" if row["than"] == "whole" else show(must)
    words = {
        "input": "its input",
        "clean": "the photograph itself",
        "whole": "the whole photograph",
        "bm3d": "BM3D, told σ",
    }
    method = words.get(than, than) if row["task"] == "denoise" or than == "input" else f"{than}, told the kernel"
    return f"| {row['task']} | {row['title']} | {method} | {bound} | {show(aim)} | {reached} | {word} |"


def conditions(measured: dict[str, Measured], kept: frozenset[str] = frozenset(), before: str = "") -> str:
    """What it was measured on, from the documents themselves; for the keys `kept`, what `before` says."""
    if not measured and not kept:
        return "Nothing is measured yet."
    found = {}
    for one in measured.values():
        machine, crop = one.document["machine"], one.document["quality"]["crop"]
        libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
        where = f"{machine['processor']}, {machine['instructions']}, {machine['threads']} threads; {libraries}"
        found.setdefault(where, []).append((one.row["key"], machine["load"], crop))
    lines = []
    for where, rows in found.items():
        loads = [load for _, load, _ in rows if load is not None]
        load = f"; load before each {min(loads):.1f} to {max(loads):.1f}" if loads else ""
        lines.append(f"Machine: {where}{load} ({', '.join(key for key, _, _ in rows)}).")
    for where, keys in re.findall(r"^Machine: (.*) \(([^()]*)\)\.$", before, re.MULTILINE):
        if still := [key for key in keys.split(", ") if key in kept]:
            lines.append(f"Machine: {where} ({', '.join(still)}).")
    return "\n\n".join(lines)


def validation_list() -> str:
    """The validation photographs, from the list."""
    with (ROOT / "scripts/photographs.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["role"] == "validate"]
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        folder, _, name = row["path"].rpartition("/")
        size = f"{int(row['width']) // int(row['downscale'])}×{int(row['height']) // int(row['downscale'])}"
        found.setdefault((row["package"], folder, row["licence"]), []).append(f"{name} {size}")
    lines = ["| package | folder | photographs | licence |", "|---|---|---|---|"]
    for (package, folder, licence), names in found.items():
        lines.append(f"| {package} | `{folder}` | {', '.join(names)} | {licence} |")
    return "\n".join(lines)


# --- Files --------------------------------------------------------------------------------------------------


def kept_rows(rows: list[dict[str, Any]], measured: dict[str, Measured]) -> frozenset[str]:
    """The keys of rows without a document whose weights are still those that the pages speak of."""
    known = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}
    same = {task for task, found in known.items() if found["weights"] == weights_hash(task)}
    return frozenset(row["key"] for row in rows if row["key"] not in measured and row["task"] in same)


def weights_hash(task: str) -> str:
    """SHA-256 of a bundled checkpoint's file; nothing where there is none."""
    path = CHECKPOINTS / f"{task}.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def block(text: str, name: str) -> str:
    """What stands between `<!-- NAME -->` and `<!-- /NAME -->`."""
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]


def replace_block(text: str, name: str, content: str) -> str:
    """Put content between `<!-- NAME -->` and `<!-- /NAME -->`; exits where the page has no such place."""
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"the page has no place <!-- {name} --> … <!-- /{name} -->")
    return pattern.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text)


BEFORE = "*Measured on the weights before these.*"


def write_results(rows: list[dict[str, Any]], measured: dict[str, Measured], kept: frozenset[str]) -> None:
    """The table of tasks in docs/results.md; docs/reference/comparisons.md: every block between its markers.

    The rows `kept` stay, others without a document say so.

    What such a row says of earlier weights stays under a line that tells it.
    """
    path = DOCS / "results.md"
    path.write_text(replace_block(path.read_text(encoding="utf-8"), "tasks", task_table()), encoding="utf-8")
    text = COMPARISONS.read_text(encoding="utf-8")
    text = replace_block(text, "verdicts", verdicts(rows, measured, kept, block(text, "verdicts")))
    text = replace_block(text, "conditions", conditions(measured, kept, block(text, "conditions")))
    text = replace_block(text, "validation", validation_list())
    for row in rows:
        if row["key"] in kept:
            continue
        one = measured.get(row["key"])
        if one is None and "| **restormer** |" in (old := block(text, row["key"]).strip()):
            text = replace_block(
                text, row["key"], old if BEFORE in old else old.replace("\n\n", f"\n\n{BEFORE}\n\n", 1)
            )
            continue
        content = f"### {row['title']}\n\n" + ("Not measured yet on these weights." if one is None else table(one))
        if one is not None and one.rival is not None and "photographs" not in row:
            words = f"Input, {one.rival['name']}, restormer, clean"
            content += f"\n\n![{words}](../results/{row['key']}.jpg)"
        text = replace_block(text, row["key"], content)
    COMPARISONS.write_text(text, encoding="utf-8")


def task_table() -> str:
    """Every checkpoint on every kind of picture, its own and the others': from docs/results/rows-TASK.json."""
    found = {path.stem.removeprefix("rows-"): json.loads(path.read_text()) for path in DOCS.glob("results/rows-*.json")}
    tasks = [task for task in ("denoise", "motion-deblur", "defocus", "derain") if task in found]
    lines = [f"| dB | input | {' | '.join(f'`{task}`' for task in tasks)} |", "|---" * (2 + len(tasks)) + "|"]
    for row, kind in KINDS.items():
        before = next(found[task][row]["input"]["psnr"] for task in tasks)
        cells = []
        for task in tasks:
            gain = f"{found[task][row]['ours']['psnr'] - before:+.2f}"
            cells.append(f"**{gain}**" if task == kind.task else gain)
        lines.append(f"| {kind.words} | {before:.2f} | {' | '.join(cells)} |")
    kept = [f"{found[task]['clean']['ours']['psnr']:.1f}" for task in tasks]
    lines.append(f"| clean: kept at | | {' | '.join(kept)} |")
    return "\n".join(lines)


def write_measured(
    rows: list[dict[str, Any]],
    measured: dict[str, Measured],
    kept: frozenset[str],
    failures: dict[str, list[dict[str, Any]]],
) -> None:
    """What `--task help` shows beside the headers: only of the weights that were measured, known by their hash."""
    known = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}
    result = {}
    for task, shown in failures.items():
        lines = []
        for row in rows:
            if row["task"] != task:
                continue
            if row["key"] in measured:
                lines.append(_line(measured[row["key"]]))
            elif row["key"] in kept:
                lines += [line for line in known[task]["results"] if line.startswith(f"{row['title']}: ")]
        result[task] = {"weights": weights_hash(task), "results": lines, "failures": shown}
    MEASURED.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _line(one: Measured) -> str:
    """A row in one line."""
    ours, before = one.psnr("restormer"), one.psnr(None)
    words = f"{one.row['title']}: {ours:.2f} dB" + (f" from {before:.2f}" if before is not None else "")
    if one.row["than"] == "whole":
        return f"{one.row['title']}: {one.margin:+.2f} dB at most"
    if one.rival is None:
        return words
    told = one.psnr(one.rival["kind"])
    return f"{words} ({one.rival['name']} {told:.2f})"


def write_cards(tasks: list[str]) -> None:
    """docs/cards/TASK.md, a page for each bundled checkpoint."""
    cards = {card.name: card for card in bundled_cards()}
    for task in tasks:
        (DOCS / "cards").mkdir(exist_ok=True)
        (DOCS / "cards" / f"{task}.md").write_text(_card(cards[task]), encoding="utf-8")


def _cell(text: str) -> str:
    """As a table's cell takes it: a degradation's `|` is no border, nor its `*` an emphasis."""
    return text.replace("|", "\\|").replace("*", "\\*")


def _card(card: Card) -> str:
    written: dict[str, Any] = read_cards().get(card.name, {})
    facts = {label: value for label, value in card.facts().items() if label not in ("file", "data")}
    if "licence" in facts:
        licence, _, photographs = facts["licence"].partition(";")
        facts["licence"] = licence + "; [the photographs'](../results.md#licences-of-the-photographs)" * bool(
            photographs
        )
    if facts.get("validation", "").startswith("no score"):
        del facts["validation"]
    lines = [
        f"# The checkpoint `{card.name}`",
        "",
        "<!-- Written by scripts/results/results.py from the header, checkpoints/cards.toml and measured.json. -->",
        "",
        f"Repairs {written.get('repairs') or card.repairs}. `restormer restore photos/ restored/ --task {card.name}`",
        "",
        "| | |",
        "|---|---|",
        *(f"| {label} | {_cell(value)} |" for label, value in facts.items()),
        "",
        "## What it reaches",
        "",
        "In brackets the best classical method; [how, and what else](../results.md#against-classical-methods).",
        "",
        *(f"- {line}" for line in card.measured.get("results", ())),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in written.get("limits", ())),
        "",
        "## Failure cases",
        "",
        "Input, result, clean, of the [samples](../originals/README.md).",
        "",
    ]
    for number, words in enumerate(card.failures, start=1):
        lines += [f"{words[0].upper()}{words[1:]}.", "", f"![Input, result, clean]({card.name}-{number}.jpg)", ""]
    return "\n".join(lines).rstrip() + "\n"
