"""Data against what is declared of it, as JSON Schema for who has nothing else; problems are told in pydantic's words."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from datetime import date, datetime, time, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from noria.contract.values import as_dict
from noria.errors import InvalidInput

LENIENT = {
    "integer": int, "number": float, "boolean": bool, "date-time": datetime, "date": date, "time": time, "duration": timedelta, "uuid": UUID,
}  # fmt: skip


def invalid(what: str, error: ValidationError) -> InvalidInput:
    """A readable InvalidInput: the field of each problem and pydantic's words."""
    lines = [f"- {'.'.join(str(p) for p in e['loc']) or '.'}: {e['msg']}" for e in error.errors(include_url=False)]
    found = InvalidInput("\n".join([f"{what}: ", *lines]))
    found.__cause__ = error
    return found


def validation_error(problems: list[dict[str, Any]]) -> ValidationError:
    """Of problems as `ValidationError.errors()` gives them: type, msg, loc, input."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError(p["type"], "{said}", {"said": p["msg"]}), loc=tuple(p.get("loc", ())), input=p.get("input")
        )
        for p in problems
    ]
    return ValidationError.from_exception_data("input", details)


def check_schema(what: str, schema: dict[str, Any], data: Any, changed: Collection[str] | None = None) -> None:
    """Raises InvalidInput for JSON data that does not fit, `what` and the fields in its words. Scalars are taken as
    leniently as pydantic takes them: a number or a time may come as text. With `changed` only where one of these keys is why."""
    if not schema:
        return
    problems = {(str(p["loc"]), p["msg"]): p for error in _validator()(schema).iter_errors(data) for p in _problems(error)}
    if any(changed is None or not p["loc"] or p["loc"][0] in changed for p in problems.values()):
        raise invalid(what, validation_error(list(problems.values())))


def _problems(error: Any) -> Iterator[dict[str, Any]]:
    error = _jsonschema().exceptions.best_match([error])  # of alternatives the one that fits best
    loc, given = [*error.absolute_path], as_dict(error.instance)
    if error.validator == "required" and given is not None:
        for name in error.validator_value:
            if name not in given:
                yield {"type": "missing", "loc": [*loc, name], "msg": "Field required", "input": given}
    else:
        yield {"type": f"json_schema_{error.validator}", "loc": loc, "msg": error.message, "input": error.instance}


def _jsonschema() -> Any:
    return importlib.import_module("jsonschema")  # 0.1 s: only for who starts or resumes what he knows by its id


@cache
def _validator() -> Any:
    draft = _jsonschema().Draft202012Validator
    strictly = draft.VALIDATORS["type"]

    def of_type(validator: Any, types: str | list[str], data: Any, schema: dict[str, Any]) -> Iterator[Any]:
        names = [types] if isinstance(types, str) else types
        if not any(_takes(name, data) for name in (schema.get("format"), *names)):
            yield from strictly(validator, types, data, schema)

    def of_format(validator: Any, name: str, data: Any, schema: dict[str, Any]) -> Iterator[Any]:
        if name in LENIENT and not _takes(name, data):
            yield _jsonschema().ValidationError(f"{data!r} is no {name}")

    return _jsonschema().validators.extend(draft, {"type": of_type, "format": of_format})


def _takes(name: str | None, data: Any) -> bool:
    if name not in LENIENT:
        return False
    try:
        _adapter(name).validate_python(data)
    except ValidationError:
        return False
    return True


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(LENIENT[name])
