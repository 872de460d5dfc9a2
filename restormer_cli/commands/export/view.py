"""Progress on stderr while an export is made and checked."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from restormer_cli.commands.export.run import Finished, Started, Verified
from restormer_cli.report.console import stderr


def show_export(events: Iterable[object]) -> Finished:
    """Show an export as it goes; the table of errors comes once all inputs went through. Returns the last event."""
    rows: list[Verified] = []
    finished = None
    try:
        for event in events:
            if isinstance(event, Started):
                stderr.print(Text(f"{event.weights.name} → {event.target} ({event.precision})"))
                for note in event.notes:
                    stderr.print(Text(f"note: {note}", style="yellow"))
            elif isinstance(event, Verified):
                rows.append(event)
            elif isinstance(event, Finished):
                finished = event
    finally:  # after a failed check above all: it is the table that tells where
        if rows:
            stderr.print(_table(rows))
    assert finished is not None
    for path in finished.files:
        stderr.print(Text(f"{path}  {path.stat().st_size / 1e6:.1f} MB"))
    limit = finished.metadata["verified"]["limit"]
    stderr.print(Text(f"loaded back and compared on {len(rows)} inputs: within {limit}/255 of the network everywhere"))
    return finished


def _table(rows: list[Verified]) -> Table:
    table = Table(box=None, pad_edge=False, title="error against the network, in 1/255", title_justify="left")
    table.add_column("input")
    for heading in ("batch × channels × height × width", "largest", "mean"):
        table.add_column(heading, justify="right")
    for row in (event.comparison for event in rows):
        table.add_row(Text(row.name), " × ".join(map(str, row.shape)), f"{row.maximum:.2g}", f"{row.mean:.2g}")
    return table
