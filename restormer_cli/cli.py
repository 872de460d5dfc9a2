"""All of Typer: flags become typed requests, errors become exit codes; each verb is imported when it is called."""

import os
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from restormer_cli.errors import CheckFailed, RestormerError, UserError

if TYPE_CHECKING:
    from restormer_cli.commands.restore.document import RestoreDocument

ENVIRONMENT = "Every flag can come from the environment too: RESTORMER_TILE=512 is --tile 512."


class Verb(TyperCommand):
    """A command whose every flag can come from the environment, `RESTORMER_` and the flag in capitals."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for option in self.params:
            if isinstance(option, TyperOption) and option.envvar is None:
                flag = max(option.opts, key=len).removeprefix("--")
                option.envvar = "RESTORMER_" + flag.upper().replace("-", "_")
                option.show_envvar = False  # once for all, below the options
        self.epilog = "\n\n".join(filter(None, [self.epilog, ENVIRONMENT]))


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Restore photographs with the Restormer transformer.",
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 … or mps.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _recipe_names(incomplete: str) -> list[str]:
    """For the shell's tab key, as the next ones; where none fits, the shell offers files."""
    from restormer_cli.recipe import bundled_recipes

    return [name for name in bundled_recipes() if name.startswith(incomplete)]


def _checkpoint_names(incomplete: str) -> list[str]:
    from restormer_cli.model.cards import bundled_cards

    return [card.name for card in bundled_cards() if card.name.startswith(incomplete)]


def _weights_names(incomplete: str) -> list[str]:
    from restormer_cli.model.hub import OFFICIAL

    official = [f"official/{task}" for task in OFFICIAL]
    return _checkpoint_names(incomplete) + [name for name in official if name.startswith(incomplete)]


def main() -> None:
    """The console script `restormer`."""
    app()


@contextmanager
def _outcome(debug: bool) -> Iterator[None]:
    """The one place where errors become exit codes."""
    try:
        yield
    except RestormerError as error:
        from restormer_cli.report.console import complain

        if debug:
            traceback.print_exc()
        complain(str(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise typer.Exit(1) from None


@contextmanager
def _printed(document: "RestoreDocument | None") -> Iterator[None]:
    """Print the document to stdout when the work is over, however it ends; of several processes only the first does."""
    try:
        yield
    except BaseException as error:
        if document is not None:
            document.stopped(error)
        raise
    finally:
        if document is not None:
            typer.echo(document.text())


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, by which schedulers and launchers stop a run, is Ctrl-C: finish the file at hand, say what is done."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # launchers send one behind a Ctrl-C, while we clean up
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _version(wanted: bool) -> None:
    if wanted:
        import torch

        from restormer_cli import __version__
        from restormer_cli.engine.restorer import choose_device

        typer.echo(f"restormer {__version__}, torch {torch.__version__}, device {choose_device('auto')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Versions and device.")
    ] = False,
) -> None:
    pass


@app.command(cls=Verb)
def train(
    recipe: Annotated[
        str,
        typer.Argument(help="A TOML file, or a bundled recipe: defocus, quick/denoise …", autocompletion=_recipe_names),
    ],
    out: Annotated[Path | None, typer.Option(help="Run folder (default: runs/<recipe name>).")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint in the run folder.")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Resume although the recipe is not the checkpoint's.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field: optimizer.lr=1e-4."),
    ] = None,
    stop_after: Annotated[int | None, typer.Option(min=1, metavar="N", help="End cleanly after N iterations.")] = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16, instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None,
    track: Annotated[str | None, typer.Option(help="Metrics also go to tensorboard, trackio or wandb.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what the recipe will do, and do nothing.")] = False,
    devices: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Plan for N devices (default: those it is launched on).")
    ] = None,
    debug: Debug = False,
) -> None:
    """Train a network from a recipe."""
    with _outcome(debug):
        from restormer_cli.commands.train import run as verb
        from restormer_cli.report.console import show_plan, show_training

        request = verb.Request(
            recipe=recipe,
            out=out,
            resume=resume,
            accept_changes=accept_changes,
            overrides=tuple(overrides or ()),
            stop_after=stop_after,
            device=device,
            precision=precision,
            seed=seed,
            track=track,
        )
        if plan:
            show_plan(verb.plan(request, devices))
            return
        if devices is not None:
            raise UserError("--devices belongs to --plan; to train on several: accelerate launch --num_processes N …")
        show_training(verb.train(request))


