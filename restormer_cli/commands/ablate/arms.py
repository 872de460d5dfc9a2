"""The arms of an ablation by name: what each stands for at the paper's scale and at the compact one.

No torch and no numpy, so that `--help` lists them and mistakes are told at once.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from restormer_cli.errors import UserError
from restormer_cli.model.config import ModelConfig

VS = "vs"
EXAMPLE = "restormer ablate --deep-narrow vs --wide-shallow"


@dataclass(frozen=True)
class Choice:
    """One flag: of its group an arm has one choice at most."""

    name: str
    group: str
    help: str

    @property
    def flag(self) -> str:
        """As it is typed."""
        return f"--{self.name}"


CHOICES = {
    choice.name: choice
    for choice in (
        Choice("deep-narrow", "shape", "the paper's network: many blocks, few channels"),
        Choice("middle", "shape", "between the two, at about the same parameters and FLOPs"),
        Choice("wide-shallow", "shape", "few blocks, many channels, at about the same parameters and FLOPs"),
        Choice("mdta", "attention", "attention with depth-wise convolutions (Table 7's row MDTA + GDFN)"),
        Choice("mta", "attention", "the same attention without them (MTA + GDFN)"),
        Choice("gdfn", "feed-forward", "gated feed-forward network with depth-wise convolution (MTA + GDFN)"),
        Choice("gfn", "feed-forward", "gated, without depth-wise convolution (MTA + GFN)"),
        Choice("dfn", "feed-forward", "with depth-wise convolution, not gated (MTA + DFN)"),
        Choice("fn", "feed-forward", "plain: two layers (MTA + FN)"),
        Choice("concat", "concatenation", "level 1 keeps the 2C channels of its skip connection; no refinement"),
        Choice("no-concat", "concatenation", "level 1 is reduced to C channels; no refinement"),
        Choice("refinement", "refinement", "refinement blocks at the end: the paper's network"),
        Choice("no-refinement", "refinement", "none"),
        Choice("progressive", "patches", "patches grow and batches shrink in training"),
        Choice("fixed-patch", "patches", "patches of one size throughout, as in the paper's ablations"),
        Choice("with-bias", "norm", "LayerNorm with bias"),
        Choice("bias-free", "norm", "LayerNorm without bias, not centred"),
        Choice("global", "statistics", "test with attention over the whole picture, as trained"),
        Choice("local", "statistics", "test with attention in windows (TLC); trained as --global is"),
    )
}

SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "deep-narrow": {"dim": 48, "blocks": (4, 6, 6, 8), "refinement": 4, "expansion": 2.66},
        "middle": {"dim": 64, "blocks": (2, 3, 3, 4), "refinement": 3, "expansion": 2.53},
        "wide-shallow": {"dim": 80, "blocks": (1, 2, 2, 2), "refinement": 3, "expansion": 2.0},
    },
    # What compact.py's search finds (test_the_committed_arms_are_what_the_search_finds).
    "compact": {
        "deep-narrow": {"dim": 12, "blocks": (4, 6, 6, 8), "refinement": 4, "expansion": 2.66},
        "middle": {"dim": 16, "blocks": (2, 3, 3, 4), "refinement": 3, "expansion": 2.62},
        "wide-shallow": {"dim": 20, "blocks": (1, 2, 2, 2), "refinement": 3, "expansion": 2.14},
    },
}
"""The network of each shape."""

EXPANSIONS: dict[str, dict[tuple[str, str], float]] = {
    "paper": {
        (attention, feed_forward): 2.66 if feed_forward in ("gdfn", "gfn") else 4.0
        for attention in ("mdta", "mta")
        for feed_forward in ("gdfn", "gfn", "dfn", "fn")
    },
    "compact": {
        ("mdta", "gdfn"): 2.66,
        ("mdta", "gfn"): 2.95,
        ("mdta", "dfn"): 4.09,
        ("mdta", "fn"): 4.43,
        ("mta", "gdfn"): 2.8,
        ("mta", "gfn"): 3.12,
        ("mta", "dfn"): 4.32,
        ("mta", "fn"): 4.69,
    },
}
"""The feed-forward network's expansion in each row of Table 7."""

PROGRESSIVE = {
    "paper": ((92, 128, 64), (64, 160, 40), (48, 192, 32), (36, 256, 16), (36, 320, 8), (24, 384, 8)),
    "compact": ((156, 64, 8), (84, 96, 4), (60, 128, 2)),  # the paper's six in pairs, at the same work per step
}
"""Share of the iterations, patch and batch of each stage."""

