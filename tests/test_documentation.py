"""README and docs say what is so: links lead somewhere, commands parse, the reference is the code's, messages exist."""

import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

from restormer_cli import __version__
from restormer_cli.cli import app
from restormer_cli.model.cards import bundled_cards
from restormer_cli.recipe import PAPER_STAGES
from restormer_cli.recipe_files import bundled_recipes

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "restormer_cli"
SITE = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """A page without its blocks and spans of code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text_of(path)))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as both the repository's view and the site make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(path)), re.MULTILINE)
    found = set()
    for heading in headings:
        words = re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading).strip().lower())
        there, site = re.sub(r"\s", "-", words), re.sub(r"[-\s]+", "-", words)
        if there == site and there.isascii():  # else one of the two would not find it
            found.add(there)
    return found


# --- Links --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_and_picture_leads_somewhere(page: Path) -> None:
    lost = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
        elif page.is_relative_to(ROOT / "docs") and not target.is_relative_to(ROOT / "docs"):
            lost.append(f"{link} (not on the site)")
    assert lost == []


def test_every_page_is_on_the_site_and_every_picture_on_a_page() -> None:
    def leaves(entries: list) -> Iterator[str]:
        for entry in entries:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else leaves(value)

    assert sorted(leaves(SITE["nav"])) == sorted(path.relative_to(ROOT / "docs").as_posix() for path in DOCS)
    shown = {link.rsplit("/", 1)[-1] for page in PAGES for link in LINK.findall(text_of(page))}
    pictures = {path.name for kind in ("*.png", "*.svg") for path in (ROOT / "docs").glob(kind)}
    assert pictures - shown == set()


def test_named_scripts_tests_and_recipes_exist() -> None:
    lost = []
    for page in PAGES:
        for place in re.findall(r"\b(?:scripts|tests|recipes)/[\w/.-]*\w", text_of(page)):
            made = place.endswith(".json")  # by a script
            if not made and not (ROOT / place).exists() and not list(ROOT.glob(place + "*")):
                lost.append(f"{name_of(page)}: {place}")
    assert lost == []


def test_named_tests_exist() -> None:
    known = "".join(text_of(path) for path in (ROOT / "tests").rglob("test_*.py"))
    named = {name for page in PAGES for name in re.findall(r"\btest_\w+\b(?!\.py)", text_of(page))}
    assert {name for name in named if f"def {name}" not in known} == set()


# --- Commands -----------------------------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[list[str]]:
    """Every `restormer …` in sh blocks and in what is indented as code, without what is piped to or from it."""
    for line in re.sub(r"\\\n\s*", " ", text_of(page)).splitlines():
        match = re.match(r"(?:\s*|.*(?:\||&&|;|do) )(?:restormer|.*-m restormer_cli) ([a-z]+ .*|--\S+)$", line)
        if match and not line.lstrip().startswith(("|", "#", "-", "*", "`")):
            words = shlex.split(re.split(r" \| | && |; | > ", match[1])[0], comments=True)
            yield words


def test_every_command_in_the_docs_has_flags_that_exist() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    wrong, count = [], 0
    for page in PAGES:
        for words in commands(page):
            if words[0].startswith("--") or "…" in words:
                continue
            count += 1
            try:
                # Only parsed, not run. --task help would print and end.
                with verbs[words[0]].make_context(words[0], [word for word in words[1:] if word != "help"] or ["x"]):
                    pass
            except typer.Exit:
                pass
            except Exception as error:
                if words[-2:] != ["--task", "help"]:
                    wrong.append(f"{name_of(page)}: {' '.join(words)}: {error}")
    assert wrong == []
    assert count > 60


def test_sh_blocks_are_sound_shell() -> None:
    blocks = "\n".join(
        match["body"] for page in PAGES for match in FENCE.finditer(text_of(page)) if match["kind"] == "sh"
    )
    done = subprocess.run(["bash", "-n"], input=blocks, capture_output=True, text=True, timeout=20)
    assert done.stderr == ""


# --- What the code says -------------------------------------------------------------------------------------------


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return load_script("reference")


def test_the_reference_is_the_codes(reference: ModuleType) -> None:
    stale = [name for name, text in reference.pages().items() if text_of(ROOT / "docs/reference" / name) != text]
    assert stale == [], "run python scripts/reference.py"


def test_the_schema_takes_every_bundled_recipe_and_refuses_mistakes(reference: ModuleType) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="pip install 'restormer-cli[test]'")
    validator = jsonschema.Draft202012Validator(reference.schema())
    validator.check_schema(validator.schema)
    for path in bundled_recipes().values():
        recipe = tomllib.loads(text_of(path))
        assert list(validator.iter_errors(recipe)) == [], path
        for mistake in ({"optimiser": {}}, {"model": {"dimm": 3}}, {"seed": "1"}, {"loss": {"kind": "l3"}}):
            assert not validator.is_valid(recipe | mistake), mistake


def test_every_key_of_a_recipe_is_explained(reference: ModuleType) -> None:
    schema = reference.schema()
    tables = {"": schema} | schema["$defs"]
    silent = [
        f"{name}.{key}"
        for name, table in tables.items()
        for key, value in table["properties"].items()
        if "description" not in value and not reference._references(value)
    ]
    assert silent == []
    assert "title" not in json.dumps(schema["$defs"])


def test_the_map_in_the_readme_names_every_room() -> None:
    table = text_of(ROOT / "README.md").split("## Map of the code")[1].split("\n## ")[0]
    rooms = set(re.findall(r"`([\w/]+(?:/|\.py))`", "".join(re.findall(r"^\|[^|]*\|", table, re.MULTILINE))))
    there = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py"} - {"__main__.py"}
    there |= {f"{path.name}/" for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert rooms == there
    files = {path.name for path in PACKAGE.rglob("*.py")}
    assert set(re.findall(r"`(?:\w+/)*(\w+\.py)`", table)) - files == set()


def defined_in(path: Path) -> set[str]:
    """Functions, classes, methods as Class.method, and constants of a file; in C its functions."""
    if path.suffix == ".c":
        return set(re.findall(r"^EXPORT \w+ (\w+)\(", text_of(path), re.MULTILINE))
    found = set()
    for node in ast.parse(text_of(path)).body:
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_the_five_walks_lead_to_files_and_functions_that_exist() -> None:
    walks = text_of(ROOT / "CONTRIBUTING.md").split("Five walks:\n\n")[1].split("\n\n")[0].splitlines()
    assert len(walks) == 5
    lost = []
    for walk in walks:
        file, named = None, 0
        for name in re.findall(r"`([^`]+)`", walk):
            if name.startswith("--"):
                continue
            if "/" in name:
                file = PACKAGE / name
            elif file is None or not file.exists() or name not in defined_in(file):
                lost.append(f"{name} in {file}")
            named += "/" not in name
        assert named, walk
    assert lost == []


def templates() -> Iterator[str]:
    """Every string in the package, with … for what is filled in."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)  # type: ignore[misc]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_messages_in_failures_are_the_programs() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", text_of(ROOT / "docs/failures.md"), re.MULTILINE)
    messages = [row for row in rows if "…" in row or ": " in row][1:]  # the first one is the shell's
    assert len(messages) > 25
    known = list(templates())

    def said(message: str) -> bool:
        parts = [part for part in message.split("…") if part.strip(" :.()")]
        pattern = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
        return any(pattern.search(template) for template in known)

    assert [message for message in messages if not said(message)] == []


