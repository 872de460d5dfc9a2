"""Write the reference pages of the docs from the code: flags, recipes and their schema, JSON, formats, Python.

    python scripts/reference.py            # writes docs/reference/
    python scripts/reference.py --check    # exit 4 and the names of pages that the code has left behind

`tests/test_documentation.py` runs the check. Everything said on the pages is in the code: help texts, docstrings.
"""

import argparse
import ast
import inspect
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from restormer_cli.benchmark.classical import METHODS
from restormer_cli.benchmark.methods import NEEDS, PEERS
from restormer_cli.cli import app
from restormer_cli.commands.shell import ENVIRONMENT
from restormer_cli.degradations import spec
from restormer_cli.images.formats.raster import FLOAT_BITS
from restormer_cli.images.formats.table import ABOUT, CODECS, EXTRAS, READABLE
from restormer_cli.metrics.protocols import BY_TASK, PROTOCOLS
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import bundled_recipes, read_recipe

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "restormer_cli"
TARGET = ROOT / "docs" / "reference"
MADE = "<!-- Made by scripts/reference.py from the code: change the code, then run it again. -->\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, text in pages().items():
        path = TARGET / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    if check and stale:
        print(f"stale: {', '.join(stale)}; run python scripts/reference.py", file=sys.stderr)
        sys.exit(4)


def pages() -> dict[str, str]:
    """File name -> its text."""
    return {
        "cli.md": cli_page(),
        "recipe.md": recipe_page(),
        "recipe.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        "paper.md": paper_page(),
        "degradations.md": degradations_page(),
        "formats.md": formats_page(),
        "json.md": json_page(),
        "python.md": python_page(),
    }


# --- The command line ---------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Every verb and flag, in the words of `--help`."""
    lines = [MADE, "# Command line", "", "What `restormer VERB --help` says, verb by verb. " + ENVIRONMENT, ""]
    verbs = _entries(_help(), "Commands")
    lines += [
        "| verb | |",
        "|---|---|",
        *(f"| [`{verb}`](#restormer-{verb}) | {_cell(what)} |" for verb, what in verbs),
    ]
    for verb, what in verbs:
        arguments = " ".join(flag for flag, _ in _entries(_help(verb), "Arguments"))
        lines += ["", f"## restormer {verb}", "", what, "", f"`restormer {verb} [OPTIONS] {arguments}`", ""]
        lines += ["| argument or flag | |", "|---|---|"]
        lines += [
            f"| `{_cell(flag)}` | {_cell(words)} |" for flag, words in _entries(_help(verb), "Arguments", "Options")
        ]
        if verb == "bench":
            lines += ["", *_methods_and_protocols()]
    lines += [
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---|---|",
        "| 0 | all done |",
        "| 1 | the work failed: disk full, memory, network, a defect |",
        "| 2 | the request, the recipe or the input is wrong |",
        "| 3 | some pictures failed, each with its reason; the rest are done |",
        "| 4 | a check fell below its threshold: `export`'s comparison, `--min-psnr` and its like |",
        "| 130 | interrupted; what was done is kept |",
        "",
        "Results and JSON go to stdout, everything else to stderr. `NO_COLOR`, or a stderr that is no terminal, gives "
        "plain lines. Nothing ever prompts.",
    ]
    return "\n".join(lines) + "\n"


def _methods_and_protocols() -> Iterator[str]:
    """The tables of what `--against` and `--protocol` name."""
    yield from ("### Methods to compare with", "", "`--against` takes:", "", "| name | what |", "|---|---|")
    for name, what in {**PEERS, **{name: method.about for name, method in METHODS.items()}}.items():
        needs = f"; needs `[{NEEDS[name][0]}]`" if name in NEEDS else ""
        yield f"| `{name}` | {_cell(what)}{needs} |"
    yield "| `spandrel:FILE` | any network that spandrel loads; needs `[peers]` |"
    yield from (
        "",
        "### Protocols of scoring",
        "",
        "`--protocol` takes:",
        "",
        "| name | default for | rules |",
        "|---|---|---|",
    )
    for name, protocol in PROTOCOLS.items():
        tasks = ", ".join(task for task, chosen in BY_TASK.items() if chosen == name)
        yield f"| `{name}` | {tasks} | {_cell(protocol.rules)} |"


