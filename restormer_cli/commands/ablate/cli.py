"""The flags of `ablate`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperOption

from restormer_cli.commands.shell import Debug, Device, Verb, exit_codes, from_flags


class AblateVerb(Verb):
    """`--deep-narrow vs --wide-shallow`: options go their usual way, arms become one argument, in their order."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        from restormer_cli.commands.ablate.arms import split_arguments

        takes_value = {
            name: isinstance(option, TyperOption) and not option.is_flag and not option.count
            for option in self.get_params(ctx)
            for name in (*option.opts, *option.secondary_opts)
        }
        ours, words = split_arguments(args, takes_value)
        return super().parse_args(ctx, [*ours, "--", *words])


def arms() -> str:
    """The arms for --help, a line each."""
    from restormer_cli.commands.ablate.arms import arms_help

    return arms_help()


def ablate(
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="ARM vs ARM [vs ARM]…", help="Two arms or more, from the list below.")
    ] = None,
    scale: Annotated[
        str, typer.Option(help="compact (for a laptop), or paper: the published networks, data and length.")
    ] = "compact",
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of seeds; each arm is trained once per seed.")
    ] = 2,
    iterations: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Iterations of each arm (default: the scale's).")
    ] = None,
    minutes: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Shorten all trainings alike to N minutes together; 0: never (default: 13 at compact scale, "
            "unless --iterations or a recipe is given).",
        ),
    ] = None,
    equal: Annotated[
        str,
        typer.Option(
            metavar="iterations|time", help="Train all arms for equal iterations, or for the first arm's time."
        ),
    ] = "iterations",
    any_budget: Annotated[
        bool, typer.Option("--any-budget", help="Allow parameters or FLOPs that differ by more than 10 %.")
    ] = False,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Clean photographs to train on.")] = None,
    validate: Annotated[Path | None, typer.Option(metavar="DIR", help="Clean photographs to score on.")] = None,
    crop: Annotated[
        int | None, typer.Option(metavar="N", help="Score centre crops of N pixels; 0: whole pictures.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field of every arm's recipe: optimizer.lr=1e-4."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="First seed, instead of the recipe's.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Precision of training: auto, fp32 or bf16, instead of the recipe's.")
    ] = None,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder of all runs and results (default: runs/ARM-vs-ARM).")] = None,
    resume: Annotated[bool, typer.Option(help="Go on in that folder, also with more --seeds.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be compared, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    page: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.html", help="Write the page here (default: report.html in the folder)."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Train designs under one budget and say which is better, and how sure that is."""
    flags = locals()
    with exit_codes(debug):
        from restormer_cli.commands.ablate import run as verb
        from restormer_cli.commands.ablate.types import Request
        from restormer_cli.commands.ablate.view import show_ablation, show_plan

        request = from_flags(
            Request,
            flags,
            words=tuple(words or ()),
            options=tuple(name for option in context.command.params for name in option.opts if name.startswith("--")),
            overrides=tuple(overrides or ()),
        )
        if page is not None:
            from restormer_cli.report.html import check_page

            check_page(page)
        if plan and as_json:
            from restormer_cli.errors import UserError

            raise UserError("--plan --json: the plan is a table: leave --json out")
        if plan:
            show_plan(verb.preview(request))
            return
        finished = show_ablation(verb.ablate(request), tables=not as_json, page=page)
        if as_json and finished is not None:
            import json

            from restormer_cli.commands.ablate.document import to_dict

            typer.echo(json.dumps(to_dict(finished), indent=2, allow_nan=False))
