"""Packages that only some verbs need: asked for by name, missed in one line."""

from importlib import metadata

from restormer_cli.errors import UserError


def require(what: str, extra: str, *packages: str) -> None:
    """Raises UserError with the install command where a package is missing or, given `name>=1.2.3`, too old."""
    for wanted in packages:
        name, _, least = wanted.partition(">=")
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise UserError(f"{what}: needs the package {name}: pip install 'restormer-cli[{extra}]'") from None
        if least and _numbers(found) < _numbers(least):
            cure = f"pip install --upgrade 'restormer-cli[{extra}]'"
            raise UserError(f"{what}: needs {name} {least} or newer, this is {found}: {cure}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
