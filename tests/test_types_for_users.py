"""The public types: mypy and pyright accept correct applications and report mistakes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel

import langchain_empiriolabs
import llamaindex_empiriolabs
from empiriolabs_core.arguments import field_names
from empiriolabs_core.settings import Settings
from empiriolabs_core.signatures import EmbeddingArguments, RerankArguments, SettingsArguments
from empiriolabs_core.vectors import EmbeddingFields, RerankFields
from langchain_empiriolabs.signatures import ChatArguments
from llamaindex_empiriolabs.signatures import LlamaIndexEmbeddingArguments, LlamaIndexRerankArguments, LLMArguments
from tests.types_for_users import with_langchain, with_llamaindex

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "tests" / "types_for_users"
MARKED = {
    (path.name, number)
    for path in PROJECT.glob("*.py")
    for number, line in enumerate(path.read_text().splitlines(), start=1)
    if line.endswith("# wrong")
}


def _checked(module: str, *arguments: str) -> str:
    pytest.importorskip(module, reason=f"{module} is not installed: it belongs to the group lint, which make test has.")
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_mypy_reports_the_mistakes_and_nothing_else() -> None:
    told = _checked("mypy", "--strict", "--config-file=", *sorted(map(str, PROJECT.glob("*.py"))))
    found = re.findall(r"^(\S+?):(\d+): error:", told, flags=re.MULTILINE)
    assert {(Path(path).name, int(line)) for path, line in found} == MARKED, told


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_pyright_reports_the_mistakes_and_nothing_else() -> None:
    told = _checked("basedpyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(PROJECT))
    found = [entry for entry in json.loads(told)["generalDiagnostics"] if entry["severity"] == "error"]
    lines = {(Path(entry["file"]).name, entry["range"]["start"]["line"] + 1) for entry in found}
    assert lines == MARKED, told


@pytest.mark.parametrize("main", [with_langchain.main, with_llamaindex.main])
def test_the_applications_run(main: Callable[[], None]) -> None:
    main()


@pytest.mark.parametrize("module", [with_langchain, with_llamaindex])
async def test_the_applications_run_asynchronously(module: Any, where: dict[str, Any]) -> None:
    await module.async_calls(module.spellings(where["base_url"], where["api_key"])[0])


SIGNATURES: list[tuple[type[BaseModel], type[BaseModel], type, type]] = [
    (langchain_empiriolabs.ChatEmpirioLabs, Settings, ChatArguments, SettingsArguments),
    (llamaindex_empiriolabs.EmpirioLabs, Settings, LLMArguments, SettingsArguments),
    (langchain_empiriolabs.EmpirioLabsEmbeddings, EmbeddingFields, EmbeddingArguments, EmbeddingArguments),
    (llamaindex_empiriolabs.EmpirioLabsEmbedding, EmbeddingFields, LlamaIndexEmbeddingArguments, EmbeddingArguments),
    (langchain_empiriolabs.EmpirioLabsRerank, RerankFields, RerankArguments, RerankArguments),
    (llamaindex_empiriolabs.EmpirioLabsRerank, RerankFields, LlamaIndexRerankArguments, RerankArguments),
]


@pytest.mark.parametrize(("adapter", "core", "signature", "core_signature"), SIGNATURES)
def test_signatures_hold_every_spelling(
    adapter: type[BaseModel], core: type[BaseModel], signature: type, core_signature: type
) -> None:
    assert set(get_type_hints(core_signature)) == set(field_names(core))
    # A framework's older versions may have fewer fields of their own.
    assert set(field_names(adapter)) <= set(get_type_hints(signature))


@pytest.mark.parametrize(
    ("core", "signature"),
    [(Settings, SettingsArguments), (EmbeddingFields, EmbeddingArguments), (RerankFields, RerankArguments)],
)
def test_signatures_have_the_types_of_the_fields(core: type[BaseModel], signature: type) -> None:
    wider = {"api_key", "base_url", "endpoint", "stop", "timeout"}  # What these accept is turned into one type.
    told, kept = get_type_hints(signature), get_type_hints(core)
    fields = field_names(core).items()
    assert {field for name, field in fields if told[name] != kept[field] and field not in wider} == set()