def _help(*verb: str) -> str:
    return CliRunner().invoke(app, [*verb, "--help"], terminal_width=1000).stdout


def _entries(page: str, *sections: str) -> list[tuple[str, str]]:
    """(flag, words) of a help page's sections; long flags have their words on the next line."""
    found: list[tuple[str, str]] = []
    inside = False
    for line in page.splitlines():
        if not line.startswith(" "):
            inside = line.rstrip(":") in sections
        elif inside and (entry := re.fullmatch(r"  (\S.*?)(?:  +(\S.*))?", line)):
            found.append((entry[1], entry[2] or ""))
        elif inside and found and (words := re.fullmatch(r"   +(\S.*)", line)):
            found[-1] = (found[-1][0], f"{found[-1][1]} {words[1]}".strip())
    return [(re.sub(r" <[^>]*>$", "", flag), _plain(words)) for flag, words in found]


def _plain(words: str) -> str:
    """Without the ranges that Typer adds, which differ between its versions."""
    text, _, notes = words.removesuffix("]").rpartition("  [")
    kept = [note for note in notes.split("; ") if note.startswith(("default: ", "required"))]
    return words if not text else " ".join([text, f"[{'; '.join(kept)}]" if kept else ""]).strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# --- Recipes ------------------------------------------------------------------------------------------------------


def schema() -> dict[str, Any]:
    """The JSON schema of a recipe; the docstrings below the fields are its descriptions."""
    described = {name: text for file in ("recipe.py", "model/config.py") for name, text in _field_docs(PACKAGE / file)}
    root = Recipe.model_json_schema(by_alias=True)
    for table in (root, *root["$defs"].values()):
        owner = table["title"]
        for key, value in table["properties"].items():
            if text := described.get((owner, key), described.get((owner, key + "_"))):
                value["description"] = text
    _drop_titles(root)
    # The name is the file's unless told; every default is the paper's.
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Restormer recipe", **root}


def _drop_titles(value: Any) -> None:
    """Pydantic titles every field by its name, which says nothing."""
    if isinstance(value, dict):
        if isinstance(value.get("title"), str):
            del value["title"]
        for entry in value.values():
            _drop_titles(entry)


