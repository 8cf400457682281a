"""Values that cross a boundary: JSON in and out, plain copies, exceptions as data."""

from __future__ import annotations

import json
from typing import Any, cast

import orjson
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from noria.limits import CAUSE_DEPTH

_OPTIONS = orjson.OPT_NON_STR_KEYS
_SCALARS = (str, bool, float)
loads = orjson.loads


def _default(value: Any) -> Any:
    try:
        return to_jsonable_python(value)
    except Exception:
        return repr(value)


def dumps(value: Any) -> bytes:
    """JSON of anything: what has no JSON form becomes its repr."""
    try:
        return orjson.dumps(value, default=_default, option=_OPTIONS)
    except (TypeError, orjson.JSONEncodeError):  # integers beyond 64 bit, odd keys, lone surrogates
        return json.dumps(to_jsonable_python(value, fallback=repr), ensure_ascii=True).encode()


def plain(value: Any) -> Any:
    """A copy made of JSON data only."""
    if value is None or type(value) in _SCALARS:
        return value
    data = dumps(value)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)


def error_info(error: BaseException, depth: int = 0) -> dict[str, Any]:
    """An exception as data: bare class name, text, public attributes, cause."""
    attributes = {name: _kept(value) for name, value in vars(error).items() if not name.startswith("_")}
    if isinstance(error.__cause__, ValidationError):
        attributes["issues"] = _kept([{k: v for k, v in e.items() if k != "ctx"} for e in error.__cause__.errors()])
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return {
        "type": type(error).__name__,
        "message": str(error),
        "attributes": attributes,
        "cause": error_info(cause, depth + 1) if cause is not None and depth < CAUSE_DEPTH else None,
    }


def _kept(value: Any) -> Any:
    try:
        return orjson.loads(orjson.dumps(value, default=to_jsonable_python, option=_OPTIONS))
    except Exception:
        return repr(value)


def as_dict(value: Any) -> dict[str, Any] | None:
    """The value if it is a JSON object."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def as_list(value: Any) -> list[Any] | None:
    """The value if it is a JSON array."""
    return cast(list[Any], value) if isinstance(value, list) else None


def as_listing(value: Any) -> list[Any] | None:
    """The members of a list or tuple that a user gave."""
    return list(cast(list[Any], value)) if isinstance(value, (list, tuple)) else None
