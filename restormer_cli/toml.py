"""Plain values -> TOML, as much of it as recipes need (the standard library only reads it)."""

import json
from collections.abc import Iterator
from typing import Any


def to_toml(values: dict[str, Any]) -> str:
    """Tables, lists of tables and plain values to text that `tomllib` reads back as the same; None is left out."""
    return "\n".join(_lines(values, ())).strip() + "\n"


def _lines(table: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    plain = {key: value for key, value in table.items() if not _is_tables(value)}
    for key, value in plain.items():
        if value is not None:
            yield f"{_key(key)} = {_inline(value)}"
    for key, value in table.items():
        if not _is_tables(value):
            continue
        name = ".".join(map(_key, (*path, key)))
        for row in value if isinstance(value, list) else [value]:
            yield ""
            yield f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
            yield from _lines(row, (*path, key))


def _is_tables(value: Any) -> bool:
    """Whether a value gets a heading of its own: a table, or a list of nothing but tables."""
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)
    )


def _inline(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    # JSON's strings, numbers and booleans are TOML's; only DEL must be escaped there too.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    bare = bool(key) and all(c.isascii() and (c.isalnum() or c in "_-") for c in key)
    return key if bare else _inline(key)