def _field_docs(path: Path) -> Iterator[tuple[tuple[str, str], str]]:
    """((class, field), docstring): a string below a field, which Python itself forgets."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                yield (node.name, field.target.id), inspect.cleandoc(text.value.value)  # type: ignore[attr-defined]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def recipe_page() -> str:
    """Every table and key of a recipe."""
    root = schema()
    lines = [
        MADE,
        "# Recipes",
        "",
        "A recipe is TOML and lists only what differs from the paper's defaults, which stand below. Any value can be "
        "changed for one run, rows by index: `--set optimizer.lr=1e-4 --set stage.0.patch=64`. Unknown keys, wrong "
        "types and impossible values are refused before any work. `restormer train RECIPE --plan` prints what a "
        "recipe will do.",
        "",
        "Editors complete and check recipes by [recipe.schema.json](recipe.schema.json), also in the package beside "
        'the recipes. With Taplo ("Even Better TOML") put `#:schema PATH/recipe.schema.json` into the first line of '
        "your recipe; inside this repository `.taplo.toml` does that for you.",
        "",
        "## Bundled recipes",
        "",
        "| name | task | iterations | should reach |",
        "|---|---|---|---|",
    ]
    for name in bundled_recipes():
        recipe = read_recipe(name)
        lines.append(f"| `{name}` | {recipe.task} | {recipe.iterations:,} | {_cell(recipe.expected or '')} |")
    lines += ["", "## Top level", "", *_keys(root)]
    for key, value in root["properties"].items():
        tables = [name for name in _references(value) if root["$defs"][name].get("type") == "object"]
        for name in tables:
            heading = f"[[{key}]]" if value.get("type") == "array" else f"[{key}]"
            lines += ["", *_table(f"`{heading}`", root["$defs"][name])]
            if key == "data":
                for inner in ("Pairs", "Cut"):
                    place = "`train`, `validate`" if inner == "Pairs" else "`cut`"
                    lines += ["", *_table(f"{place} in `[data]`", root["$defs"][inner])]
    return "\n".join(lines) + "\n"


def _table(heading: str, table: dict[str, Any]) -> list[str]:
    return [f"## {heading}", "", *([_prose(table["description"]), ""] if "description" in table else []), *_keys(table)]


def _keys(table: dict[str, Any]) -> Iterator[str]:
    yield from ("| key | value | default | |", "|---|---|---|---|")
    required = table.get("required", ())
    for key, value in table["properties"].items():
        default = "**required**" if key in required else _default(value)
        words = _cell(_prose(value.get("description", "")))
        yield f"| `{key}` | {_cell(_words(value))} | {default} | {words} |"


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    if default is None or default == "" or isinstance(default, dict) or default == []:
        return ""
    if isinstance(default, list) and isinstance(default[0], dict):
        return "the paper's six stages"
    return f"`{json.dumps(default)}`"


def _references(value: dict[str, Any]) -> list[str]:
    """Names of the tables that a value is or lists."""
    found = [value, value.get("items", {}), *value.get("anyOf", ()), *value.get("allOf", ())]
    return [entry["$ref"].rsplit("/", 1)[1] for entry in found if isinstance(entry, dict) and "$ref" in entry]


def _words(value: dict[str, Any]) -> str:
    """The type of a value, for people."""
    if "enum" in value:
        return " ".join(f"`{entry}`" for entry in value["enum"])
    if "anyOf" in value:
        return " or ".join(_words(entry) for entry in value["anyOf"] if entry.get("type") != "null")
    if "$ref" in value or "allOf" in value:
        return "a table"
    kind = value.get("type")
    if kind == "array":
        if "prefixItems" in value:
            return f"list of {len(value['prefixItems'])}: {_words(value['prefixItems'][0])}"
        return "rows" if "$ref" in value.get("items", {}) else f"list of: {_words(value.get('items', {}))}"
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {value[name]:g}" for name, sign in limits.items() if name in value]
    if "multipleOf" in value:
        bounds.append(f"a multiple of {value['multipleOf']}")
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`"}
    return ", ".join([names.get(str(kind), str(kind)), *bounds])


def paper_page() -> str:
    """The opening comments of the paper's recipes: what they expect, and reach."""
    lines = [MADE, "# The paper's recipes", ""]
    lines += [
        "What each needs and what the paper reports for it, from the first lines of `recipes/*.toml`. None of the data "
        "sets was available here: the figures are the paper's, not measured again.",
    ]
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, path in bundled_recipes().items():
        if "/" not in name:
            comment = itertools.takewhile(lambda line: line.startswith("#"), path.read_text("utf-8").splitlines())
            about, data, layout, crops, *_ = _paragraphs(comment)
            text = f"{data}\n\n```text\n{layout}\n```" + (f"\n\n{crops}" if crops.startswith("No crops") else "")
            groups.setdefault(text, []).append((name, about))
    for text, recipes in groups.items():
        lines += ["", "## " + ", ".join(f"`{name}`" for name, _ in recipes), ""]
        lines += [*(f"- {about}" for _, about in recipes), "", text] if recipes[1:] else [recipes[0][1], "", text]
    return "\n".join(lines) + "\n"


def _paragraphs(comment: Iterable[str]) -> list[str]:
    """Of a comment; an indented one keeps its lines."""
    texts = "\n".join(line.removeprefix("#").removeprefix(" ") for line in comment).split("\n\n")
    return [inspect.cleandoc(text) if text.startswith("    ") else " ".join(text.split()) for text in texts]


# --- Degradations -------------------------------------------------------------------------------------------------


def degradations_page() -> str:
    """The language that names degradations, and its catalogue."""
    lines = [MADE, "# Degradations", ""]
    lines += [
        "The same words in a recipe's `[degrade] steps` and `validation.degrade`, in `restore --degrade` and in "
        "`bench --degrade`:",
        "",
        *(line for line in (inspect.getdoc(spec) or "").splitlines() if line.startswith("    ")),
        "",
        "A range that is not named is the default. `@` is the probability of the whole step, all of its alternatives "
        "together. A blur is computed with what lies around the patch; only a picture's own border is mirrored.",
    ]
    for name, kind in spec.KINDS.items():
        lines += ["", f"## `{name}`", "", _prose(inspect.getdoc(kind.apply) or ""), "", f"Example: `{kind.example}`"]
        if kind.parameters:
            lines += ["", "| parameter | default | possible | unit |", "|---|---|---|---|"]
        for parameter in kind.parameters:
            possible = " ".join(map(str, parameter.choices)) or str(parameter.limits)
            lines.append(f"| `{parameter.name}` | {parameter.default} | {possible} | {parameter.unit} |")
    return "\n".join(lines) + "\n"


