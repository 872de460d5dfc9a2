"""The answer of `ablate` in lines and tables, for the terminal, Markdown and the page."""

import os
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from restormer_cli.report.tables import gigabytes, markdown, text_table

if TYPE_CHECKING:
    from restormer_cli.commands.ablate.arms import Figure
    from restormer_cli.commands.ablate.types import Estimate, Finished, Started


def budget_table(started: "Started") -> Table:
    """Table of every arm's budget."""
    table = text_table("arm", "parameters", "convolution GMACs (the paper's GFLOPs)", "GFLOPs (2 per MAC)", "network ")
    for arm in started.arms:
        table.add_row(
            arm.name,
            f"{arm.parameters:,}",
            f"{arm.work.conv_macs / 1e9:.2f}",
            f"{arm.work.flops / 1e9:.2f}",
            shape_text(arm.recipe.model, arm.window),
        )
    return table


def shape_text(model: object, window: int | None) -> str:
    """A network in a few words: dim 48, blocks 4-6-6-8, refinement 4, and what is unlike the paper's."""
    from restormer_cli.model.config import ModelConfig

    assert isinstance(model, ModelConfig)
    parts = [
        f"dim {model.dim}",
        f"blocks {'-'.join(map(str, model.blocks))}",
        f"refinement {model.refinement}",
        f"expansion {model.expansion:g}",
        f"{model.attention.upper()} + {model.feed_forward.upper()}",
    ]
    parts += [] if model.concat else ["no level-1 concatenation"]
    parts += ["bias-free norm"] if model.norm == "bias-free" else []
    parts += [f"windows of {window} at test time"] if window else []
    return ", ".join(parts)


def print_answer(finished: "Finished") -> None:
    """Table and verdict, on stdout."""
    console = Console(highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")
    table = answer_table(finished)
    if console.is_terminal:
        console.print(table)
        for line in answer_lines(finished):
            console.print(Text(line))
    else:
        print(markdown(table) + "\n")
        print("\n\n".join(answer_lines(finished)))


def answer_lines(finished: "Finished") -> list[str]:
    """The verdict, how far it can be trusted, and what the paper's figures are."""
    lines = [f"Verdict: {finished.verdict}", finished.trust]
    if any(arm.published for arm in finished.started.arms):
        lines.append(PAPERS)
    return lines


PAPERS = "The paper's: 26 M parameters, 100,000 iterations, Urban100, σ 50; * recalled, not found in print again."


def answer_table(finished: "Finished") -> Table:
    """Everything that was found, arm by arm."""
    first = finished.started.arms[0].name
    printed = any(arm.published for arm in finished.started.arms)
    table = text_table(
        "arm", "parameters", "conv GMACs", "GFLOPs", "training s", "s per MP", "peak memory", "PSNR, dB", f"{first} −",
        "interval",
    )  # fmt: skip
    if printed:
        table.add_column("the paper's, dB", justify="right")
    prices = {price.arm: price for price in finished.prices}
    differences = {row.other: row.estimate for row in finished.differences}
    means = dict(finished.means)
    for arm in finished.started.arms:
        rows, price = finished.of(arm.name), prices.get(arm.name)
        difference = differences.get(arm.name)
        cells = [
            arm.name,
            f"{arm.parameters:,}",
            f"{arm.work.conv_macs / 1e9:.2f}",
            f"{arm.work.flops / 1e9:.2f}",
            f"{sum(row.seconds for row in rows) / len(rows):.0f}",
            "–" if price is None or price.seconds is None else f"{price.seconds:.3g}",
            "–" if price is None or price.peak is None else gigabytes(price.peak),
            mean_text(means[arm.name]),
            "" if difference is None else f"{difference.mean:+.2f}",
            "" if difference is None else interval_text(difference),
        ]
        table.add_row(*cells, *([figure_text(arm.published)] if printed else []))
    return table


def mean_text(estimate: "Estimate") -> str:
    """29.71 ± 0.12: the mean and its standard error."""
    return f"{estimate.mean:.2f}" + ("" if estimate.error is None else f" ± {estimate.error:.2f}")


def interval_text(estimate: "Estimate") -> str:
    """−0.12 to +0.30 (95 %)."""
    if estimate.low is None or estimate.high is None:
        return "none"
    return f"{estimate.low:+.2f} to {estimate.high:+.2f} ({100 * estimate.confidence:.3g} %)"


def figure_text(figure: "Figure | None") -> str:
    """The paper's PSNR, with a star where it is only recalled."""
    return "–" if figure is None else f"{figure.psnr:.2f}{' *' if figure.recalled else ''}"
