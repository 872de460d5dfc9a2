"""Every flag of a verb reaches its request, and both have the same default."""

import inspect
from dataclasses import MISSING, dataclass, fields
from typing import Any

import pytest

from restormer_cli.commands.ablate import cli as ablate
from restormer_cli.commands.ablate import types as ablate_types
from restormer_cli.commands.bench import cli as bench
from restormer_cli.commands.bench import types as bench_types
from restormer_cli.commands.export import cli as export
from restormer_cli.commands.export import run as export_run
from restormer_cli.commands.restore import cli as restore
from restormer_cli.commands.restore import types as restore_types
from restormer_cli.commands.shell import from_flags
from restormer_cli.commands.train import cli as train
from restormer_cli.commands.train import run as train_run

SHOWN = {"debug", "as_json", "page", "plan", "context"}
"""Flags of how a result is shown, and not of what is asked for."""
MADE = {
    "restore": ({"ext", "preview", "paths"}, {"extension", "analyse", "source", "target", "more"}),
    "train": ({"devices"}, {"overrides"}),
    "export": ({"compile_"}, {"compile"}),
    "ablate": (set(), {"words", "options", "overrides"}),
    "bench": (
        {"tile", "window", "device", "precision", "min_psnr", "max_seconds", "max_memory"},
        {"tiles", "windows", "devices", "precisions", "sizes", "against", "metrics", "keep_views", "gates"},
    ),
}
"""Flags that become something else, and fields that are made of them."""


@pytest.mark.parametrize(
    ("verb", "request_type"),
    [
        (restore.restore, restore_types.Request),
        (train.train, train_run.Request),
        (export.export, export_run.Request),
        (ablate.ablate, ablate_types.Request),
        (bench.bench, bench_types.Request),
    ],
)
def test_flags_and_fields_are_the_same(verb: Any, request_type: Any) -> None:
    read, made = MADE[verb.__name__]
    flags = {name: flag for name, flag in inspect.signature(verb).parameters.items() if name not in SHOWN | read}
    known = {field.name: field for field in fields(request_type)}
    assert set(flags) - made == set(known) - made
    for name in set(known) - made:
        wanted = inspect.Parameter.empty if known[name].default is MISSING else known[name].default
        assert flags[name].default == wanted, name


def test_a_field_without_a_flag_is_a_defect_and_never_a_default() -> None:
    @dataclass(frozen=True)
    class Request:
        tile: int = 0
        overlap: int = 32

    assert from_flags(Request, {"tile": 8, "debug": True}, overlap=1) == Request(8, 1)
    with pytest.raises(KeyError, match="overlap"):
        from_flags(Request, {"tile": 8})