WINDOWS = {"paper": 192, "compact": 96}
"""Side of --local's windows: 1.5 times the patch, as published."""

SCALES = tuple(SHAPES)


@dataclass(frozen=True)
class Figure:
    """A PSNR of the paper's ablations: Urban100, colour, Gaussian noise of σ 50, dB."""

    psnr: float
    recalled: bool = False
    """Not found in print again; never to be quoted without saying so."""


def network(names: Iterable[str], scale: str) -> dict[str, Any]:
    """The network of an arm: fields of [model] that its choices decide.

    The rows of Table 7 build on one another, so attention and feed-forward networks are compared without
    concatenation and refinement, and feed-forward networks under plain MTA, for which all four were published.
    """
    chosen = {CHOICES[name].group: name for name in names}
    shape = chosen.get("shape", "deep-narrow")
    model: dict[str, Any] = {**SHAPES[scale][shape]}
    attention, feed_forward = chosen.get("attention"), chosen.get("feed-forward")
    if attention or feed_forward:
        attention = attention or ("mdta" if "shape" in chosen else "mta")
        feed_forward = feed_forward or "gdfn"
        if "shape" in chosen:
            model["expansion"] = round(model["expansion"] * (4 / 2.66 if feed_forward in ("dfn", "fn") else 1), 2)
        else:
            model |= {"concat": False, "refinement": 0, "expansion": EXPANSIONS[scale][attention, feed_forward]}
        model |= {"attention": attention, "feed_forward": feed_forward}
    if "concatenation" in chosen:
        model |= {"concat": chosen["concatenation"] == "concat", "refinement": 0}
    if "refinement" in chosen:
        model["refinement"] = SHAPES[scale][shape]["refinement"] if chosen["refinement"] == "refinement" else 0
    if "norm" in chosen:
        model["norm"] = chosen["norm"]
    return model


def published(names: Iterable[str]) -> Figure | None:
    """Score of the paper's own ablation with these choices, where it has such a row."""
    names = tuple(names)
    if "local" in names:
        return None
    rows = _PROGRESSIVE_ROWS if "progressive" in names else _ROWS
    return rows.get(ModelConfig(**network(names, "paper")))


def _row(*names: str) -> ModelConfig:
    return ModelConfig(**network(names, "paper"))


_ROWS = {
    _row("mta", "fn"): Figure(29.28),
    _row("mdta", "fn"): Figure(29.43),
    _row("mta", "gfn"): Figure(29.40, recalled=True),
    _row("mta", "dfn"): Figure(29.42),
    _row("mta", "gdfn"): Figure(29.54),
    _row("mdta", "gdfn"): Figure(29.62),
    _row("concat"): Figure(29.66),
    _row("deep-narrow"): Figure(29.71),
    _row("middle"): Figure(29.63, recalled=True),
    _row("wide-shallow"): Figure(29.56, recalled=True),
}
_PROGRESSIVE_ROWS = {_row("deep-narrow"): Figure(29.78)}


# --- The command line ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """One arm as it was asked for: choices by name, or a recipe, or changes to the scale's own recipe."""

    name: str
    choices: tuple[str, ...] = ()
    recipe: str | None = None
    changes: tuple[str, ...] = ()


