"""Follow every link and picture of a built site that stays inside; exit 1 and say which lead nowhere.

python scripts/site_links.py site
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, and the names in it that can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if value and key in ("href", "src"):
                self.links.append(value)
            elif value and key in ("id", "name"):
                self.names.add(value)


def broken(site: Path) -> list[str]:
    """Every link within the site that leads nowhere, with its page."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":  # which is shown below any address
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            if target.is_dir():
                target /= "index.html"
            there = target.exists()
            named = target not in pages or parts.fragment in ("", "__top") or parts.fragment in pages[target].names
            if not there or not named:
                found.append(f"{path.relative_to(site)}: {link}")
    return found


def main(site: Path) -> None:
    lost = broken(site.resolve())
    print("\n".join([f"leads nowhere: {line}" for line in lost]) or f"{site}: every link leads somewhere")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
