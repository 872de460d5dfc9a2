"""The rooms of the house: which may import which. `python tests/test_architecture.py` prints the graph.

Imports are read from the source, those inside functions too; those for type checkers alone are left out, since they
run nowhere.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "restormer_cli"

ROOMS = (
    ("cli", "__main__"),
    ("commands",),
    ("benchmark", "training"),
    ("export", "data"),
    ("engine", "report", "recipe", "recipe_files"),
    ("model", "metrics", "images", "analysis"),
    ("degradations", "native", "pixels", "hardware", "files", "extras", "launcher"),
    ("errors", "__init__"),
)
"""From the top: a room imports rooms below its own row, and others of its row as long as nothing goes in a circle."""

UPWARD: set[tuple[str, str]] = set()
CIRCLES: set[str] = set()
"""Today's exceptions; these only shrink."""


def modules() -> dict[str, Path]:
    """Name below the package, such as `engine.strips`, -> its file."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return names


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    """As `_imports`, read once for all tests."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    """Everything that a file imports, by full name; nothing below `if TYPE_CHECKING:`."""
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        nodes.extend(ast.iter_child_nodes(node))


@cache
def graph() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports. The front door's own lazy imports are nobody's arrows."""
    known = modules()
    arrows: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for full in imports_of(path) if name != "__init__" else ():
            if full.partition(".")[0] != "restormer_cli":
                continue
            inside = full.partition(".")[2]
            while inside and inside not in known:
                inside = inside.rpartition(".")[0]
            arrows[name].add(inside or "__init__")
        arrows[name].discard(name)
    return arrows


def room(module: str) -> str:
    return module.partition(".")[0]


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules of which each reaches every other."""

    def reach(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            for there in arrows[waiting.pop()] - seen:
                seen.add(there)
                waiting.append(there)
        return seen

    reached = {name: reach(name) for name in arrows}
    groups = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in arrows if a in reached[a]}
    return [list(group) for group in sorted(groups)]


def upward(arrows: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Arrows to a row above."""
    row = {name: index for index, names in enumerate(ROOMS) for name in names}
    return [(a, b) for a, there in sorted(arrows.items()) for b in sorted(there) if row[room(b)] < row[room(a)]]


def test_every_room_has_its_row() -> None:
    assert {room(name) for name in modules()} <= {name for row in ROOMS for name in row}


def test_nothing_imports_in_a_circle() -> None:
    assert not [group for group in circles(graph()) if not set(group) <= CIRCLES]


def test_rooms_of_one_row_do_not_import_each_other_in_a_circle() -> None:
    rooms: dict[str, set[str]] = defaultdict(set)
    for name, there in graph().items():
        rooms[room(name)] |= {room(other) for other in there} - {room(name)}
    for names in ROOMS:
        for a in names:
            assert not [b for b in names if b in rooms[a] and a in rooms[b]]


def test_arrows_point_down() -> None:
    assert not [arrow for arrow in upward(graph()) if arrow not in UPWARD]


def test_no_verb_imports_another() -> None:
    verb = {name: name.split(".")[1] for name in modules() if name.count(".") > 1 and room(name) == "commands"}
    crossing = [(a, b) for a, there in graph().items() for b in there if a in verb and verb.get(b, verb[a]) != verb[a]]
    assert not crossing


def outside(library: str) -> set[str]:
    """Modules that import a library."""
    return {name for name, path in modules().items() if library in {full.split(".")[0] for full in imports_of(path)}}


def test_rich_only_where_something_is_shown() -> None:
    shown = {
        name for name in modules() if room(name) == "report" or name.rpartition(".")[2] in ("view", "tables", "cli")
    }
    assert outside("rich") <= shown


def test_typer_only_where_flags_are_read() -> None:
    assert {name for name in outside("typer") if name not in ("cli", "commands.shell")} <= {
        name for name in modules() if room(name) == "commands" and name.endswith(".cli")
    }


LONGEST = 60
"""Lines of a function, without its head and its docstring."""


def long_functions(source: str) -> dict[str, int]:
    """Name -> lines of the body, of functions that fit no screen."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[ast.get_docstring(node) is not None :]
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            found |= {node.name: lines} if lines > LONGEST else {}
    return found


def test_a_function_fits_a_screen() -> None:
    long = {name: long_functions(path.read_text(encoding="utf-8")) for name, path in modules().items()}
    assert not {name: functions for name, functions in long.items() if functions}


def test_rules_see_what_they_forbid(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import rich\n"
        "def f():\n    from restormer_cli.model import hub\n    import typer.core\n"
    )
    assert set(imports_of(source)) == {"typing.TYPE_CHECKING", "restormer_cli.model.hub", "typer.core"}
    arrows = {"model.a": {"engine.b"}, "engine.b": {"model.a"}, "cli": {"model.a"}}
    assert upward(arrows) == [("model.a", "engine.b")]
    assert circles(arrows) == [["engine.b", "model.a"]]
    body = "    x = 1\n" * LONGEST
    assert not long_functions(f'def f():\n    """Do it."""\n{body}')
    assert long_functions(f"def f():\n    y = 1\n{body}") == {"f": LONGEST + 1}


if __name__ == "__main__":
    found = graph()
    print(f"{len(found)} modules, {len({room(name) for name in found})} rooms")
    for names in ROOMS:
        for name in names:
            lower = sorted({room(b) for a, there in found.items() if room(a) == name for b in there} - {name})
            print(f"  {name} -> {', '.join(lower) or 'nothing'}")
    print(f"upward: {len(upward(found))} {upward(found)}")
    print(f"circles: {len(circles(found))} {circles(found)}")
