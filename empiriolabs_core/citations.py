"""Sources of an answer: the lists that upstreams send, and the Sources footer of a web search."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from empiriolabs_core.errors import JSON


class Citation(NamedTuple):
    """A source that an answer names.

    Attributes:
        url: where it is.
        title: its title, if there is one.
        cited_text: the text that is cited, if it came.
        start_index: where the citation starts in the answer's text, in characters, where the gateway gave it.
        end_index: where it ends.
    """

    url: str
    title: str | None = None
    cited_text: str | None = None
    start_index: int | None = None
    end_index: int | None = None


SOURCE_KEYS = frozenset({"annotations", "citations", "search_results"})
"""Where upstreams put sources. None of them is documented for the gateway's chat completions."""

_FOOTER = re.compile(
    r"\n[^\S\n]*(?:#+\s*|\*\*|__)?(?:Sources|References)(?:\*\*|__)?:?(?:\*\*|__)?[ \t]*\n(?P<list>.*)\Z", re.DOTALL
)
# A URL is never read twice, nor a title: each match goes on to the end of what it has read, closed or not.
_LINK = re.compile(
    r"\[(?P<title>[^\[\]\n]*)\]\((?P<link>https?://[^\s)]+)(?P<closed>\))?|(?P<bare>https?://[^\s<>)\]]+)"
)
_NO_PART_OF_A_URL = re.compile(r"[<>\]]")


def note_sources(found: JSON, part: Mapping[str, Any]) -> None:
    """Add the sources of a reply, message, chunk or delta to those found before."""
    for key in SOURCE_KEYS & part.keys():
        if isinstance(part[key], list):
            found.setdefault(key, []).extend(part[key])


def read_citations(found: Mapping[str, Any], text: str, *, searched: bool) -> list[Citation]:
    """Return the sources of an answer, each once: those that the gateway lists, or those of a Sources footer.

    The form of the footer is not documented: a heading "Sources" and at least one URL after it, to the end of
    the text, are taken for one, if the web may have been searched.
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
    """Return whether a source can be shown as a link. A `javascript:` or `data:` URL would be run by a browser."""
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
    # Whatever shape a source has, it must not cost the answer that it belongs to.
    return Citation(
        url,
        title if isinstance(title, str) else None,
        cited if isinstance(cited, str) else None,
        start if isinstance(start, int) else None,
        end if isinstance(end, int) else None,
    )
