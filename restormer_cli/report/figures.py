"""Shared parts of figures: colours, a canvas, plain axes, SVG for a page."""

import io
import re
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
COLOURS = ("#0b6e60", "#b5541c", "#5b5fc7", "#b3261e", "#8a6d00", "#3f7fb5", "#8f3f97", "#6b6b6b")
"""Ours first; each is legible on both themes."""


def canvas(columns: int) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no state shared with others
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for panel in figure.subplots(1, columns, squeeze=False)[0]:
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_facecolor("none")
    return figure


def plain_axes(axis: "Axis") -> None:
    """A logarithmic axis with numbers as people write them: 0.5, 1, 2, 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def drawing(figure: "Figure") -> Markup:
    """A matplotlib figure as SVG for the macro `figure`: no background, and black follows the page's theme."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "restormer"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"#000000|(?<=: )black\b", "currentColor", text)
    # Text has no fill of its own in matplotlib's SVG where it is black.
    return Markup(text.replace("<svg ", '<svg fill="currentColor" ', 1))