# --- Formats ------------------------------------------------------------------------------------------------------

WIDE_GAMUT = ((b"cICP", bytes([9, 13, 0, 1])),)
"""Rec. 2020 by the numbers of ITU-T H.273."""


def formats_page() -> str:
    """Every format of pictures: depths, channels, what is kept, and which library does it."""
    lines = [MADE, "# Picture formats", ""]
    lines += ["| format | extensions | depths | channels | lossless | read too |", "|---|---|---|---|---|---|"]
    for form, about in ABOUT.items():
        codec = CODECS[form]
        extensions = " ".join(f"`{end}`" for end, its in READABLE.items() if its == form)
        depths = ", ".join("float32" if bits == FLOAT_BITS else str(bits) for bits in codec.depths)
        channels = ("gray, " if codec.gray else "") + "colour"
        channels += (", each with alpha" if codec.gray else ", with alpha") if codec.alpha else ""
        needs = f"needs the extra `[{EXTRAS[form][1]}]`" if form in EXTRAS else ""
        also = "; ".join(filter(None, (about.also, needs)))
        lines.append(f"| {about.name} | {extensions} | {depths} | {channels} | {about.lossless} | {also} |")
    lines += [
        *("", "## What is kept", ""),
        "AVIF: at 8 bits; at 10 and 12 colours by numbers only. *By profile*: as an equivalent profile. *By numbers*: "
        "as ITU-T H.273's numbers where these say the same. *Converted*: the pixels become sRGB, with a note. *Told*: "
        "lost, with a note. `test_the_table_of_what_is_kept_is_true` tries every cell.",
        "",
        "| format | EXIF | ICC profile | colours by numbers | XMP | IPTC | text | gain map | film |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for form, about in ABOUT.items():
        codec = CODECS[form]
        numbers = codec.colour(WIDE_GAMUT, codec.depths[0], True)
        cells = [
            "yes" if codec.exif_limit else "told",
            "yes" if codec.icc else "by numbers" if numbers else "converted",
            "yes" if numbers else "by profile" if codec.icc else "converted",
            *("yes" if name in codec.beside else "told" for name in ("xmp", "iptc", "text", "gain map", "film")),
        ]
        lines.append(f"| {about.name} | {' | '.join(cells)} |")
    lines += [
        *("", "## Which library reads and writes it", ""),
        "imageio where it keeps as much as we do (also pictures in pages and previews, validation pictures), else a "
        "library below it (`restormer_cli/images/formats/`).",
        *("", "| format | written by | read by | why not imageio |", "|---|---|---|---|"),
        *(f"| {about.name} | {about.written} | {about.read} | {about.why} |" for about in ABOUT.values()),
        "| video | PyAV | PyAV | its plugin has no time stamps, colour tags, sound or subtitles |",
        "| the degradation `jpeg`, in memory | Pillow | Pillow | twice the time for a patch of 128² (0.6 → 1.1 ms) |",
    ]
    return "\n".join(lines) + "\n"


# --- JSON ---------------------------------------------------------------------------------------------------------

DOCUMENTS = {
    "restormer restore": ("commands/restore/document.py", "analysis/findings.py", "analysis/noise.py",
                          "analysis/blur.py", "analysis/traces.py", "analysis/trial.py"),
    "restormer bench": ("commands/bench/document.py", "hardware.py"),
    "restormer ablate": ("commands/ablate/document.py",),
    "weights": ("model/cards.py",),
    "the run folder": ("training/run_folder.py", "training/trainer.py", "training/validation.py"),
}  # fmt: skip
"""Where a verb's document is described: its own file first, then files of what is in it."""
FOUND_INSIDE = (
    "Findings",
    "Noise",
    "Blur",
    "Clipping",
    "Rain",
    "Trial",
    "Machine",
    "StepLog",
    "ValidationLog",
    "RolledBack",
)
"""Classes of the other files."""


def json_page() -> str:
    """Every key of the documents that `--json` prints."""
    lines = [MADE, "# JSON documents", ""]
    lines += [
        "`--json` prints one document on stdout, that of `restore` also after a refusal, a failure or an interrupt. "
        "Within a schema's number keys are only added. Numbers that are not finite are null. "
        "`restormer export --json` prints the metadata that the file carries: the "
        "[weights' header](../weights-format.md) and the [comparison](../export.md#checked-before-it-is-kept).",
    ]
    for verb, (own, *others) in DOCUMENTS.items():
        lines += ["", f"## {verb[0].upper() + verb[1:] if verb.startswith('the') else verb}"]
        if verb == "the run folder":
            files = (ast.get_docstring(ast.parse((PACKAGE / own).read_text("utf-8"))) or "").partition("\n\n")[2]
            lines += ["", "Of `restormer train`:", "", "```text", files, "```", "", "Lines of `metrics.jsonl`:"]
        tables = [*_classes(own).values()] if verb == "weights" else [*reversed(_classes(own).values())]
        tables += [table for file in others for table in _classes(file).values()]
        for table in tables:
            if rows := _rows(table, own):
                lines += ["", f"### {_title(verb, table)}", "", _prose(ast.get_docstring(table) or ""), ""]
                lines += ["| key | value | |", "|---|---|---|", *rows]
        if verb == "weights":
            lines += ["", *_tensors()]
    return "\n".join(lines) + "\n"


def _tensors() -> Iterator[str]:
    """Names and shapes of the paper's network; of the blocks the first one, which stands for all."""
    import torch

    with torch.device("meta"):
        state = Restormer(ModelConfig()).state_dict()
    blocks = dict.fromkeys(name.partition(".0.norm1")[0] for name in state if ".0.norm1" in name)
    first = next(iter(blocks))
    yield from ("### Weights: tensors", "", "Of the paper's network. What `encoder_level1.0.` has, every block has:")
    yield f"the blocks 0, 1, … of {', '.join(f'`{name}`' for name in blocks)}."
    yield from ("", "| tensor | shape |", "|---|---|")
    for name, value in state.items():
        if name.startswith(f"{first}.0.") or name.split(".")[0] not in blocks:
            yield f"| `{name}` | {', '.join(map(str, value.shape))} |"


def _classes(file: str) -> dict[str, ast.ClassDef]:
    """Those that are lists of keys: of a document's file all that are typed dictionaries."""
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name: node for node in found if node.bases or node.name in FOUND_INSIDE}