def test_the_tasks_in_the_readme_are_the_bundled_checkpoints() -> None:
    table = text_of(ROOT / "README.md").split("## Tasks")[1].split("\n## ")[0]
    rows = re.findall(r"^\|[^|]*\| `([\w-]+)`, bundled \| (\S+ dB) [^|]*\(input (\S+)\)", table, re.MULTILINE)
    results = {card.name: card.measured["results"] for card in bundled_cards()}
    assert {name for name, *_ in rows} == results.keys()
    for name, after, before in rows:
        assert any(f": {after} from {before} " in result for result in results[name]), name


def test_figures_in_the_readme_are_those_of_performance() -> None:
    table = text_of(ROOT / "README.md").split("## How it compares")[1].split("\n## ")[0]
    figures = re.findall(r"(?<![\w.])\d+\.\d+(?= GB| \||×| dB)", table)
    measured = text_of(ROOT / "docs/performance.md")
    assert len(figures) >= 8
    assert [figure for figure in figures if figure not in measured] == []


def test_stages_on_the_page_are_the_recipes() -> None:
    rows = re.findall(
        r"^\| \d \| ([\d,]+) \| ([\d,]+) \| (\d+)² \| (\d+) \| ([\d.]+) \|$",
        text_of(ROOT / "docs/progressive.md"),
        re.MULTILINE,
    )
    end, expected = 0, []
    for stage in PAPER_STAGES:
        end += stage.iterations
        megapixels = f"{stage.batch * stage.patch**2 / 1e6:.2f}"
        expected.append((f"{stage.iterations:,}", f"{end:,}", str(stage.patch), str(stage.batch), megapixels))
    assert rows == expected


def test_versions_agree() -> None:
    assert re.search(rf"^version: {re.escape(__version__)}$", text_of(ROOT / "CITATION.cff"), re.MULTILINE)
    assert f"## {__version__}" in text_of(ROOT / "CHANGELOG.md")


# --- The shell's tab key ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("restormer re", ["restore"]),
        ("restormer train quick/", ["quick/denoise"]),
        ("restormer restore in out --skip", ["--skip-existing"]),
        ("restormer restore in out --task den", ["denoise"]),
        ("restormer restore in out --weights official/denoise-r", ["official/denoise-real"]),
        ("restormer train ./mi", []),
    ],
)
def test_the_tab_key_completes(line: str, offered: list[str]) -> None:
    words = {"_RESTORMER_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    program = str(Path(sys.executable).parent / "restormer")
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, env=os.environ | words)
    assert set(offered) <= set(done.stdout.split()) if offered else done.stdout.split() == []
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_for_restormer(shell: str) -> None:
    program = str(Path(sys.executable).parent / "restormer")
    variables = os.environ | {"_RESTORMER_COMPLETE": f"source_{shell}"}
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, env=variables)
    assert "_RESTORMER_COMPLETE=complete_" in done.stdout
