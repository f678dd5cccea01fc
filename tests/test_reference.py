"""Every public name is documented: what it is, its range, unit and default, and the errors that it raises.

Docstrings below fields are read from the source, since Python does not keep them.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

from docs.assemble import REFERENCE
from langchain_empiriolabs import errors as langchain_errors

ROOT = Path(__file__).parent.parent
UNITS = {"timeout": "second", "tokens": "token", "budget": "token", "window": "token", "seconds": "second"}
"""Words in the name of a number, and the unit that its docstring must name."""


class Name(NamedTuple):
    """A public name: its location, its docstring, and the docstring of its class."""

    path: str
    node: ast.AST
    text: str
    owner: str = ""


def _file(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def _exported(module: str) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of each import that a package lists in `__all__`."""
    public = getattr(importlib.import_module(module), "__all__", ()) if _file(module).name == "__init__.py" else ()
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom):
            yield from (
                (str(node.module), alias.name) for alias in node.names if alias.name in public and alias.name[0] != "_"
            )


def _targets(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.AnnAssign):
        return [node.target.id] if isinstance(node.target, ast.Name) else []
    if not isinstance(node, ast.Assign):
        return []
    return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def _names(body: list[ast.stmt], where: str, owner: str = "") -> Iterator[Name]:
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_"):
                text = ast.get_docstring(node) or ""
                yield Name(f"{where}.{node.name}", node, text, owner)
                if isinstance(node, ast.ClassDef):
                    yield from _names(node.body, f"{where}.{node.name}", text or "-")
            continue
        text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        for name in _targets(node):
            # Type aliases are documented where a name has the type.
            if not name.startswith("_") and name not in ("model_config", "JSON") and (owner or name.isupper()):
                yield Name(f"{where}.{name}", node, text if isinstance(text, str) else "", owner)


def _public() -> Iterator[Name]:
    for module in REFERENCE:
        yield from _names(_tree(module).body, module)
        for source, name in _exported(module):
            found = [node for node in _tree(source).body if getattr(node, "name", None) == name]
            yield from _names(found, source)


PUBLIC = {name.path: name for name in _public()}


def test_the_public_names_are_found() -> None:
    assert len(PUBLIC) > 200
    for path in (
        "langchain_empiriolabs.chat_models.ChatEmpirioLabs.with_structured_output",
        "llamaindex_empiriolabs.llms.EmpirioLabs.context_window",
        "empiriolabs_core.settings.RequestFields.top_p",
        "empiriolabs_core.catalog.cards.READ_ON",
        "empiriolabs_core.sandbox.stand_in.stand_in",
    ):
        assert path in PUBLIC


def test_every_public_name_is_documented() -> None:
    """Return whether the docstring of a class documents a field, as `name: ...` or in backticks."""
    missing = [
        name.path
        for name in PUBLIC.values()
        if not name.text and not re.search(rf"`{name.path.split('.')[-1]}`|\b{name.path.split('.')[-1]}:", name.owner)
    ]
    assert missing == []


def test_every_error_that_is_raised_is_documented() -> None:
    missing = []
    for name in PUBLIC.values():
        if isinstance(name.node, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(name.node):
                raised = node.exc.func if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) else None
                kind = ast.unparse(raised) if raised is not None else ""
                if kind.split(".")[-1][:1].isupper() and kind not in name.text + name.owner:
                    missing.append(f"{name.path} raises {kind}")
    assert missing == []


def _fields() -> Iterator[Any]:
    for name in PUBLIC.values():
        module, _, class_name = name.path.rpartition(".")
        if isinstance(name.node, ast.ClassDef):
            found = getattr(importlib.import_module(module), class_name)
            if issubclass(found, BaseModel):
                for field, info in found.model_fields.items():
                    if f"{name.path}.{field}" in PUBLIC:
                        yield pytest.param(PUBLIC[f"{name.path}.{field}"].text, field, info, id=f"{class_name}.{field}")


def _constraints(annotation: Any, metadata: Any) -> Iterator[Any]:
    """Yield the limits and options of a type, including nested ones."""
    for limit in metadata:
        yield from getattr(limit, "metadata", ()) or [limit]
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for inner in get_args(annotation):
            yield from _constraints(inner, getattr(inner, "__metadata__", ()))


@pytest.mark.parametrize(("text", "field", "info"), list(_fields()))
def test_a_field_names_its_range_its_unit_and_its_default(text: str, field: str, info: Any) -> None:
    needed = []
    for limit in _constraints(info.annotation, info.metadata):
        value = next((getattr(limit, side) for side in ("ge", "gt", "le", "lt") if hasattr(limit, side)), None)
        if isinstance(limit, Ge | Gt | Le | Lt):
            needed.append(f"{value:,}")
        elif isinstance(limit, str | int):
            needed.append(str(limit))
    default = info.get_default()
    if default not in (None, ""):
        needed += ["default", f"{default:g}" if isinstance(default, float) else str(default)]
    needed += [unit for word, unit in UNITS.items() if word in field]
    # "1" is not named by "10" or by "0.1".
    assert [w for w in needed if not re.search(rf"(?i)(?<![\w.,]){re.escape(w)}(?![,.]?\d)", text)] == []


def test_errors_worth_a_retry_are_those_that_langchain_would_repeat() -> None:
    ours = [kind for name, kind in vars(langchain_errors).items() if name.startswith("EmpirioLabs")]
    assert len(ours) >= 18
    assert [kind for kind in ours if kind.is_retryable is not ("Worth a retry." in kind.__doc__)] == []
