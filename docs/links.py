"""Find broken links and files fetched from other sites: python -m docs.links SITE."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FETCHED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}


class Page(HTMLParser):
    """The anchors, links and fetched files of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record the anchors, links and files of a tag."""
        named = dict(attrs)
        self.anchors.update(value for value in (named.get("id"), named.get("name")) if value)
        if tag == "a" and named.get("href"):
            self.links.append(named["href"] or "")
        elif tag in _FETCHED and named.get(_FETCHED[tag]):
            self.fetched.append(named[_FETCHED[tag]] or "")


def broken(site: Path) -> list[str]:
    """Return a message for each broken link, and for each file that is fetched from another site."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site.resolve())}: {link} {said}"
        for path, page in pages.items()
        for link, said in (
            *((link, _wrong(link, path, pages, site)) for link in page.links),
            *((link, _wrong(link, path, pages, site) or _elsewhere(link)) for link in page.fetched),
        )
        if said
    ]


def _wrong(link: str, path: Path, pages: dict[Path, Page], site: Path) -> str:
    """Return the problem with a link, or an empty text. Links to other sites are not checked."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return ""
    place = unquote(parts.path)
    target = (site / place.lstrip("/") if place.startswith("/") else path.parent / place).resolve()
    target = path if not place else target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return "points to a missing file."
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return "points to a missing anchor."
    return ""


def _elsewhere(link: str) -> str:
    parts = urlsplit(link)
    return "is fetched from another site." if parts.netloc or parts.scheme not in ("", "data") else ""


if __name__ == "__main__":
    found = broken(Path(sys.argv[1]))
    if found:
        sys.exit("\n".join([*found, f"{len(found)} links are broken."]))
    print(f"No link within {sys.argv[1]} is broken.")
