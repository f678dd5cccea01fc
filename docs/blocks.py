"""Check that the site shows every code block of the documents completely: python -m docs.blocks SITE."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

from docs import assemble


class CodeText(HTMLParser):
    """The text of the `code` elements of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self._depth = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Enter a `code` element."""
        self._depth += tag == "code"

    def handle_endtag(self, tag: str) -> None:
        """Leave a `code` element."""
        self._depth -= tag == "code"

    def handle_data(self, data: str) -> None:
        """Keep text within `code`."""
        if self._depth:
            self.text += data


def incomplete(site: Path, root: Path = assemble.ROOT) -> list[str]:
    """Return a message for each code block of a Markdown source that no page of the site shows completely."""
    shown = [_bare(CodeText(page.read_text(encoding="utf-8")).text) for page in site.rglob("*.html")]
    own = [source for sources in assemble.sections(root).values() for source in sources]
    return [
        f"No page shows this code block of {source} completely:\n{block}"
        for source in [*own, *assemble.ELSEWHERE]
        if source.endswith(".md") and (root / source).is_file()
        for block in assemble.code_blocks((root / source).read_text(encoding="utf-8"))
        if not any(_bare(block) in page for page in shown)
    ]


def _bare(text: str) -> str:
    """Return a text without whitespace, which HTML may change."""
    return "".join(text.split())


if __name__ == "__main__":
    told = incomplete(Path(sys.argv[1]))
    if told:
        sys.exit("\n".join(told))
    print(f"Every code block is complete in {sys.argv[1]}.")