def _task(name: str | None) -> str | None:
    if name == "help":
        from restormer_cli.model.cards import bundled_cards

        typer.echo("\n\n".join(card.page() for card in bundled_cards()))
        raise typer.Exit
    return name


def _tasks() -> str:
    """The bundled checkpoints for --help, a line each."""
    from restormer_cli.model.cards import bundled_cards

    return "\n".join(["\b", "Tasks (more by --task help):", *(f"  {c.name}: {c.line()}" for c in bundled_cards())])


@app.command(cls=Verb, epilog=_tasks())
def restore(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A picture, a folder of pictures, a video, or - for stdin.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A folder; or, for one picture, a file, or -.")],
    task: Annotated[
        str | None,
        typer.Option(
            callback=_task,
            is_eager=True,
            autocompletion=_checkpoint_names,
            help="A bundled checkpoint (default: denoise); help tells what there is.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(autocompletion=_weights_names, help="A file, official/TASK (the paper's), or hf:org/repo/file."),
    ] = None,
    right: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Dual-pixel weights: folder of the second views, or LEFT=RIGHT in names."),
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=8, metavar="N", help="Side of the tiles, in pixels (default: no tiles).")
    ] = None,
    overlap: Annotated[int, typer.Option(min=0, metavar="N", help="Pixels that neighbouring tiles share.")] = 32,
    window: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Attention of windows (TLC); auto: the largest patch of the training."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="6GB", help="Budget of the whole process (default: most of what is free).")
    ] = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, or fp16 (not on a CPU).")] = "auto",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Fuse with torch.compile: slow to start, for GPUs and many pictures.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Processor threads (default: all).")] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Average over 8 turned and mirrored copies; 8 times slower.")
    ] = False,
    strength: Annotated[
        float, typer.Option(min=0, max=1, metavar="0…1", help="Blend with the input: 0 is the input.")
    ] = 1.0,
    degrade: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Make test inputs instead: gaussian:25, motion:15+jpeg:70 …")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of --degrade.")] = 0,
    ext: Annotated[str, typer.Option(help="Format of the results: png, jpg, tif … or same.")] = "same",
    suffix: Annotated[str, typer.Option(metavar="TEXT", help="Goes behind each name: _restored.")] = "",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG, WebP, AVIF and JPEG XL.")] = 95,
    subsampling: Annotated[str, typer.Option(help="Of colours in JPEG and AVIF: 4:4:4, 4:2:2 or 4:2:0.")] = "4:4:4",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pictures that exist in OUT.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave pictures alone that exist in OUT.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first picture that fails.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and how; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, also after a failure.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Write NAME.compare too: before and after side by side.")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.html", help="A page with all of them, before and after under a slider."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Restore pictures: a file or a folder in, the same names out."""
    failed = 0
    with _outcome(debug), _terminated_like_interrupted():
        from restormer_cli.commands.restore import run as verb
        from restormer_cli.commands.restore import types
        from restormer_cli.commands.restore.document import RestoreDocument
        from restormer_cli.report.console import fetched, show_restoring

        request = types.Request(
            source=source,
            target=target,
            weights=weights,
            task=task,
            right=right,
            tile=tile,
            overlap=overlap,
            window=window,
            memory=memory,
            compiled=compiled,
            device=device,
            precision=precision,
            threads=threads,
            ensemble=ensemble,
            strength=strength,
            degrade=degrade,
            seed=seed,
            extension=ext,
            suffix=suffix,
            quality=quality,
            subsampling=subsampling,
            overwrite=overwrite,
            skip_existing=skip_existing,
            fail_fast=fail_fast,
            dry_run=dry_run,
            compare=compare,
        )
        if as_json and str(target) == "-":
            raise UserError("--json: standard output takes the picture or the document, not both; name a file for one")
        document = RestoreDocument(request) if as_json and os.environ.get("RANK", "0") == "0" else None
        with _printed(document):
            request = replace(request, weights=fetched(weights))
            if document is not None:
                document.request = request
            events: Iterable[object] = verb.restore(request)
            if page is not None:
                from restormer_cli.commands.restore.page import RestorePage

                events = RestorePage(page, request).watch(events)
            failed = show_restoring(events if document is None else document.watch(events))
    if failed:
        raise typer.Exit(3)


@app.command(cls=Verb)
def bench(
    network: Annotated[
        str | None,
        typer.Argument(
            metavar="[WEIGHTS|TASK]",
            help="Weights (also official/TASK, hf:…), a bundled checkpoint; or a recipe or `paper`, at random weights.",
        ),
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(metavar="LIST", help="Pictures to time: 256,512,1024x1536 (height x width).")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="LIST", help="Who else takes part: textbook,onnxruntime,openvino,compile …")
    ] = None,
    tile: Annotated[str | None, typer.Option(metavar="LIST", help="Sides of tiles to try; 0 is no tiles.")] = None,
    overlap: Annotated[int, typer.Option(min=0, metavar="N", help="Pixels that neighbouring tiles share.")] = 32,
    window: Annotated[
        str | None, typer.Option(metavar="LIST", help="Windows of local attention to try; 0 is global.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="What our own runs may use, such as 6GB.")] = None,
    device: Annotated[str, typer.Option(metavar="LIST", help="auto, or a list: cpu,cuda.")] = "auto",
    precision: Annotated[str, typer.Option(metavar="LIST", help="A list of fp32, bf16, fp16.")] = "fp32",
    runs: Annotated[int, typer.Option(min=1, metavar="N", help="Timed runs of each, after one warm-up.")] = 3,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="For every contestant (default: all cores).")
    ] = None,
    clean: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Quality: the clean pictures, with either of the next two.")
    ] = None,
    degraded: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Their degraded twins, of the same names.")
    ] = None,
    degrade: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Degrade them: gaussian:25 (the published noise), defocus:3 …")
    ] = None,
    right: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Dual-pixel weights: the second views of --degraded.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="plain, gaussian, rain-y, gopro, realblur, dpdd or sidd (default: by the task).")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="For the paper's figure (default: the clean folder's name).")
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(metavar="N", help="Score centre crops of N pixels: slow methods stay bearable."),
    ] = None,
    metrics: Annotated[str | None, typer.Option(metavar="LIST", help="More measures: lpips, lpips-vgg.")] = None,
    min_psnr: Annotated[float | None, typer.Option(metavar="DB", help="Exit 4 where our mean PSNR is lower.")] = None,
    max_seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Exit 4 where our median time per picture is longer.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Exit 4 where our process needs more, such as 2GB.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random weights and of --degrade.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, instead of tables.")] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE.html", help="A page with figures, tables and pictures before and after."
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Measure speed, memory and quality, and compare."""
    with _outcome(debug):
        from restormer_cli.commands.bench import run as verb
        from restormer_cli.commands.bench import types
        from restormer_cli.commands.bench.view import show_benchmark, worst_line
        from restormer_cli.report.console import fetched

        request = types.Request(
            network=fetched(network),
            sizes=_words(sizes),
            against=_words(against),
            tiles=_numbers("--tile", tile),
            overlap=overlap,
            windows=_numbers("--window", window),
            memory=memory,
            devices=_words(device),
            precisions=_words(precision),
            runs=runs,
            threads=threads,
            seed=seed,
            clean=clean,
            degraded=degraded,
            degrade=degrade,
            right=right,
            protocol=protocol,
            dataset=dataset,
            crop=crop,
            metrics=_words(metrics),
            keep_views=page is not None,
            gates=types.Gates(min_psnr, max_seconds, max_memory),
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


@app.command(cls=Verb)
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
    with _outcome(debug):
        from restormer_cli.commands.export import run as verb
        from restormer_cli.commands.export.view import show_export

        request = verb.Request(
            weights=weights,
            target=target,
            precision=precision,
            any_size=any_size,
            compile=compile_,
            overwrite=overwrite,
        )
        finished = show_export(verb.export(request))
        if as_json:
            import json

            typer.echo(json.dumps(finished.metadata, indent=2))


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


def _arms() -> str:
    """The arms for --help, a line each."""
    from restormer_cli.commands.ablate.arms import arms_help

    return arms_help()


@app.command(cls=AblateVerb, epilog=_arms())
def ablate(
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="ARM vs ARM [vs ARM]…", help="Two arms or more, from the list below.")
    ] = None,
    scale: Annotated[
        str, typer.Option(help="compact (for a laptop), or paper: the published networks, data and length.")
    ] = "compact",
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Trainings of each arm, paired by their seeds.")] = 2,
    iterations: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of each arm (default: the scale's).")
    ] = None,
    minutes: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Shorten all trainings so that together they take so long; 0: never (default: 13 at compact scale, "
            "unless --iterations or a recipe is given).",
        ),
    ] = None,
    equal: Annotated[
        str, typer.Option(metavar="iterations|time", help="What arms have in equal parts; time: the first arm's.")
    ] = "iterations",
    any_budget: Annotated[
        bool, typer.Option("--any-budget", help="Also where parameters or FLOPs differ by more than 10 %.")
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
    seed: Annotated[int | None, typer.Option(min=0, help="The first one, instead of the recipe's.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of training: auto, fp32 or bf16, instead of the recipe's.")
    ] = None,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder of everything (default: runs/ARM-vs-ARM).")] = None,
    resume: Annotated[bool, typer.Option(help="Go on in that folder; --seeds may have grown.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be compared, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as JSON on stdout, instead of a table.")] = False,
    page: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.html", help="The page (default: report.html in the folder)."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Train designs under one budget and say which is better, and how sure that is."""
    with _outcome(debug):
        from restormer_cli.commands import ablate as verb
        from restormer_cli.commands.ablate import types
        from restormer_cli.commands.ablate.view import show_ablation, show_plan

        request = types.Request(
            words=tuple(words or ()),
            options=tuple(name for option in context.command.params for name in option.opts if name.startswith("--")),
            scale=scale,
            seeds=seeds,
            iterations=iterations,
            minutes=minutes,
            equal=equal,
            any_budget=any_budget,
            data=data,
            validate=validate,
            crop=crop,
            overrides=tuple(overrides or ()),
            seed=seed,
            precision=precision,
            device=device,
            out=out,
            resume=resume,
        )
        if page is not None:
            from restormer_cli.commands.restore.page import check_page

            check_page(page)
        if plan:
            show_plan(verb.preview(request))
            return
        finished = show_ablation(verb.ablate(request), tables=not as_json, page=page)
        if as_json and finished is not None:
            import json

            from restormer_cli.commands.ablate.document import to_dict

            typer.echo(json.dumps(to_dict(finished), indent=2, allow_nan=False))


def _words(text: str | None) -> tuple[str, ...]:
    """The entries of a list such as `256,512`."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _numbers(flag: str, text: str | None) -> tuple[int, ...]:
    words = _words(text)
    if not all(word.isdecimal() for word in words):
        raise UserError(f"{flag} {text}: write whole numbers with commas between them, such as 256,384,0")
    return tuple(int(word) for word in words)
