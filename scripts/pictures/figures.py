"""Draw the docs' two figures from the code: docs/architecture.svg and docs/schedule.svg.

    python scripts/pictures/figures.py

The numbers are those of `ModelConfig()` and of the recipe's default stages, the paper's.
"""

from html import escape
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from restormer_cli.model.config import ModelConfig
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import read_recipe
from restormer_cli.training.schedule import learning_rate

DOCS = Path(__file__).resolve().parents[2] / "docs"
LOCAL, SUMS, PLAIN, INK = "#dceaf7", "#f9dfc2", "#eeeeea", "#222222"


def main() -> None:
    (DOCS / "architecture.svg").write_text(architecture(ModelConfig()), encoding="utf-8")
    draw_schedule(read_recipe("derain"), DOCS / "schedule.svg")


# --- The network --------------------------------------------------------------------------------------------------


def box(x: float, y: float, w: float, h: float, *lines: str, fill: str = LOCAL) -> str:
    """A rectangle with its lines of text in the middle."""
    first = y + h / 2 + 4.5 - 8 * (len(lines) - 1)
    words = "".join(text(x + w / 2, first + 16 * row, line) for row, line in enumerate(lines))
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="5" fill="{fill}" stroke="#777"/>{words}'


def text(x: float, y: float, words: str, *, size: int = 13, anchor: str = "middle", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'


def arrow(*points: tuple[float, float], dashed: bool = False) -> str:
    line = " ".join(f"{x},{y}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{line}" fill="none" stroke="{INK}"{dash} marker-end="url(#tip)"/>'


def knot(x: float, y: float, sign: str) -> str:
    """A circle with a sign: a sum, or a product."""
    return f'<circle cx="{x}" cy="{y}" r="11" fill="white" stroke="#777"/>{text(x, y + 5, sign, size=15)}'


def architecture(config: ModelConfig) -> str:
    """The U above, the two halves of a block below; colours say what sees how far."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1130 800" font-family="Helvetica, Arial, sans-serif" '
        f'fill="{INK}"><defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0 8 4 0 8z" fill="{INK}"/></marker></defs>'
        '<rect width="1130" height="800" rx="8" fill="white"/>',
        *_u(config),
        *_mdta(),
        *_gdfn(config),
        *_legend(),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _u(config: ModelConfig) -> list[str]:
    rows = [90, 190, 290, 390]
    c, heads, blocks = config.channels, config.heads, config.blocks
    sides = ["h×w", "h/2×w/2", "h/4×w/4", "h/8×w/8"]

    def level(x: float, row: int, channels: int) -> str:
        words = f"{blocks[row]} blocks, {heads[row]} head{'s' * (heads[row] > 1)}"
        return box(x, rows[row], 140, 56, words, f"{sides[row]} × {channels}", fill=SUMS)

    wide = config.level1_channels
    parts = [
        box(20, 90, 80, 56, "picture", "h×w×3", fill=PLAIN),
        box(120, 90, 50, 56, "conv", "3×3"),
        *(level(190 + 50 * row, row, c[row]) for row in range(3)),
        level(420, 3, c[3]),
        *(level(650 - 50 * row, row, wide if row == 0 else c[row]) for row in range(3)),
        box(810, 90, 115, 56, f"{config.refinement} blocks: refine", f"h×w × {wide}", fill=SUMS),
        box(943, 90, 46, 56, "conv", "3×3"),
        knot(1012, 118, "+"),
        box(1034, 90, 82, 56, "restored", "h×w×3", fill=PLAIN),
        arrow((100, 118), (119, 118)),
        arrow((170, 118), (189, 118)),
        arrow((285, 146), (285, 189)),
        arrow((335, 246), (335, 289)),
        arrow((360, 346), (360, 418), (419, 418)),
        arrow((560, 418), (620, 418), (620, 347)),
        arrow((645, 290), (645, 247)),
        arrow((695, 190), (695, 147)),
        arrow((790, 118), (809, 118)),
        arrow((925, 118), (942, 118)),
        arrow((989, 118), (1000, 118)),
        arrow((1023, 118), (1033, 118)),
        arrow((60, 90), (60, 50), (1012, 50), (1012, 106)),
        text(536, 42, "global residual: the network adds to the picture (not in dual-pixel networks)"),
        text(490, 110, "skip: concatenate"),
        text(490, 210, "concatenate, 1×1"),
        text(490, 311, "concatenate, 1×1", size=12),
        text(20, 30, f"Restormer, C = {config.dim}", size=16, anchor="start", bold=True),
        text(275, 172, "halve, unshuffle", anchor="end", size=12),
        text(325, 272, "halve, unshuffle", anchor="end", size=12),
        text(350, 385, "halve, unshuffle", anchor="end", size=12),
        text(705, 172, "double, shuffle", anchor="start", size=12),
        text(655, 272, "double, shuffle", anchor="start", size=12),
        text(630, 385, "double, shuffle", anchor="start", size=12),
    ]
    parts += [arrow((330 + 50 * row, rows[row] + 28), (649 - 50 * row, rows[row] + 28)) for row in range(3)]
    return parts


def _mdta() -> list[str]:
    y = 610
    return [
        '<rect x="14" y="480" width="546" height="262" rx="8" fill="none" stroke="#bbb"/>',
        text(28, 504, "a block's first half: x + MDTA(norm(x))", size=15, anchor="start", bold=True),
        text(28, 524, "attention between channels, so its cost is linear in pixels", anchor="start", size=12),
        arrow((20, y), (39, y)),
        box(40, y - 20, 58, 40, "norm"),
        arrow((98, y), (111, y)),
        box(112, y - 20, 56, 40, "1×1", "C → 3C"),
        arrow((168, y), (179, y)),
        box(180, y - 20, 72, 40, "depth-", "wise 3×3"),
        *(box(268, y - 66 + 52 * row, 26, 28, name) for row, name in enumerate("qkv")),
        *(arrow((252, y), (267, y - 52 + 52 * row)) for row in range(3)),
        box(308, y - 62, 138, 78, "Σ q kᵀ, Σ q², Σ k²", "over all pixels;", "A = softmax(τ q̂ k̂ᵀ)", fill=SUMS),
        arrow((294, y - 52), (307, y - 40)),
        arrow((294, y), (307, y - 10)),
        arrow((294, y + 52), (466, y + 52), (466, y + 12)),
        arrow((446, y - 24), (466, y - 24), (466, y - 12)),
        knot(466, y, "·"),
        arrow((477, y), (487, y)),
        box(488, y - 20, 30, 40, "1×1"),
        arrow((518, y), (527, y)),
        knot(539, y, "+"),
        arrow((28, y), (28, y + 92), (539, y + 92), (539, y + 12)),
        text(290, y + 112, "A: C/heads × C/heads per head; no pixel ever meets another one directly", size=12),
    ]


def _gdfn(config: ModelConfig) -> list[str]:
    y, gamma = 610, config.expansion
    parts = [
        '<rect x="574" y="480" width="546" height="262" rx="8" fill="none" stroke="#bbb"/>',
        text(588, 504, "its second half: x + GDFN(norm(x))", size=15, anchor="start", bold=True),
        text(588, 524, f"a gate opens or shuts each of {gamma} C channels, pixel by pixel", anchor="start", size=12),
        arrow((580, y), (605, y)),
        box(606, y - 20, 58, 40, "norm"),
        knot(974, y, "⊙"),
        arrow((985, y), (999, y)),
        box(1000, y - 20, 74, 40, "1×1", f"{gamma}C → C"),
        arrow((1074, y), (1082, y)),
        knot(1094, y, "+"),
        arrow((590, y), (590, y + 92), (1094, y + 92), (1094, y + 12)),
        arrow((936, y - 34), (974, y - 34), (974, y - 12)),
        arrow((864, y + 40), (974, y + 40), (974, y + 12)),
        box(884, y - 54, 52, 40, "GELU"),
        arrow((864, y - 34), (883, y - 34)),
        text(850, y + 112, "3×3 is as far as it sees", size=12),
    ]
    for at in (y - 34, y + 40):
        parts += [
            arrow((664, y), (691, at)),
            box(692, at - 20, 78, 40, "1×1", f"C → {gamma}C"),
            arrow((770, at), (785, at)),
            box(786, at - 20, 78, 40, "depth-", "wise 3×3"),
        ]
    return parts


def _legend() -> list[str]:
    entries = (
        (LOCAL, "sees at most a 3×3 neighbourhood: computed strip by strip"),
        (SUMS, "sums over all pixels, which add up over strips"),
    )
    parts, x = [], 60.0
    for colour, words in entries:
        parts += [
            f'<rect x="{x}" y="760" width="22" height="16" rx="3" fill="{colour}" stroke="#777"/>',
            text(x + 30, 773, words, anchor="start"),
        ]
        x += 480
    return parts


# --- The schedule -------------------------------------------------------------------------------------------------


def draw_schedule(recipe: Recipe, path: Path) -> None:
    """Patch, batch and learning rate over the iterations of a recipe."""
    matplotlib.rcParams["svg.hashsalt"] = "restormer"  # the same file every time
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    FigureCanvasSVG(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    ends = [0]
    for stage in recipe.stage:
        ends.append(ends[-1] + stage.iterations)
    edges = [end / 1000 for end in ends]
    above.stairs([stage.patch for stage in recipe.stage], edges, baseline=None, color="tab:blue", linewidth=2)
    above.set(ylabel="patch side, pixels", ylim=(0, 430))
    batches = above.twinx()
    batches.stairs([stage.batch for stage in recipe.stage], edges, baseline=None, color="tab:orange", linewidth=2)
    batches.set(ylabel="batch, over all devices", ylim=(0, 72))
    above.yaxis.label.set_color("tab:blue")
    batches.yaxis.label.set_color("tab:orange")
    for stage, left, right in zip(recipe.stage, edges, edges[1:], strict=False):
        above.text(
            *((left + right) / 2, 1.03, f"{stage.patch}²\n× {stage.batch}"),
            ha="center", fontsize=9, color="0.35", transform=above.get_xaxis_transform(),
        )  # fmt: skip
        above.axvline(right, linewidth=0.5, color="0.6", linestyle=":")
        below.axvline(right, linewidth=0.5, color="0.6", linestyle=":")
    at = range(1, recipe.iterations + 1, 500)
    below.plot([i / 1000 for i in at], [learning_rate(i, recipe) for i in at], color="tab:gray", linewidth=2)
    below.set(ylabel="learning rate", xlabel="iterations, thousands", ylim=(0, None))
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