def arms_help() -> str:
    """Every arm for --help, a line each."""
    rows = [(choice.flag, choice.help) for choice in CHOICES.values()]
    rows += [
        ("--arm NAME:K=V,…", "the scale's network with other values, as in --arm wide:model.dim=64"),
        ("RECIPE", "a TOML file or bundled recipe; the first one's data and length hold for all"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {text}" for name, text in rows]
    return "\n".join(["\b", f"Arms, joined by {VS}; flags between two {VS} make one arm:", *lines])


def split_arguments(arguments: Sequence[str], options: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    """The raw argument list -> (options with their values, the words of arms in order).

    options: every option of the verb, and whether a value follows it. What is neither is taken for an arm, so that a
    mistyped flag is answered by naming the nearest arm.
    """
    ours: list[str] = []
    words: list[str] = []
    rest = iter(arguments)
    for word in rest:
        name, equals, _ = word.partition("=")
        if word == "--":
            words += rest
        elif name in options:
            ours.append(word)
            ours += islice(rest, int(options[name] and not equals))
        else:
            words.append(word)
    return ours, words


def parse_arms(words: Sequence[str], options: Iterable[str] = ()) -> tuple[Spec, ...]:
    """Words such as --mta --fn vs --mdta --fn -> arms, in order. Raises UserError; `options` may be near misses."""
    groups: list[list[str]] = [[]]
    for word in words:
        if word.lower() == VS:
            groups.append([])
        else:
            groups[-1].append(word)
    specs = [_spec(group, options) for group in groups if group]
    if not specs:
        raise UserError(f"no arms: name two, such as {EXAMPLE}")
    _check_places(groups)
    if len(specs) < 2:
        raise UserError(f"{specs[0].name}: is one arm only: put {VS} and another behind it, as in {EXAMPLE}")
    for index, spec in enumerate(specs):
        if any(spec.name == other.name for other in specs[:index]):
            raise UserError(f"{spec.name}: is there twice: an arm cannot be compared with itself")
    return tuple(specs)


def _check_places(groups: list[list[str]]) -> None:
    for index, group in enumerate(groups):
        if group:
            continue
        where = (
            f"before the first {VS}"
            if index == 0
            else f"behind the last {VS}"
            if index == len(groups) - 1
            else f"between two {VS}"
        )
        raise UserError(f"there is no arm {where}: write ARM {VS} ARM, as in {EXAMPLE}")


def _spec(words: list[str], options: Iterable[str]) -> Spec:
    """Words between two `vs`."""
    parts = list(_parts(words, options))
    names = [part for part in parts if isinstance(part, str)]
    alone = [part for part in parts if isinstance(part, Spec)]
    if alone and len(parts) > 1:
        raise UserError(f"{' '.join(words)}: a recipe or --arm is an arm by itself: put {VS} between them")
    if alone:
        return alone[0]
    for index, name in enumerate(names):
        for other in names[:index]:
            if CHOICES[name].group == CHOICES[other].group:
                a, b = CHOICES[other].flag, CHOICES[name].flag
                raise UserError(f"{a} {b}: one arm cannot be both; two arms are {a} {VS} {b}")
    return Spec("+".join(names), choices=tuple(names))


def _parts(words: list[str], options: Iterable[str]) -> Iterator[str | Spec]:
    rest = iter(words)
    for word in rest:
        if word.removeprefix("--") in CHOICES and word.startswith("--"):
            yield word.removeprefix("--")
        elif word == "--arm" or word.startswith("--arm="):
            text = next(rest, "") if word == "--arm" else word.removeprefix("--arm=")
            yield _custom(text)
        elif word.startswith("-"):
            flags = [choice.flag for choice in CHOICES.values()]
            near = difflib.get_close_matches(word.partition("=")[0], [*flags, "--arm", *options], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(flags)}"
            raise UserError(f"no arm or option {word}: {hint}")
        else:
            yield Spec(_recipe_name(word), recipe=word)


def _recipe_name(word: str) -> str:
    if word in CHOICES:
        raise UserError(f"{word}: arms are flags: write --{word}")
    if not word.endswith(".toml") and "/" not in word:
        near = difflib.get_close_matches(word, CHOICES, n=1, cutoff=0.6)
        if near and not Path(word).is_file():
            raise UserError(f"{word}: no recipe of that name, nor an arm: did you mean --{near[0]}?")
    return re.sub(r"[^\w.-]", "-", word.removesuffix(".toml").strip("./").replace("/", "-")) or "recipe"


def _custom(text: str) -> Spec:
    name, colon, changes = text.partition(":")
    if not colon or not re.fullmatch(r"[\w.-]*\w[\w.-]*", name):
        raise UserError(f"--arm {text}: write NAME:KEY=VALUE,…, such as --arm wide:model.dim=64,model.refinement=2")
    if name in CHOICES:
        raise UserError(f"--arm {text}: {name} is an arm already: give yours another name")
    entries = tuple(filter(None, (entry.strip() for entry in _split_outside_brackets(changes))))
    for entry in entries:
        if "=" not in entry:
            raise UserError(f"--arm {text}: {entry} is not KEY=VALUE, such as model.dim=64")
    return Spec(name, changes=entries)


def _split_outside_brackets(text: str) -> Iterator[str]:
    """Entries between commas; those inside [ ], { } and quotes do not count."""
    depth, quoted, begun = 0, "", 0
    for index, character in enumerate(text):
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "\"'":
            quoted = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and depth == 0:
            yield text[begun:index]
            begun = index + 1
    yield text[begun:]
