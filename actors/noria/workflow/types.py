"""Declared types: adapters, checks with readable errors, JSON schemas."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from noria.contract.problems import invalid
from noria.contract.values import as_dict, dumps
from noria.errors import DefinitionError, InvalidInput


class Declared:
    """A declared type of a value; `Any` and a missing one accept everything as it is."""

    __slots__ = ("adapter", "type")

    def __init__(self, type: Any, where: str) -> None:
        self.type = type
        try:
            self.adapter: TypeAdapter[Any] | None = None if type in (Any, None) else TypeAdapter(type)
        except Exception as error:
            raise DefinitionError(f"{where}: {type!r} is no type that pydantic can validate: {error}") from error

    def __bool__(self) -> bool:
        return self.adapter is not None

    def parse(self, what: str, value: Any) -> Any:
        """JSON data as the declared type. Raises InvalidInput: `what`, then one line per problem."""
        if self.adapter is None:
            return value
        try:
            return self.adapter.validate_python(value)
        except ValidationError as error:
            try:  # bytes, tuples and the like are stricter about Python values than about JSON
                return self.adapter.validate_json(dumps(value))
            except ValidationError:
                raise invalid(what, error) from error
            except Exception as broken:
                raise _broken(what, broken) from broken
        except Exception as broken:
            raise _broken(what, broken) from broken

    def check_changes(self, what: str, values: dict[str, Any], changed: Collection[str]) -> None:
        """Raises InvalidInput where one of the `changed` keys is why `values` do not fit; missing ones may still come."""
        try:
            self.parse(what, values)
        except InvalidInput as error:
            problems = error.errors()
            if not problems or any(not problem["loc"] or problem["loc"][0] in changed for problem in problems):
                raise

    def schema(self, mode: Literal["validation", "serialization"] = "validation") -> dict[str, Any]:
        """JSON Schema of what is taken, or of what is given; `{}` where everything is accepted or the type has no JSON Schema."""
        try:
            return {} if self.adapter is None else self.adapter.json_schema(mode=mode)
        except PydanticInvalidForJsonSchema:  # validates all the same, and a worker must be able to register it
            return {}


def _broken(what: str, error: Exception) -> InvalidInput:
    """A validator of the user's that raised what pydantic does not take for an answer."""
    return InvalidInput(f"{what}: \n- .: its validator raised {type(error).__name__}: {error}")


def is_emptied(before: Any, after: Any) -> bool:
    """A schema without fields would wipe the data: such a result is no result."""
    return after == {} and bool(as_dict(before))