def _title(verb: str, table: ast.ClassDef) -> str:
    return f"{verb.removeprefix('restormer ').capitalize()}: {_words_of(table.name)}"


def _words_of(name: str) -> str:
    """QualitySummaryEntry -> quality summary."""
    return " ".join(re.findall(r"[A-Z][a-z]+", name.removesuffix("Entry"))).lower()


def _rows(table: ast.ClassDef, own: str) -> list[str]:
    """A line a key; what a table shares with another is told there."""
    rows = []
    for base in table.bases:
        if (name := ast.unparse(base)) != "TypedDict":
            rows.append(f"| … | | the keys of {_words_of(name)} |")
    for field, after in zip(table.body, [*table.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            text = after.value.value if after is not None and _is_text(after) else ""  # type: ignore[attr-defined]
            words = _cell(_prose(inspect.cleandoc(text)))
            rows.append(f"| `{ast.unparse(field.target)}` | {_cell(_json_type(field.annotation))} | {words} |")
    return rows


def _json_type(node: ast.expr) -> str:
    """An annotation in the words of JSON."""
    plain = {"str": "text", "int": "number", "float": "number", "bool": "true, false", "None": "null"}
    plain |= {"Kind": "text"}
    if isinstance(node, ast.BinOp):
        return f"{_json_type(node.left)} or {_json_type(node.right)}"
    if isinstance(node, ast.Subscript):
        inner = node.slice.elts[-1] if isinstance(node.slice, ast.Tuple) else node.slice
        kind, name = ast.unparse(node.value), ast.unparse(node.slice)
        if kind == "NotRequired":
            return _json_type(inner)
        if kind == "dict":
            return "object" if "Any" in name else f"object of: {_json_type(inner)}"
        first = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
        return f"list of: {_json_type(first)}"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a class further down
        return _json_type(ast.parse(node.value, mode="eval").body)
    name = ast.unparse(node)
    return plain.get(name) or _words_of(name)


# --- Python -------------------------------------------------------------------------------------------------------

SHOWN: dict[str, tuple[str, ...]] = {
    "model/weights.py": ("load_weights", "find_weights"),
    "model/weights_file.py": ("Weights", "load_file", "save_weights", "infer_config"),
    "engine/restorer.py": ("Restorer",),
    "model/padding.py": ("pad_to_multiple_of_8",),
    "model/config.py": ("ModelConfig",),
    "model/restormer.py": ("Restormer", "Block", "MDTA", "Gram", "GDFN"),
    "images/io.py": ("read_picture", "write_picture", "Picture", "decode_picture", "encode_picture"),
    "degradations/spec.py": ("parse_degradation", "Degradation"),
    "degradations/operators.py": (
        "gaussian",
        "published_gaussian",
        "poisson_gaussian",
        "defocus",
        "motion",
        "rain",
        "jpeg",
    ),
    "metrics/measures.py": ("psnr", "mae", "ssim_gaussian", "ssim_uniform", "ssim_volume", "luma8"),
    "metrics/protocols.py": ("find_protocol", "Protocol", "Scores"),
    "recipe_files.py": ("read_recipe", "find_recipe", "bundled_recipes", "parse_recipe"),
    "training/schedule.py": ("stage_at", "learning_rate", "cosine_split", "split_batch"),
    "hardware.py": ("choose_device",),
    "errors.py": ("RestormerError", "UserError", "CheckFailed", "Failed", "NoRoom"),
}
"""What scripts are written with, file by file; the rest is listed by its files."""


def python_page() -> str:
    """Signatures and docstrings, read and not run, so that no import decides what is said."""
    lines = [MADE, "# Python", "", "The calls that everything else is made of:", "", "```python"]
    lines += [
        "from restormer_cli import Restorer, load_weights, read_picture, write_picture",
        "",
        'weights = load_weights("denoise")  # a bundled name or a file',
        "restore = Restorer(weights.model)",
        'noisy = read_picture("docs/samples/chelsea-sigma25.png")',
        'write_picture("chelsea.png", restore(noisy.pixels), noisy)  # depth, alpha, EXIF and ICC as they were',
        "```",
    ]
    for file, names in SHOWN.items():
        tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
        found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        lines += ["", f"## `{_module(PACKAGE / file)}`", "", _prose(ast.get_docstring(tree) or "")]
        for name in names:
            lines += ["", *_definition(found[name])]
    lines += ["", "## Every module", "", "| module | |", "|---|---|"]
    for path in sorted(PACKAGE.rglob("*.py")):
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
        lines.append(f"| `{_module(path)}` | {_cell(_prose(first))} |")
    return "\n".join(lines) + "\n"


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _definition(node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    yield from (f"### {node.name}", "", "```py")
    if isinstance(node, ast.FunctionDef):
        yield _signature(node, node.name)
    else:
        bases = [ast.unparse(base) for base in node.bases]
        yield f"class {node.name}({', '.join(bases)})" if bases else f"class {node.name}"
        yield from (f"    {_field(field)}" for field in node.body if isinstance(field, ast.AnnAssign))
        yield from (f"    {line}" for method in _methods(node) for line in _signature(method, method.name).splitlines())
    yield from ("```", "", _prose(ast.get_docstring(node) or ""))
    for method in _methods(node) if isinstance(node, ast.ClassDef) else ():
        if text := ast.get_docstring(method):
            yield from ("", f"`{method.name}`: {_prose(text)}")


def _field(field: ast.AnnAssign) -> str:
    text = f"{ast.unparse(field.target)}: {ast.unparse(field.annotation)}"
    return text if field.value is None else f"{text} = {ast.unparse(field.value)}"


def _methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    shown = ("__init__", "__call__")
    return [
        method
        for method in node.body
        if isinstance(method, ast.FunctionDef) and (method.name in shown or not method.name.startswith("_"))
    ]


def _signature(node: ast.FunctionDef, name: str) -> str:
    arguments = node.args
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments.args = arguments.args[1:]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    decorated = [ast.unparse(decorator) for decorator in node.decorator_list]
    if "property" in decorated:
        return f"{name}{returns.replace(' ->', ':')}"
    return f"{name}({ast.unparse(arguments)}){returns}"


def _prose(text: str) -> str:
    """A docstring as Markdown: what looks like a tag is none."""
    return text.replace("<", "&lt;")


if __name__ == "__main__":
    main()
