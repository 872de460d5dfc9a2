"""Checkpoints' descriptions, read from their headers and the cards beside them: no tensor, no torch."""

import json
import tomllib
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, TypedDict

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
CARDS = CHECKPOINTS / "cards.toml"
"""Limits and failure cases of the bundled checkpoints, in words."""
MEASURED = CHECKPOINTS / "measured.json"
"""Their figures, as scripts/results/results.py measured them, with the hash of the weights that it measured."""
MAX_HEADER = 16 << 20

REPAIRS = {
    "denoise": "noise",
    "denoise-fast": "noise, in a third of the time",
    "deblur": "motion blur",
    "motion-deblur": "motion blur",
    "defocus": "a lens out of focus",
    "dual-pixel": "a lens out of focus, from two views",
    "derain": "streaks of rain",
    "dejpeg": "JPEG artefacts",
}
"""In a few words, for a header that does not say so itself under `repairs`."""

FOLDERS = ("degraded", "right", "clean")
"""Keys of a recipe's `data.train` that name folders."""


class Header(TypedDict, total=False):
    """`__metadata__` of a safetensors file; all but plain strings are JSON."""

    format: str
    """"restormer-cli/1"."""
    model: dict[str, Any]
    """The whole network configuration: `[model]` of a recipe."""
    task: str
    """What it is for."""
    recipe: dict[str, Any]
    """The resolved recipe: data, stages, degradations, every default."""
    training: "TrainingEntry"
    """Where the weights come from."""
    licence: str
    """Of the weights, where the recipe says."""
    bf16_loss: float
    """What bf16 costs, in dB: the largest mean over kinds of pictures, where clean ones stay at 45 dB or more.
    `--precision auto` takes bf16 on a GPU up to 0.02."""
    verified: dict[str, Any]
    """Of exported files: the comparison with the network."""


class TrainingEntry(TypedDict, total=False):
    """One run folder, however often it was interrupted."""

    iterations: int
    """Done."""
    of: int
    """The recipe's total."""
    seconds: float
    """In steps."""
    machines: list[str]
    """What they ran on."""
    hours: float
    """The seconds of this and all earlier phases."""
    seed: int
    """The recipe's."""
    precision: str
    """The one that `auto` chose."""
    megapixels: float
    """Of patches, where trained by the clock (`scripts/gpu/learn`)."""
    data: dict[str, Any]
    """Number of training pictures; SHA-256 over names, sizes and pixels (not the encoding)."""
    teacher: dict[str, Any]
    """Of the network whose answers were targets: its task, and the SHA-256 of its file of weights."""
    validation: dict[str, Any]
    """The newest score."""
    mean_with: str
    """SHA-256 of a file of weights, where these are the mean of it and of what the training came to."""
    earlier: "list[EarlierEntry]"
    """The phases that led to the recipe's `init`, the first one first, as far as its header tells."""


class EarlierEntry(TrainingEntry, total=False):
    """An earlier phase."""

    task: str
    sha256: str
    """Of its file of weights."""


