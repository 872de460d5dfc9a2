"""The flags of `train`."""

from pathlib import Path
from typing import Annotated

import typer

from restormer_cli.commands.shell import Debug, Device, exit_codes, from_flags, recipe_names
from restormer_cli.errors import UserError


def train(
    recipe: Annotated[
        str,
        typer.Argument(help="A TOML file, or a bundled recipe: defocus, quick/denoise …", autocompletion=recipe_names),
    ],
    out: Annotated[Path | None, typer.Option(help="Run folder (default: runs/<recipe name>).")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint in the run folder.")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Resume although the recipe has changed since the checkpoint.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field: optimizer.lr=1e-4."),
    ] = None,
    stop_after: Annotated[int | None, typer.Option(min=1, metavar="N", help="End cleanly after N iterations.")] = None,
    device: Device = "auto",
    precision: Annotated[
        str | None, typer.Option(help="Precision: auto, fp32 or bf16, instead of the recipe's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, instead of the recipe's.")] = None,
    track: Annotated[str | None, typer.Option(help="Send the metrics to tensorboard, trackio or wandb too.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what the recipe will do, and do nothing.")] = False,
    devices: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of devices for --plan (default: those it is launched on)."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Train a network from a recipe."""
    flags = locals()
    with exit_codes(debug):
        from restormer_cli.commands.train import run as verb
        from restormer_cli.commands.train.view import show_plan, show_training

        request = from_flags(verb.Request, flags, overrides=tuple(overrides or ()))
        if plan:
            show_plan(verb.plan(request, devices))
            return
        if devices is not None:
            raise UserError("--devices belongs to --plan; to train on several: accelerate launch --num_processes N …")
        show_training(verb.train(request))
