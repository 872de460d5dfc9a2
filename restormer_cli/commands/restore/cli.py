"""The flags of `restore`."""

import _thread
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from restormer_cli import launcher
from restormer_cli.commands.shell import Debug, Device, checkpoint_names, exit_codes, from_flags, weights_names
from restormer_cli.errors import UserError

if TYPE_CHECKING:
    from restormer_cli.commands.restore.document import RestoreDocument
    from restormer_cli.commands.restore.types import Request


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


AGAIN = 0.05
"""Seconds until an interrupt that was lost is given again: not at once, or it would fall into the same place."""


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, by which schedulers and launchers stop a run, is Ctrl-C: write what is computed, say what is done."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # launchers send one behind a Ctrl-C, while we clean up
        raise KeyboardInterrupt

    def unheard(lost: "sys.UnraisableHookArgs") -> None:
        """An interrupt that fell into a finaliser, where Python only prints exceptions, is given again."""
        if lost.exc_type is KeyboardInterrupt:
            threading.Timer(AGAIN, _thread.interrupt_main).start()
        else:
            hook(lost)

    hook, sys.unraisablehook = sys.unraisablehook, unheard
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ended_by_interrupt(watch: bool) -> Iterator[None]:
    """A watch has no other end, so that an interrupt is no failure."""
    try:
        yield
    except KeyboardInterrupt:
        if not watch:
            raise


def _profile(context: typer.Context, name: str | None) -> str | None:
    """Let a profile's flags stand where neither the command line nor the environment sets them."""
    if name is None or context.resilient_parsing:
        return name
    from restormer_cli.commands.restore.profiles import list_profiles, read_profile

    if name == "help":
        typer.echo(list_profiles())
        raise typer.Exit
    hints = get_type_hints(restore)
    names, types = {}, {}
    for option in context.command.params:
        flag = max(option.opts, key=len).removeprefix("--")
        if f"--{flag}" in option.opts and option.name in hints and flag not in ("profile", "debug"):
            names[flag] = option.name
            types[flag] = next((kind for kind in (bool, int, float) if kind in _kinds(hints[option.name])), str)
    with exit_codes(False):
        context.default_map = {names[flag]: value for flag, value in read_profile(name, types).items()}
    return name


def _kinds(hint: Any) -> tuple[Any, ...]:
    """`int | None` -> int and None."""
    return get_args(hint) or (hint,)


def _profile_names(incomplete: str) -> list[str]:
    from restormer_cli.commands.restore.profiles import profile_names

    return [name for name in [*profile_names(), "help"] if name.startswith(incomplete)]


def _task_names(incomplete: str) -> list[str]:
    return checkpoint_names(incomplete) + [name for name in ("auto", "help") if name.startswith(incomplete)]


def _task(name: str | None) -> str | None:
    if name == "help":
        from restormer_cli.model.cards import bundled_cards

        typer.echo("\n\n".join(card.page() for card in bundled_cards()))
        raise typer.Exit
    return name


def tasks() -> str:
    """The bundled checkpoints for --help, a line each."""
    from restormer_cli.model.cards import bundled_cards

    return "\n".join(["\b", "Tasks (more by --task help):", *(f"  {c.name}: {c.line()}" for c in bundled_cards())])


