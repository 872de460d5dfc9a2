"""What checkpoints say about themselves, read from their headers alone: no tensor, no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
MAX_HEADER = 16 << 20

REPAIRS = {
    "denoise": "noise",
    "deblur": "motion blur",
    "motion-deblur": "motion blur",
    "defocus": "a lens out of focus",
    "dual-pixel": "a lens out of focus, from two views",
    "derain": "streaks of rain",
    "dejpeg": "JPEG artefacts",
}
"""In a few words, for a header that does not say so itself under `repairs`."""


@dataclass(frozen=True)
class Card:
    """A checkpoint's name and header; every field of the header may be missing or odd."""

    name: str
    path: Path
    header: dict[str, Any]

    @property
    def repairs(self) -> str:
        """What it is for, with the degradation it was trained on where pictures were made worse for it."""
        task = str(self.header.get("task") or self.name)
        words = self.header.get("repairs") or REPAIRS.get(task, task)
        steps = _at(self.header, "recipe", "degrade", "steps")
        return f"{words} ({'+'.join(map(str, steps))})" if isinstance(steps, list) and steps else str(words)

    @property
    def training(self) -> str:
        """How long, and on patches up to which size."""
        iterations, stages = _at(self.header, "training", "iterations"), _at(self.header, "recipe", "stage")
        words = f"{iterations:,} iterations" if isinstance(iterations, int) else "training not recorded"
        patches = [_at(stage, "patch") for stage in stages] if isinstance(stages, list) else []
        patches = [patch for patch in patches if isinstance(patch, int)]
        return f"{words}, patches up to {max(patches)}²" if patches else words

    @property
    def score(self) -> str:
        """What it reached in its own validation."""
        validation = _at(self.header, "training", "validation")
        if not isinstance(validation, dict) or not isinstance(validation.get("psnr"), float):
            return "no score recorded"
        on = _at(self.header, "recipe", "validation", "degrade")
        before, pictures = validation.get("input_psnr"), validation.get("pictures")
        words = f"{validation['psnr']:.2f} dB"
        words += f" from {before:.2f}" if isinstance(before, float) else ""
        words += f" on {pictures} photographs" if isinstance(pictures, int) else ""
        return words + (f" with {'+'.join(map(str, on))}" if isinstance(on, list) and on else "")

    def line(self) -> str:
        """The card in one line."""
        return f"{self.repairs}; {self.training}; {self.score}"

    def page(self) -> str:
        """The card in full, a fact a line."""
        model = self.header.get("model")
        facts = {"repairs": self.repairs, "training": self.training, "validation": self.score}
        if data := _at(self.header, "recipe", "data", "train"):
            folders = data.values() if isinstance(data, dict) else [data]
            facts["data"] = ", ".join(folder for folder in folders if isinstance(folder, str))
        if isinstance(model, dict):
            blocks = "-".join(map(str, model.get("blocks", [])))
            facts["network"] = f"dim {model.get('dim')}, blocks {blocks}, refinement {model.get('refinement')}"
        facts["licence"] = str(self.header.get("licence") or "not recorded")
        facts["file"] = f"{self.path} ({self.path.stat().st_size / 1e6:.1f} MB)"
        return "\n".join([self.name, *(f"  {label:<11}{value}" for label, value in facts.items())])


def bundled_cards() -> list[Card]:
    """The cards of the checkpoints in the package, by name."""
    return [Card(path.stem, path, read_header(path)) for path in sorted(CHECKPOINTS.glob("*.safetensors"))]


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
