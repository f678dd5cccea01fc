"""The distribution: the contents of the wheel, and the message of an installation without an extra."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_the_three_packages_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packages = {"empiriolabs_core", "langchain_empiriolabs", "llamaindex_empiriolabs"}
    assert {name.split("/")[0] for name in names} == {*packages, "empiriolabs_adapters-0.1.0.dist-info"}
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    assert "empiriolabs_core/sandbox/smollm2.jinja" in names


@pytest.mark.parametrize(
    ("package", "missing", "extra"),
    [
        ("langchain_empiriolabs", "langchain_core", "langchain"),
        ("llamaindex_empiriolabs", "llama_index.core", "llamaindex"),
        ("empiriolabs_core.sandbox", "starlette", "sandbox"),
    ],
)
def test_without_the_framework_the_import_names_the_extra(package: str, missing: str, extra: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import {package}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"ImportError: {package}" in done.stderr or "ImportError: The sandbox" in done.stderr
    assert f'pip install "empiriolabs-adapters[{extra}]".' in done.stderr


@pytest.mark.slow
def test_the_adapters_do_not_import_each_other() -> None:
    for package, other in (("langchain_empiriolabs", "llama"), ("llamaindex_empiriolabs", "langchain")):
        code = f"import sys, {package}; print([m for m in sys.modules if m.startswith({other!r})])"
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
