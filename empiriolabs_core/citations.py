"""Read an answer's sources, from the lists that upstreams send or from the Sources footer of a web search."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from empiriolabs_core.errors import JSON


class Citation(NamedTuple):
    """A source that an answer cites.

    Attributes:
        url: URL of the source.
        title: title of the source, if reported.
        cited_text: the cited text, if reported.
        start_index: start of the citation in the answer's text, in characters, if reported.
        end_index: end of the citation, in characters, if reported.
    """

    url: str
    title: str | None = None
    cited_text: str | None = None
    start_index: int | None = None
    end_index: int | None = None


SOURCE_KEYS = frozenset({"annotations", "citations", "search_results"})
"""Keys under which upstreams send sources. They are undocumented for the gateway's chat completions."""

_FOOTER = re.compile(
    r"\n[^\S\n]*(?:#+\s*|\*\*|__)?(?:Sources|References)(?:\*\*|__)?:?(?:\*\*|__)?[ \t]*\n(?P<list>.*)\Z", re.DOTALL
)
# No URL or title is read twice: a match consumes all the text it has read, even if the link is not closed.
_LINK = re.compile(
    r"\[(?P<title>[^\[\]\n]*)\]\((?P<link>https?://[^\s)]+)(?P<closed>\))?|(?P<bare>https?://[^\s<>)\]]+)"
)
_NO_PART_OF_A_URL = re.compile(r"[<>\]]")


def note_sources(found: JSON, part: Mapping[str, Any]) -> None:
    """Add the sources of a reply, message, chunk or delta to the sources found before."""
    for key in SOURCE_KEYS & part.keys():
        if isinstance(part[key], list):
            found.setdefault(key, []).extend(part[key])


def read_citations(found: Mapping[str, Any], text: str, *, searched: bool) -> list[Citation]:
    """Return the sources of an answer without duplicates: the list of the gateway, or else the Sources footer.

    The format of the footer is undocumented. If the web may have been searched, a heading "Sources" with at least one
    URL between it and the end of the text is parsed as a footer.
    """
    listed = [
        _citation(entry) for key in ("annotations", "citations", "search_results") for entry in found.get(key) or ()
    ]
    if searched and not any(listed):
        footer = _FOOTER.search(text)
        links = _LINK.finditer(footer["list"]) if footer else ()
        listed = [_linked(match) for match in links]
    by_url: dict[str, Citation] = {}
    for citation in listed:
        if citation is not None:
            by_url.setdefault(citation.url, citation)
    return list(by_url.values())


def _linked(match: re.Match[str]) -> Citation:
    link = match["link"] if match["closed"] else None
    url = link or _NO_PART_OF_A_URL.split(match["link"] or match["bare"], maxsplit=1)[0].rstrip(".,;")
    return Citation(url, match["title"] or None)


def _is_link(url: str) -> bool:
    """Return whether a URL is safe to show as a link. A browser would run a `javascript:` or `data:` URL."""
    return url[:8].lower().startswith(("http://", "https://"))


def _citation(entry: Any) -> Citation | None:
    if isinstance(entry, str):
        return Citation(entry) if _is_link(entry) else None
    if not isinstance(entry, Mapping):
        return None
    inner = entry.get("url_citation", entry)
    url = inner.get("url") if isinstance(inner, Mapping) else None
    if not isinstance(url, str) or not _is_link(url):
        return None
    cited = inner.get("cited_text") or inner.get("snippet") or inner.get("content")
    title, start, end = (inner.get(name) for name in ("title", "start_index", "end_index"))
    # A malformed source must not make the whole answer fail.
    return Citation(
        url,
        title if isinstance(title, str) else None,
        cited if isinstance(cited, str) else None,
        start if isinstance(start, int) else None,
        end if isinstance(end, int) else None,
    )