def restore(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN... OUT",
            help="Pictures, videos, folders of them, or - for stdin; last a folder, or, for one picture, a file or -. "
            "With --preview no OUT.",
        ),
    ],
    profile: Annotated[
        str | None,
        typer.Option(
            callback=_profile,
            is_eager=True,
            metavar="NAME|FILE.toml",
            autocompletion=_profile_names,
            help="Flags from a file, or by name from your folder of profiles; help: the list.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            callback=_task,
            is_eager=True,
            autocompletion=_task_names,
            help="A bundled checkpoint (default: denoise); auto: what each picture needs; help: the list.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(autocompletion=weights_names, help="A file, official/TASK (the paper's), or hf:org/repo/file."),
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
        typer.Option(
            metavar="N|auto", help="Attention in windows of N pixels (TLC); auto: the largest patch of the training."
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="6GB", help="Memory limit of the whole process (default: 70 % of what is free)."),
    ] = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, or fp16 (not on a CPU).")] = "auto",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Use torch.compile: slow to start, for GPUs and many pictures.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Processor threads (default: all).")] = None,
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Average over 8 turned and mirrored copies (derain: 4); 8 (4) times slower."),
    ] = False,
    strength: Annotated[
        float, typer.Option(metavar="0…1", help="Share of the change that is kept; 0 is the input.")
    ] = 1.0,
    luma: Annotated[float, typer.Option(metavar="0…1", help="Share of the change in brightness that is kept.")] = 1.0,
    chroma: Annotated[float, typer.Option(metavar="0…1", help="Share of the change in colour that is kept.")] = 1.0,
    detail: Annotated[
        float, typer.Option(metavar="0…1", help="Share of the removed texture that is given back.")
    ] = 0.0,
    grain: Annotated[float, typer.Option(metavar="0…1", help="Share of the removed gray grain given back.")] = 0.0,
    mask: Annotated[
        Path | None,
        typer.Option(metavar="PICTURE|DIR", help="White restores, black keeps; DIR: a mask for each name."),
    ] = None,
    protect: Annotated[str | None, typer.Option(metavar="highlights", help="Keep clipped areas as they are.")] = None,
    degrade: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Make test inputs instead: gaussian:25, motion:15+jpeg:70 …")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --degrade.")] = 0,
    ext: Annotated[str, typer.Option(help="Format of the results: png, jpg, tif … or same.")] = "same",
    suffix: Annotated[str, typer.Option(metavar="TEXT", help="Text after each name, such as _restored.")] = "",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of JPEG, WebP, AVIF, HEIC and JPEG XL.")] = 95,
    subsampling: Annotated[
        str, typer.Option(help="Chroma subsampling of JPEG, AVIF and HEIC: 4:4:4, 4:2:2 or 4:2:0.")
    ] = "4:4:4",
    strip: Annotated[
        bool, typer.Option("--strip", help="Leave out EXIF, XMP, IPTC and text; colours keep their meaning.")
    ] = False,
    sign: Annotated[bool, typer.Option("--sign", help="Write software, version and task into EXIF and XMP.")] = False,
    keep_time: Annotated[bool, typer.Option("--keep-time", help="Give results the times of their inputs.")] = False,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Restore truncated JPEGs too; what is missing is gray.")
    ] = False,
    pages: Annotated[str, typer.Option(metavar="first|all", help="Pages of a TIFF that go into a TIFF.")] = "first",
    deinterlace: Annotated[
        bool, typer.Option("--deinterlace", help="Videos: make whole frames of interlaced ones, one for each.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pictures that exist in OUT.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave pictures alone that exist in OUT.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first picture that fails.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and how; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, also after a failure.")] = False,
    preview: Annotated[
        Path | None,
        typer.Option(metavar="SHEET.png", help="Write only this: crops of one picture at several strengths or tasks."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and restore what appears in the folder IN; Ctrl-C ends it.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write NAME.compare: before and after side by side.")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE.html", help="Write a page: every picture before and after, with a slider."
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Restore pictures: a file or a folder in, the same names out."""
    flags, failed = locals(), 0
    with exit_codes(debug), _terminated_like_interrupted():
        from restormer_cli.commands.restore import run as verb
        from restormer_cli.commands.restore.document import RestoreDocument, RestoreLines
        from restormer_cli.commands.restore.types import Request
        from restormer_cli.commands.restore.view import RestoringView, show_restoring
        from restormer_cli.report.console import fetched

        if len(paths) == 1 and preview is None:
            raise typer.BadParameter("name a folder to write to, or a file for one picture", context, param_hint="OUT")
        (source, *more), target = paths[: len(paths) - (preview is None)], paths[-1]
        request = from_flags(
            Request,
            flags,
            source=source,
            target=target,
            more=tuple(more),
            extension=ext,
            analyse=as_json and degrade is None,
        )
        if as_json and str(target) == "-":
            raise UserError("--json: standard output takes the picture or the document, not both; name a file for one")
        if preview is not None:
            _preview(request, preview, {"--watch": watch, "--dry-run": dry_run, "--json": as_json, "--report": page})
            return
        document = RestoreDocument(request) if as_json and not watch and launcher.is_first() else None
        with _ended_by_interrupt(watch), _printed(document):
            request = replace(request, weights=fetched(weights))
            if document is not None:
                document.request = request
            view = RestoringView()
            events: Iterable[object] = verb.restore(request, view.progress if launcher.is_first() else None)
            if watch and as_json:
                events = RestoreLines(typer.echo).watch(events)
            if page is not None:
                from restormer_cli.commands.restore.page import RestorePage

                events = RestorePage(page, request).watch(events)
            failed = show_restoring(events if document is None else document.watch(events), view)
    if failed:
        raise typer.Exit(3)


def _preview(request: "Request", sheet: Path, others: dict[str, object]) -> None:
    """`--preview`, which goes with none of the other flags that say what is to be shown."""
    from restormer_cli.commands.restore.preview import write_preview
    from restormer_cli.report.console import fetched

    for flag, given in others.items():
        if given:
            raise UserError(f"--preview: writes a sheet and nothing else: leave {flag} out")
    typer.echo(write_preview(replace(request, weights=fetched(request.weights)), sheet), err=True)
