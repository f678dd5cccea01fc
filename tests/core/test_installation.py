"""Installation next to the vendor's package of the same import name, and the first async call of a process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import empiriolabs_core
from empiriolabs_core.sandbox import Sandbox
from langchain_empiriolabs import EmpirioLabsEmbeddings
from langchain_empiriolabs.embeddings import DEFAULT_API_BASE

ROOT = Path(empiriolabs_core.__file__).parent.parent
PACKAGES = ("empiriolabs_core", "langchain_empiriolabs", "llamaindex_empiriolabs")
REPAIR = "pip uninstall -y langchain-empiriolabs && pip install --force-reinstall --no-deps empiriolabs-adapters"


def _warnings(site: Path) -> str:
    script = f"import sys; sys.path.insert(0, {str(site)!r}); import empiriolabs_core; print(empiriolabs_core.__file__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=site)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    return done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_sound_installation_says_nothing(site: Path) -> None:
    assert _warnings(site) == ""


def test_the_vendors_package_is_installed_too(site: Path) -> None:
    (site / "langchain_empiriolabs-0.1.3.dist-info").mkdir()
    told = _warnings(site)
    assert "langchain-empiriolabs is also installed" in told
    assert REPAIR in told


@pytest.mark.parametrize("name", ["__init__.py", "chat_models.py"])
@pytest.mark.parametrize("removed", [False, True])
def test_files_were_overwritten_or_removed(site: Path, name: str, removed: bool) -> None:
    file = site / "langchain_empiriolabs" / name
    file.unlink()
    if not removed:
        file.write_text('"""LangChain integration for EmpirioLabs."""\n')
    told = _warnings(site)
    assert "were overwritten or removed" in told
    assert REPAIR in told


def test_names_of_the_vendors_embeddings() -> None:
    embeddings = EmpirioLabsEmbeddings(api_key="sk-x")
    assert embeddings.openai_api_base == embeddings.base_url == DEFAULT_API_BASE


FIRST_CALL = """
import asyncio, ssl, sys, threading
{setup}
main, imported, contexts = threading.main_thread(), [], []

def audit(event, arguments):
    if event == "import" and recording and threading.current_thread() is main:
        imported.append(arguments[0])

recording = False
sys.addaudithook(audit)
make = ssl.create_default_context

def create_default_context(*arguments, **named):
    contexts.append(threading.current_thread() is main)
    return make(*arguments, **named)

ssl.create_default_context = create_default_context

async def call():
    global recording
    recording = True
    {call}
    recording = False

asyncio.run(call())
slow = sorted({{name.partition(".")[0] for name in imported}} & {{"anyio", "h11", "httpcore", "httpcore2", "ssl"}})
print(slow, contexts)
"""
LANGCHAIN = "from langchain_empiriolabs import ChatEmpirioLabs; llm = ChatEmpirioLabs()"
LLAMAINDEX = "from llamaindex_empiriolabs import EmpirioLabs; llm = EmpirioLabs()"


@pytest.mark.parametrize(
    ("setup", "call"),
    [
        (LANGCHAIN, "await llm.ainvoke('Hello')"),
        (LANGCHAIN, "[chunk async for chunk in llm.astream('Hello')]"),
        (LLAMAINDEX, "await llm.acomplete('Hello')"),
        (LLAMAINDEX, "[chunk async for chunk in await llm.astream_complete('Hello')]"),
        (LANGCHAIN, "await llm.alist_models()"),
    ],
)
def test_the_first_asynchronous_call_loads_modules_off_the_event_loop(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, setup: str, call: str
) -> None:
    monkeypatch.setenv("EMPIRIOLABS_API_KEY", sandbox.api_key)
    monkeypatch.setenv("EMPIRIOLABS_API_BASE", sandbox.base_url)
    script = FIRST_CALL.format(setup=setup, call=call)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("[] [False]\n", "")
