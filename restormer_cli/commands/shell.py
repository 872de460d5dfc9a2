"""Shared parts of every verb's command line: exit codes, the environment, completion, lists of words."""

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperOption

from restormer_cli.errors import RestormerError, UserError

T = TypeVar("T")

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


Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 … or mps.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def recipe_names(incomplete: str) -> list[str]:
    """For the shell's tab key, as the next ones; where none fits, the shell offers files."""
    from restormer_cli.recipe_files import listed_recipes

    return [name for name in listed_recipes() if name.startswith(incomplete)]


def checkpoint_names(incomplete: str) -> list[str]:
    from restormer_cli.model.cards import bundled_cards

    return [card.name for card in bundled_cards() if card.name.startswith(incomplete)]


def weights_names(incomplete: str) -> list[str]:
    from restormer_cli.model.hub import OFFICIAL

    official = [f"official/{task}" for task in OFFICIAL]
    return checkpoint_names(incomplete) + [name for name in official if name.startswith(incomplete)]


@contextmanager
def exit_codes(debug: bool) -> Iterator[None]:
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


def split_list(text: str | None) -> tuple[str, ...]:
    """The entries of a list such as `256,512`."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def split_numbers(flag: str, text: str | None) -> tuple[int, ...]:
    words = split_list(text)
    if not all(word.isdecimal() for word in words):
        raise UserError(f"{flag} {text}: write whole numbers with commas between them, such as 256,384,0")
    return tuple(int(word) for word in words)


def from_flags(request: type[T], flags: Mapping[str, Any], **others: Any) -> T:
    """Return a verb's request: each field has the value of the flag of its name, or stands in `others`.

    `flags` are the `locals()` of the verb's function, as it begins.
    """
    named = {field.name: flags[field.name] for field in fields(request) if field.name not in others}  # pyright: ignore
    return request(**named, **others)
