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
        Path,
        typer.Argument(
            metavar="OUT", help="File; its extension is the format: .safetensors .pth .onnx .pt2 .xml (OpenVINO)."
        ),
    ],
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16, where the format allows.")] = "fp32",
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Pad and crop inside the graph: sides need not be multiples of 8.")
    ] = False,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the .pt2 for this kind of processor (AOTInductor).")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the file's metadata as JSON.")] = False,
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
