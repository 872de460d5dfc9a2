"""The five verbs under one command; what a verb does is imported when it is called."""

import io
import sys
from typing import Annotated

import typer

from restormer_cli.commands.ablate.cli import AblateVerb, ablate, arms
from restormer_cli.commands.bench.cli import bench
from restormer_cli.commands.export.cli import export
from restormer_cli.commands.restore.cli import restore, tasks
from restormer_cli.commands.shell import Verb
from restormer_cli.commands.train.cli import train

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Restore photographs with the Restormer transformer.",
)


def main() -> None:
    """The console script `restormer`."""
    for stream in (sys.stdout, sys.stderr):  # pipes on Windows are cp1252: what it lacks becomes a question mark
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()


def _version(wanted: bool) -> None:
    if wanted:
        import torch

        from restormer_cli import __version__
        from restormer_cli.hardware import choose_device

        typer.echo(f"restormer {__version__}, torch {torch.__version__}, device {choose_device('auto')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Versions and device.")
    ] = False,
) -> None:
    pass


app.command(cls=Verb)(train)
app.command(cls=Verb, epilog=tasks())(restore)
app.command(cls=Verb)(bench)
app.command(cls=Verb)(export)
app.command(cls=AblateVerb, epilog=arms())(ablate)
