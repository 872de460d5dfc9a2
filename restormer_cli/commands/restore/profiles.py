"""`--profile`: a set of flags under a name, in a TOML file.

    # ~/.config/restormer/profiles/portrait.toml
    task = "denoise"
    luma = 0.7
    detail = 0.4
    skip-existing = true

Keys are flags without their dashes. A flag on the command line wins over the environment, that over the profile, and
that over the default.
"""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from restormer_cli.errors import UserError, one_line
from restormer_cli.files import config_folder

LARGEST = 1 << 20
"""Bytes; what is longer is no profile."""


def profile_folder() -> Path:
    """Where profiles with a name lie."""
    return config_folder() / "profiles"


def profile_names() -> list[str]:
    """Names of the profiles in the user's folder, sorted."""
    folder = profile_folder()
    return sorted(path.stem for path in folder.glob("*.toml")) if folder.is_dir() else []


def list_profiles() -> str:
    """For --profile help: where profiles lie, and what each sets."""
    folder, names = profile_folder(), profile_names()
    if not names:
        return f"no profiles in {folder}: write flags into a file there, such as portrait.toml with the line luma = 0.7"
    lines = []
    for name in names:
        try:
            text = " ".join(
                f"--{flag}" if value is True else f"--{flag} {value}" for flag, value in _read(name).items()
            )
        except UserError as error:
            text = str(error)
        lines.append(f"{name}: {one_line(text)}")
    return "\n".join([f"profiles in {folder}:", *lines])


def read_profile(name: str, flags: Mapping[str, type]) -> dict[str, Any]:
    """A profile's flags and values: by a file's path, or a name in the user's folder.

    flags: what may be set, and each one's type (bool, int, float or str). Raises UserError, one line, for a profile
    that is not there, empty, no TOML, or that sets what is no flag or of another type.
    """
    values = _read(name)
    if not values:
        raise UserError(f"--profile {name}: sets nothing: write flags into it, such as luma = 0.7")
    for flag, value in values.items():
        if flag not in flags:
            near = get_close_matches(flag, flags, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"flags are {', '.join(sorted(flags))}"
            raise UserError(f'--profile {name}: "{one_line(flag)}" is not a flag that a profile can set: {hint}')
        wanted = flags[flag]
        fits = type(value) is wanted or (wanted is float and type(value) is int)
        if not fits:
            kind = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}[wanted]
            raise UserError(f"--profile {name}: {flag} = {one_line(str(value))}: give {kind}")
    return values


def _read(name: str) -> dict[str, Any]:
    path = Path(name) if name.endswith(".toml") or "/" in name else profile_folder() / f"{name}.toml"
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"--profile {name}: {path} is too long to be a profile")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        near = get_close_matches(name, profile_names(), n=1)
        hint = f'did you mean "{near[0]}"?' if near else "--profile help lists those that there are"
        raise UserError(f"--profile {name}: cannot read {path}: {error.strerror}; {hint}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--profile {name}: {path} is not valid TOML: {one_line(str(error))}") from None
