"""HTML pages from plain values, each one file that needs no network.

    text = render("restore.html", title="Restored pictures", …)   # templates/restore.html, made of templates/parts.html

`templates/parts.html` has the macros that pages share: numbers, facts, table, figure, slider and viewer. Colours,
light and dark, are in `page.css`; what moves is in `page.js`. Both are written into the page, which carries a
content policy: no network, and no script but that one, whatever the name of a file says.
"""

import base64
import hashlib
import time
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from restormer_cli import __version__
from restormer_cli.errors import UserError
from restormer_cli.files import check_folder


def check_page(path: Path) -> None:
    """Raises UserError for a path that cannot become a page, or a file there that is no page of ours."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--report {path}: is a web page: give it a name that ends in .html")
    if path.is_dir():
        raise UserError(f"--report {path}: is a folder; name a file in it, such as {path / 'report.html'}")
    if path.exists() and not _is_page(path):
        raise UserError(f"--report {path}: already there, and not a page by restormer: give it another name")
    check_folder(path.parent)


def _is_page(path: Path) -> bool:
    with path.open("rb") as stream:
        return b'name="generator" content="restormer' in stream.read(2000)


def render(template: str, *, title: str, **values: Any) -> str:
    """A page as text. Every value is escaped; markup has to come as `Markup`, as `drawing` makes it.

    template: a file of report/templates that extends base.html. `made`, the time below the page, can be given.
    """
    environment = _environment()
    loader = environment.loader
    assert loader is not None
    script, style = (loader.get_source(environment, name)[0] for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shared = {
        "version": __version__,
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "script": Markup(script),
        "style": Markup(style),
        "script_hash": f"sha256-{digest}",
    }
    text = environment.get_template(template).render(**shared | values, title=title)
    return text.encode("utf-8", "replace").decode()  # names of files may hold halves of characters


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("restormer_cli", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as an address inside the page; `kind` is a media type such as "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
