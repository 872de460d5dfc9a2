"""The flags of `bench`."""

from pathlib import Path
from typing import Annotated

import typer

from restormer_cli.commands.shell import Debug, exit_codes, from_flags, split_list, split_numbers
from restormer_cli.errors import CheckFailed


def bench(
    network: Annotated[
        str | None,
        typer.Argument(
            metavar="[WEIGHTS|TASK]",
            help="Weights: a file, a bundled checkpoint, official/TASK or hf:…; a recipe or `paper`: random weights.",
        ),
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(metavar="LIST", help="Pictures to time: 256,512,1024x1536 (height x width).")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Methods to compare with: textbook,onnxruntime,bm3d, spandrel:FILE …"),
    ] = None,
    tile: Annotated[str | None, typer.Option(metavar="LIST", help="Sides of tiles to try; 0 is no tiles.")] = None,
    overlap: Annotated[int, typer.Option(min=0, metavar="N", help="Pixels that neighbouring tiles share.")] = 32,
    window: Annotated[
        str | None, typer.Option(metavar="LIST", help="Windows of local attention to try; 0 is global.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Memory budget of our own runs, such as 6GB.")] = None,
    device: Annotated[str, typer.Option(metavar="LIST", help="auto, or a list: cpu,cuda.")] = "auto",
    precision: Annotated[str, typer.Option(metavar="LIST", help="A list of fp32, bf16, fp16.")] = "fp32",
    runs: Annotated[int, typer.Option(min=1, metavar="N", help="Timed runs of each method, after one warm-up.")] = 3,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processor threads of each method (default: all).")
    ] = None,
    clean: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Clean pictures, to score quality; with --degraded or --degrade.")
    ] = None,
    degraded: Annotated[Path | None, typer.Option(metavar="DIR", help="Degraded pictures, of the same names.")] = None,
    degrade: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Degrade the clean ones: gaussian:25 (the published noise), defocus:3 …"),
    ] = None,
    right: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Dual-pixel weights: the second views of --degraded.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="plain, gaussian, rain-y, gopro, realblur, dpdd or sidd (default: by the task).")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Data set of the paper's figure (default: the clean folder's name)."),
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(metavar="N", help="Score centre crops of N pixels, for slow methods."),
    ] = None,
    metrics: Annotated[str | None, typer.Option(metavar="LIST", help="More measures: lpips, lpips-vgg.")] = None,
    min_psnr: Annotated[float | None, typer.Option(metavar="DB", help="Exit 4 where our mean PSNR is lower.")] = None,
    max_seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Exit 4 where our median time per picture is longer.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Exit 4 where our process needs more, such as 2GB.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random weights and of --degrade.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    page: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.html", help="Write a page: figures, tables, pictures before and after."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Measure speed, memory and quality, and compare."""
    flags = locals()
    with exit_codes(debug):
        from restormer_cli.commands.bench import run as verb
        from restormer_cli.commands.bench.tables import worst_line
        from restormer_cli.commands.bench.types import Gates, Request
        from restormer_cli.commands.bench.view import show_benchmark
        from restormer_cli.report.console import fetched

        request = from_flags(
            Request,
            flags,
            network=fetched(network),
            sizes=split_list(sizes),
            against=split_list(against),
            tiles=split_numbers("--tile", tile),
            windows=split_numbers("--window", window),
            devices=split_list(device),
            precisions=split_list(precision),
            metrics=split_list(metrics),
            keep_views=page is not None,
            gates=Gates(min_psnr, max_seconds, max_memory),
        )
        drawn = None
        if page is not None:
            from restormer_cli.commands.bench.page import BenchPage

            drawn = BenchPage(page)
        finished = show_benchmark(verb.bench(request), tables=not as_json, page=drawn)
        if as_json:
            import json

            from restormer_cli.commands.bench.document import to_dict

            typer.echo(json.dumps(to_dict(finished), indent=2, allow_nan=False))
        if missed := [gate for gate in finished.gates if not gate.passed]:
            worst = "; ".join(f"--{gate.name}, {worst_line(gate)}" for gate in missed)
            raise CheckFailed(f"not good enough: {worst}")
    if finished.quality is not None and finished.quality.failed:
        raise typer.Exit(3)
