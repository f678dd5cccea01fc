"""Create instances of pydantic models without validation, for the thousands of small objects of a stream."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)


class Prepared(Generic[Model]):
    """Creates copies of an example with other values, in a third of the constructor's time.

    Copies start with the example's state, which the model's constructor and validators set. They are restored like a
    pickle, with `__setstate__`. New values are not validated. Mutable values of the example are shared.
    """

    def __init__(self, example: Model) -> None:
        state = example.__getstate__()
        self._kind = type(example)
        self._fields: dict[str, Any] = state["__dict__"]
        self._set: set[str] = state["__pydantic_fields_set__"]
        self._extra: dict[str, Any] | None = state.get("__pydantic_extra__")
        self._private: dict[str, Any] | None = state.get("__pydantic_private__")

    def new(self, **values: Any) -> Model:
        """Return a copy of the example with the given values."""
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
