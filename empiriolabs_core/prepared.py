"""Instances of pydantic models without validation, for the thousands of small objects of a stream."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)


class Prepared(Generic[Model]):
    """Creates instances like an example, with other values, in a third of the time of the constructor.

    The example shows the state that the model's constructor and validators leave. It is restored as unpickling does it,
    through `__setstate__`. Values are not validated, and a mutable value that is not given is shared.
    """

    def __init__(self, example: Model) -> None:
        state = example.__getstate__()
        self._kind = type(example)
        self._fields: dict[str, Any] = state["__dict__"]
        self._set: set[str] = state["__pydantic_fields_set__"]
        self._extra: dict[str, Any] | None = state.get("__pydantic_extra__")
        self._private: dict[str, Any] | None = state.get("__pydantic_private__")

    def new(self, **values: Any) -> Model:
        """Return an instance with the values of the example, except for those that are given."""
        instance = self._kind.__new__(self._kind)
        instance.__setstate__(
            {
                "__dict__": {**self._fields, **values},
                "__pydantic_fields_set__": self._set.copy(),
                "__pydantic_extra__": None if self._extra is None else self._extra.copy(),
                "__pydantic_private__": None if self._private is None else self._private.copy(),
            }
        )
        return instance