@dataclass(frozen=True)
class Card:
    """A checkpoint's name and header; every field of the header may be missing or odd."""

    name: str
    path: Path
    header: dict[str, Any]

    @property
    def written(self) -> dict[str, Any]:
        """Entry of a bundled checkpoint in cards.toml; empty for other files."""
        return read_cards().get(self.name, {}) if self.path.parent == CHECKPOINTS else {}

    @property
    def measured(self) -> dict[str, Any]:
        """Measured results of a bundled checkpoint, if they are of exactly these weights."""
        if self.path.parent != CHECKPOINTS or not MEASURED.is_file():
            return {}
        found = json.loads(MEASURED.read_text(encoding="utf-8")).get(self.name, {})
        return found if found.get("weights") == sha256(self.path.read_bytes()).hexdigest() else {}

    @property
    def repairs(self) -> str:
        """Purpose, in a few words."""
        task = str(self.header.get("task") or self.name)
        own = REPAIRS.get(self.name) if self.path.parent == CHECKPOINTS else None  # two may have one task
        return str(self.header.get("repairs") or own or REPAIRS.get(task, task))

    @property
    def degraded(self) -> str | None:
        """How clean pictures were degraded for training, where they were, in the recipe's words."""
        steps = _at(self.header, "recipe", "degrade", "steps")
        return " + ".join(map(str, steps)) if isinstance(steps, list) and steps else None

    @property
    def training(self) -> str:
        """How long, on patches up to which size."""
        iterations, stages = _at(self.header, "training", "iterations"), _at(self.header, "recipe", "stage")
        words = f"{iterations:,} iterations" if isinstance(iterations, int) else "training not recorded"
        patches = [_at(stage, "patch") for stage in stages] if isinstance(stages, list) else []
        patches = [patch for patch in patches if isinstance(patch, int)]
        return f"{words}, patches up to {max(patches)}²" if patches else words

    @property
    def history(self) -> str:
        """`training`, its machines, and the legs and hours behind it, as far as they are recorded."""
        words = self.training
        machines = _at(self.header, "training", "machines")
        words += f", on {' and '.join(map(str, machines))}" if isinstance(machines, list) and machines else ""
        hours, earlier = _at(self.header, "training", "hours"), _at(self.header, "training", "earlier")
        earlier = earlier if isinstance(earlier, list) else []
        recorded = [leg for leg in earlier if isinstance(_at(leg, "iterations"), int)]
        legs = []
        for task, same in groupby(recorded, lambda leg: _at(leg, "task")):
            lengths = [_at(leg, "iterations") for leg in same]
            count = f"{len(lengths)} legs, " if len(lengths) > 1 else ""
            legs.append(f"{task} ({count}{sum(lengths):,} iterations)")
        words += f"; before it {' and '.join(legs)}" if legs else ""
        return words + (f"; {hours:.1f} hours in all" if isinstance(hours, float) else "")

    @property
    def failures(self) -> list[str]:
        """Where it fails, each with what it does to a sample's PSNR, where that was measured."""
        failures, figures = self.written.get("failures", []), self.measured.get("failures", [])
        found = []
        for number, failure in enumerate(failures):
            words = failure["words"]
            if number < len(figures):
                before, after = figures[number]["before"], figures[number]["after"]
                change = f"to {after:.1f} dB" if before is None else f"from {before:.1f} to {after:.1f} dB"
                words += f" ({failure['degrade']}: {change})"
            found.append(words)
        return found

    @property
    def score(self) -> str:
        """Score of its own validation."""
        validation = _at(self.header, "training", "validation")
        if not isinstance(validation, dict) or not isinstance(validation.get("psnr"), float):
            return "no score recorded"
        before, pictures = validation.get("input_psnr"), validation.get("pictures")
        words = f"{validation['psnr']:.2f} dB"
        words += f" from {before:.2f}" if isinstance(before, float) else ""
        return words + (f" on {pictures} photographs" if isinstance(pictures, int) else "")

    @property
    def validation(self) -> str:
        """`score`, what the photographs were degraded with, how much of each was taken, and whether bf16 rounded it.

        Training validates in its own precision, so that scores of legs in bf16 and in fp32 do not compare.
        """
        on, crop = (_at(self.header, "recipe", "validation", key) for key in ("degrade", "crop"))
        words = self.score + (f" with {'+'.join(map(str, on))}" if isinstance(on, list) and on else "")
        words += f", centre crops of {crop}²" if isinstance(crop, int) and crop else ""
        return words + (", in bf16" if _at(self.header, "training", "precision") == "bf16" else "")

    def line(self) -> str:
        """The card in one line."""
        return f"{self.repairs}; {self.training}; {self.score}"

    def facts(self) -> dict[str, str]:
        """Entries of the header, by label."""
        model, data = self.header.get("model"), _at(self.header, "recipe", "data", "train")
        facts = {"degraded by": self.degraded or "", "training": self.history, "validation": self.validation}
        if data:
            folders = [data.get(key) for key in FOLDERS] if isinstance(data, dict) else [data]
            facts["data"] = ", ".join(folder for folder in folders if isinstance(folder, str))
            digest = _at(self.header, "training", "data", "sha256")
            facts["data"] += f" (sha256 {digest[:16]}…)" if isinstance(digest, str) else ""
        if isinstance(model, dict):
            blocks = model.get("blocks")
            blocks = "-".join(map(str, blocks)) if isinstance(blocks, list) else blocks
            facts["network"] = f"dim {model.get('dim')}, blocks {blocks}, refinement {model.get('refinement')}"
        facts["licence"] = str(self.header.get("licence") or "not recorded")
        facts["file"] = f"{self.path} ({self.path.stat().st_size / 1e6:.1f} MB)"
        return {label: text for label, text in facts.items() if text}

    def page(self) -> str:
        """The card in full, a fact a line; of a bundled checkpoint also what it reaches, its limits and failures."""
        rows = [("repairs", str(self.written.get("repairs") or self.repairs)), *self.facts().items()]
        for label, texts in (
            ("reaches", self.measured.get("results", [])),
            ("limits", self.written.get("limits", [])),
            ("fails", self.failures),
        ):
            rows += [("" if number else label, text) for number, text in enumerate(texts)]
        if self.written:
            rows.append(("pictures", f"docs/cards/{self.name}.md"))
        return "\n".join([self.name, *(f"  {label:<12}{value}" for label, value in rows)])


def read_cards() -> dict[str, Any]:
    """cards.toml: name of a checkpoint -> repairs, limits and failures."""
    return tomllib.loads(CARDS.read_text(encoding="utf-8"))


def bundled_cards() -> list[Card]:
    """The cards of the checkpoints in the package, by name."""
    paths = sorted(CHECKPOINTS.glob("*.safetensors"), key=lambda path: path.stem)
    return [Card(path.stem, path, read_header(path)) for path in paths]


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, JSON entries decoded; empty where there is none to be read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries = json.loads(file.read(length)) if length <= MAX_HEADER else {}
    except (OSError, ValueError, RecursionError):
        return {}
    metadata = entries.get("__metadata__") if isinstance(entries, dict) else None
    return {key: _decoded(text) for key, text in metadata.items()} if isinstance(metadata, dict) else {}


def _decoded(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return text


def _at(value: Any, *keys: str) -> Any:
    """The entry of nested dictionaries; None where the way ends early."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
