"""Detect whether the vendor's own package is also installed. Both packages use the name `langchain_empiriolabs`.

Installing one package overwrites files of the other, and uninstalling one removes files of both.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

_REPAIR = "pip uninstall -y langchain-empiriolabs && pip install --force-reinstall --no-deps empiriolabs-adapters"


def check_installation() -> None:
    """Warn if another package shares or has damaged our files. The warning contains the command that repairs them."""
    told = _damage(Path(__file__).parent.parent)
    if told:
        warnings.warn(f"{told} To repair it, run: {_REPAIR}", stacklevel=2)


def _damage(site: Path) -> str | None:
    adapter = site / "langchain_empiriolabs"
    if adapter.is_dir() and not all(_is_ours(adapter / name) for name in ("__init__.py", "chat_models.py")):
        return "Files of empiriolabs-adapters in langchain_empiriolabs were overwritten or removed by another package."
    if any(name.startswith("langchain_empiriolabs-") and name.endswith(".dist-info") for name in _names(site)):
        return "langchain-empiriolabs is also installed, and has the same import name as empiriolabs-adapters."
    return None


def _is_ours(file: Path) -> bool:
    try:
        return b"empiriolabs_core" in file.read_bytes()
    except OSError:
        return False


def _names(site: Path) -> list[str]:
    try:
        return os.listdir(site)
    except OSError:
        return []
