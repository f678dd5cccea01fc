"""Assemble the pages of the site: python -m docs.assemble, run in the root of the repository.

Pages are Markdown of this folder, documents of the repository as they are, notebooks as they were saved, and the
reference, built from the docstrings. Text that already exists elsewhere is included instead of copied:

* `<!-- include README.md#LangChain -->` is the text below that heading. Without a heading, it is the text between the
  title and the first heading.
* `<!-- errors -->` is the table of errors, from their docstrings.

Writes `build/docs` and `build/mkdocs.yml`, which is this folder's configuration with the list of pages. It needs only
the standard library, so the result works with any Markdown site generator.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parent.parent

SECTIONS = {
    "Home": ["docs/index.md"],
    "Getting started": [f"docs/start/{name}.md" for name in ("langchain", "llamaindex", "*")],
    "Guides": [
        *[f"docs/guides/{name}.md" for name in ("reasoning", "tools", "structured-output", "web-search")],
        *[f"docs/guides/{name}.md" for name in ("images-and-files", "retrieval", "async", "production", "errors")],
        *[f"docs/guides/{name}.md" for name in ("costs", "token-usage", "testing", "*")],
    ],
    "Cookbook": ["cookbook/README.md", "cookbook/*.ipynb"],
    "Features": ["docs/features.md"],
    "Benchmarks": ["benchmarks/README.md", "benchmarks/FAULTS.md"],
    "What is verified": ["docs/verified.md", "tests/cassettes/README.md", "tests/consumers/README.md"],
    "More": ["docs/*.md", "CHANGELOG.md", "CONTRIBUTING.md"],
}
"""The sections of the navigation, in order, as file patterns. Patterns without a match are skipped."""

ELSEWHERE = {"README.md": "index.md", "tests/README.md": "guides/testing.md"}
"""Files that are included in another page, so they have no page of their own."""

REFERENCE = [
    "langchain_empiriolabs",
    "langchain_empiriolabs.errors",
    "llamaindex_empiriolabs",
    *[f"empiriolabs_core.{name}" for name in ("settings", "connection", "vectors", "costs", "errors")],
    *[f"empiriolabs_core.{name}" for name in ("catalog.cards", "catalog.live", "sandbox", "sandbox.faults")],
    *[f"empiriolabs_core.{name}" for name in ("gateway", "replies", "tool_calls", "citations")],
]
"""The modules whose public names are documented."""

_FIELDS = """\
What the chat models take as arguments are the fields of [`Settings`](empiriolabs_core.settings.md): those of
[requests](empiriolabs_core.settings.md#empiriolabs_core.settings.RequestFields) and those of the
[connection](empiriolabs_core.connection.md#empiriolabs_core.connection.ConnectionFields). Embeddings and rerank have
their own [fields](empiriolabs_core.vectors.md).

"""
FIELDS = dict.fromkeys(("langchain_empiriolabs", "llamaindex_empiriolabs"), _FIELDS)
"""Introductions of reference pages whose members do not document the constructor arguments."""


def page_of(source: str) -> str:
    """Return the path of a file's page: `benchmarks/README.md` becomes `benchmarks/index.md`."""
    path = PurePosixPath(source.removeprefix("docs/"))
    name = "index" if path.stem == "README" else path.stem.lower() if path.stem.isupper() else path.stem
    return str(path.with_name(f"{name}.md"))


def sections(root: Path = ROOT) -> dict[str, list[str]]:
    """Return the files of each section. The first matching pattern decides the section of a file."""
    seen: set[str] = set()
    found: dict[str, list[str]] = {}
    for title, patterns in SECTIONS.items():
        for pattern in patterns:
            for path in sorted(root.glob(pattern)):
                source = path.relative_to(root).as_posix()
                if source not in seen:
                    seen.add(source)
                    found.setdefault(title, []).append(source)
    return found


def section_of(text: str, heading: str) -> str:
    """Return the text below a heading, or, without a heading, between the title and the first heading.

    Raises:
        LookupError: if the text has no such heading.
    """
    parts = [""]
    for line, kind in lines(text):
        if kind == "text" and re.match("#+ ", line):
            parts += [line.strip(), ""]
        else:
            parts[-1] += line
    titles = [part.lstrip("# ") for part in parts[1::2]]
    if not heading:
        return parts[2].strip()
    if heading not in titles:
        raise LookupError(f"The heading must be one of {', '.join(titles)}, got {heading!r}.")
    return parts[2 * titles.index(heading) + 2].strip()


def lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield each line of a Markdown text and its kind: `"text"`, or `"open"`, `"code"` or `"close"` of a fence."""
    fence = ""
    for line in text.splitlines(keepends=True):
        mark = re.match(r" {0,3}(`{3,}|~{3,})(.*)", line)
        if mark and not fence:
            fence = mark[1]
            yield line, "open"
        elif mark and mark[1].startswith(fence) and not mark[2].strip():
            fence = ""
            yield line, "close"
        else:
            yield line, "code" if fence else "text"


def code_blocks(text: str) -> list[str]:
    """Return the content of each fenced code block of a Markdown text."""
    blocks: list[str] = []
    for line, kind in lines(text):
        if kind == "open":
            blocks.append("")
        elif kind == "code":
            blocks[-1] += line
    return blocks


_LINK = re.compile(r"(?P<mark>!?)\[(?P<label>[^\]\n]+)\]\((?!\w+:)(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def relinked(text: str, source: str, page: str, pages: dict[str, str], root: Path = ROOT) -> tuple[str, list[str]]:
    """Return the text of a file with links to the pages of other files, and the images that it shows.

    A link to a file of the repository without a page becomes plain text. A broken link is kept, so that the link check
    finds it.
    """
    images = []

    def link(match: re.Match[str]) -> str:
        label, anchor = match["label"], match["anchor"] or ""
        path = os.path.normpath(os.path.join(os.path.dirname(source), match["target"]))
        target = pages.get(path)
        if match["mark"] and (root / path).is_file():
            images.append(path)
            target = path.removeprefix("docs/")
        if target is not None:
            return f"{match['mark']}[{label}]({os.path.relpath(target, os.path.dirname(page) or '.')}{anchor})"
        return label if (root / path).exists() else match[0]

    return _LINK.sub(link, text), images


def included(text: str, source: str, page: str, pages: dict[str, str]) -> tuple[str, list[str]]:
    """Return a page with its includes resolved, and the images that it shows."""
    text, images = relinked(text, source, page, pages)

    def include(match: re.Match[str]) -> str:
        path, _, heading = match[1].partition("#")
        found, more = relinked(section_of((ROOT / path).read_text(encoding="utf-8"), heading), path, page, pages)
        images.extend(more)
        return found

    text = re.sub(r"<!-- include (.*?) -->", include, text)
    return re.sub(r"<!-- errors -->", lambda _: error_table(), text), images


def notebook(text: str, stem: str, images: Path) -> str:
    """Return a notebook as Markdown: its cells and their saved output. Nothing is executed."""
    lines = []
    for number, cell in enumerate(json.loads(text)["cells"]):
        said = "".join(cell["source"])
        if cell["cell_type"] != "code":
            lines.append(said)
            continue
        lines.append(f"```python\n{said}\n```")
        for place, output in enumerate(cell["outputs"]):
            lines += _shown(output, f"{stem}-{number}-{place}.png", images)
    return "\n\n".join(lines) + "\n"


def _shown(output: dict[str, Any], name: str, images: Path) -> Iterator[str]:
    data = output.get("data", {})
    if "image/png" in data:
        (images / name).write_bytes(base64.b64decode("".join(data["image/png"])))
        yield f"![What the cell shows]({name})"
    elif "text/html" in data:
        yield "".join(data["text/html"])
    elif "text/markdown" in data:
        yield "".join(data["text/markdown"])
    else:
        printed = "".join(output.get("text") or data.get("text/plain") or output.get("traceback") or "")
        plain = re.sub(r"\x1b\[[\d;]*m", "", printed).rstrip()
        yield f"````text\n{plain}\n````"


def classes(path: str) -> dict[str, tuple[str, str]]:
    """Return the public classes of a module, each with its first base class and its docstring."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    return {node.name: (ast.unparse(node.bases[0]), ast.get_docstring(node) or "") for node in nodes if node.bases}


def error_table() -> str:
    """Return the table of errors: the class in each framework, its cause, whether to retry, and the fix."""
    core, ours = classes("empiriolabs_core/errors.py"), classes("langchain_empiriolabs/errors.py")
    rows = {name: (base.removeprefix("core."), text) for name, (base, text) in ours.items()}
    both = {name: (name, text) for name, (_, text) in core.items() if name not in {base for base, _ in rows.values()}}
    theirs = classes("llamaindex_empiriolabs/messages.py")
    both |= {"invalid_tool_calls": ("InvalidToolArgumentsError", theirs["InvalidToolArgumentsError"][1])}
    lines = ["| error | when | retry | what to do |", "|---|---|---|---|"]
    for name, (base, text) in {**both, **rows}.items():
        if name != "EmpirioLabsError" and base.endswith("Error"):
            when, *todo = text.split("\n\n")
            todo = todo or core[base][1].split("\n\n")[1:]
            retry = "yes" if "Worth a retry." in when else "no"
            raised = f"`{name}`" if name == base else f"`{name}`<br>in LlamaIndex `{base}`"
            cells = (raised, when.replace("Worth a retry.", ""), retry, todo[0])
            lines.append(f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |")
    return "\n".join(lines)


def assemble(build: Path) -> None:
    """Write the pages and the configuration of the site."""
    shutil.rmtree(build, ignore_errors=True)
    found = sections()
    own = {source: page_of(source) for sources in found.values() for source in sources}
    pages = {**ELSEWHERE, **own}
    for source, page in own.items():
        target = build / "docs" / page
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / source).read_text(encoding="utf-8")
        if source.endswith(".ipynb"):
            text = notebook(text, target.stem, target.parent)
        text, images = included(text, source, page, pages)
        if source.endswith(".ipynb"):
            text = f"---\nhide: [toc]\n---\n\n{text}"  # Code and plots need the width.
        target.write_text(text, encoding="utf-8")
        for image in images:
            copy = build / "docs" / image.removeprefix("docs/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / image, copy)
    nav: list[Any] = []
    for title, sources in found.items():
        inside = [pages[source] for source in sources]
        nav.append({title: inside[0] if len(inside) == 1 else inside})
    (build / "docs" / "reference").mkdir()
    for module in REFERENCE:
        (build / f"docs/reference/{module}.md").write_text(
            f"# {module}\n\n{FIELDS.get(module, '')}::: {module}\n", encoding="utf-8"
        )
    nav.insert(-1, {"Reference": [f"reference/{module}.md" for module in REFERENCE]})
    config = (ROOT / "docs/mkdocs.yml").read_text(encoding="utf-8")
    shutil.copy(ROOT / "docs/extra.css", build / "docs")
    (build / "mkdocs.yml").write_text(f"{config}\nnav: {json.dumps(nav)}\n", encoding="utf-8")


if __name__ == "__main__":
    assemble(ROOT / "build")
