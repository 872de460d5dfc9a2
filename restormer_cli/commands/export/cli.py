"""The flags of `export`."""

from pathlib import Path
from typing import Annotated

import typer

from restormer_cli.commands.shell import Debug, exit_codes, from_flags


def export(
    weights: Annotated[
        str, typer.Argument(help="A bundled checkpoint's name, .safetensors, official .pth, official/TASK or hf:….")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="Its extension decides: .safetensors .pth .onnx .pt2 .xml (OpenVINO).")
    ],
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16, where the format allows.")] = "fp32",
    any_size: Annotated[
        bool, typer.Option("--any-size", help="The graph pads and crops: pictures of any size, not of multiples of 8.")
    ] = False,
    compile_: Annotated[
        bool, typer.Option("--compile", help="A .pt2 of machine code for this kind of processor (AOTInductor).")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The artefact's metadata as JSON on stdout.")] = False,
    debug: Debug = False,
) -> None:
    """Write weights for other tools, each file loaded back and checked before it is kept."""
    flags = locals()
    with exit_codes(debug):
        from restormer_cli.commands.export import run as verb
        from restormer_cli.commands.export.view import show_export

        request = from_flags(verb.Request, flags, compile=compile_)
        finished = show_export(verb.export(request))
        if as_json:
            import json

            typer.echo(json.dumps(finished.metadata, indent=2))
