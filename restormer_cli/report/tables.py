"""Tables as text and Markdown, and amounts in words."""

import io
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from rich.table import Table


def cells(table: "Table") -> tuple[list[str], list[list[str]]]:
    """A terminal's table as the page's macro takes it."""
    columns = [f"{column.header} " if column.justify == "left" else str(column.header) for column in table.columns]
    rows = zip(*(list(column.cells) for column in table.columns), strict=True)
    return columns, [[str(cell) for cell in row] for row in rows]


def gigabytes(size: float) -> str:
    """Bytes as decimal gigabytes."""
    return f"{size / 1e9:.2f} GB"


def markdown(table: Table) -> str:
    """A table as Markdown, its columns aligned."""
    table.box = box.MARKDOWN
    console = Console(file=io.StringIO(), width=1000, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines() if line.strip())


def text_table(*columns: str) -> Table:
    """A table whose first column is text, as are those that end in a blank; the others are figures."""
    table = Table(box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column.strip(), justify="left" if index == 0 or column.endswith(" ") else "right")
    return table
