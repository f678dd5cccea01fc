"""The site of the documents: the assembled pages, and the check of the links."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs import assemble, blocks
from docs.links import broken

ROOT = Path(__file__).parent.parent


def test_a_good_site_has_no_broken_links(tmp_path: Path) -> None:
    (tmp_path / "guides").mkdir()
    (tmp_path / "style.css").touch()
    (tmp_path / "index.html").write_text(
        '<link href="style.css"><h1 id="top">.</h1><a href="#top">.</a> <a href="guides/">.</a>'
        '<a href="guides/index.html#caf%C3%A9">.</a> <a href="https://elsewhere.example/">.</a> <img src="data:,">'
    )
    (tmp_path / "guides/index.html").write_text('<a name="café"></a><a href="..">.</a><a href="/index.html#top">.</a>')
    assert broken(tmp_path) == []


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ('<a href="nothing.html">.</a>', "index.html: nothing.html points to a missing file."),
        ('<a href="../">.</a>', "index.html: ../ points to a missing file."),
        ('<a href="#nothing">.</a>', "index.html: #nothing points to a missing anchor."),
        ('<a href="other.html#nothing">.</a>', "index.html: other.html#nothing points to a missing anchor."),
        ('<img src="nothing.png">', "index.html: nothing.png points to a missing file."),
        (
            '<script src="https://cdn.example/a.js">',
            "index.html: https://cdn.example/a.js is fetched from another site.",
        ),
        ('<link href="//fonts.example/a.css">', "index.html: //fonts.example/a.css is fetched from another site."),
    ],
)
def test_a_broken_link_is_found_and_ends_the_build(tmp_path: Path, html: str, said: str) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(html)
    (site / "other.html").write_text('<p id="here">')
    assert broken(site) == [said]
    done = subprocess.run(
        [sys.executable, "-m", "docs.links", str(site)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"{said}\n1 links are broken.\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("build")
    assemble.assemble(build)
    return build


def test_every_document_and_module_has_its_page(built: Path) -> None:
    nav = json.loads((built / "mkdocs.yml").read_text().rpartition("nav: ")[2])
    inside = [
        page for entry in nav for pages in entry.values() for page in ([pages] if isinstance(pages, str) else pages)
    ]
    assert sorted(inside) == sorted(path.relative_to(built / "docs").as_posix() for path in built.rglob("*.md"))
    documents = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("cookbook/*.ipynb")]
    assert len(inside) == len(set(inside)) >= len(documents) + len(assemble.REFERENCE)
    assert "guides/errors.md" in inside
    assert "(empiriolabs_core.settings.md)" in (built / "docs/reference/langchain_empiriolabs.md").read_text()
    assert "::: empiriolabs_core.settings" in (built / "docs/reference/empiriolabs_core.settings.md").read_text()


def test_what_is_included_stands_in_the_page_and_nothing_of_it_in_the_source(built: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    fields = readme.partition("## Fields\n")[2].partition("\n## ")[0].strip()
    assert fields in (built / "docs/index.md").read_text()
    assert fields not in (ROOT / "docs/index.md").read_text()
    assert [page.name for page in built.rglob("*.md") if re.search("<!-- (include|errors)", page.read_text())] == []


def test_a_section_ends_at_the_next_heading() -> None:
    text = "# Title\n\nFirst.\n\n## One\n\nA.\n\n## Two\n\nB.\n"
    assert assemble.section_of(text, "") == "First."
    assert assemble.section_of(text, "One") == "A."
    with pytest.raises(LookupError, match=r"The heading must be one of .*, got 'Three'"):
        assemble.section_of(text, "Three")


def test_a_comment_in_a_code_block_is_not_a_heading() -> None:
    text = "# Title\n\n## One\n\n````python\n# Two\n```\n# Three\n````\n~~~\n# Four\n~~~\nEnd.\n\n## Two\n\nB.\n"
    assert assemble.section_of(text, "One").endswith("End.")
    assert assemble.section_of(text, "Two") == "B."
    assert assemble.code_blocks(text) == ["# Two\n```\n# Three\n", "# Four\n"]


def test_a_code_block_that_a_page_truncates_is_found(tmp_path: Path) -> None:
    root, site = tmp_path / "root", tmp_path / "site"
    (root / "docs/start").mkdir(parents=True)
    (site / "start").mkdir(parents=True)
    (root / "docs/start/a.md").write_text("```python\nx = 1 < 2\n# more\ny = 2\n```\n")
    page = site / "start/a.html"
    page.write_text("<pre><code><span>x</span> = 1 &lt; 2\n# more\ny = 2</code></pre>")
    assert blocks.incomplete(site, root) == []
    page.write_text("<pre><code>x = 1 &lt; 2</code></pre><p># more y = 2")
    assert len(blocks.incomplete(site, root)) == 1


def test_every_code_block_is_complete_in_the_assembled_pages(built: Path) -> None:
    pages = [page.read_text() for page in built.rglob("*.md")]
    for source in ("README.md", "docs/start/langchain.md", "tests/README.md"):
        wanted = assemble.code_blocks((ROOT / source).read_text())
        assert [block for block in wanted if not any(block in page for page in pages)] == []


def test_links_lead_to_pages(tmp_path: Path) -> None:
    for name in ("a/README.md", "a/code.py", "a/shot.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    text = "[A](README.md#x) [B](code.py) [C](gone.md) [D](https://e.example/) ![E](shot.png) [F](#here)"
    found, images = assemble.relinked(text, "a/b.md", "guides/b.md", {"a/README.md": "a/index.md"}, tmp_path)
    assert found == ("[A](../a/index.md#x) B [C](gone.md) [D](https://e.example/) ![E](../a/shot.png) [F](#here)")
    assert images == ["a/shot.png"]


def test_a_notebook_shows_its_cells_and_what_they_printed(tmp_path: Path) -> None:
    outputs = [
        {"output_type": "stream", "text": ["\x1b[31mred\x1b[0m\n"]},
        {"output_type": "display_data", "data": {"image/png": "aGk=", "text/plain": "<Figure>"}},
        {"output_type": "execute_result", "data": {"text/markdown": ["**bold**"], "text/plain": "x"}},
        {"output_type": "execute_result", "data": {"text/plain": ["4"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": outputs},
    ]
    shown = assemble.notebook(json.dumps({"cells": cells}), "book", tmp_path)
    assert shown.split("\n\n") == [
        "# Title\ntext",
        "```python\nprint(1)\n```",
        "````text\nred\n````",
        "![What the cell shows](book-1-1.png)",
        "**bold**",
        "````text\n4\n````\n",
    ]
    assert (tmp_path / "book-1-1.png").read_bytes() == b"hi"


def test_the_table_of_errors_says_of_each_what_to_do() -> None:
    rows = [line.strip("| ").split(" | ") for line in assemble.error_table().splitlines()[2:]]
    assert len(rows) >= 25
    assert [row for row in rows if len(row) != 4 or not all(row) or row[2] not in ("yes", "no")] == []
    by_name = {re.findall("`(.*?)`", row[0])[0]: row for row in rows}
    assert by_name["EmpirioLabsRateLimitError"][0] == "`EmpirioLabsRateLimitError`<br>in LlamaIndex `RateLimitError`"
    assert by_name["EmpirioLabsRateLimitError"][2] == "yes"
    key = "Set `EMPIRIOLABS_API_KEY`, or pass `api_key`. Create a key at platform.empiriolabs.ai/dashboard/api-keys."
    assert by_name["MissingKeyError"][2:] == ["no", key]
    assert by_name["EmpirioLabsReplyError"][3] == "Check that `base_url` ends with the API's path, such as `/v1`."
