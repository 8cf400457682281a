"""Values that cross a boundary: JSON in and out, plain copies, exceptions as data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set, ValuesView
from typing import Any, cast

import orjson
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from noria.errors import InvalidInput, NonRetryable
from noria.limits import CAUSE_DEPTH

BAD_DATA = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)  # what reading hostile data may raise
_COMMON = (Exception, BaseException, object)
_OPTIONS = orjson.OPT_NON_STR_KEYS
loads = orjson.loads
SLIP = b'{"noria_blob":'  # how a body begins that stands for one in the blobs
SEALED_FORMAT = 1_000_001  # of a body that a codec sealed


def too_new(what: str, found: int, known: int) -> str:
    """Why a body of this format cannot be read."""
    if found == SEALED_FORMAT:
        return f"{what} is sealed: connect with the codec of this namespace"
    return f"{what} has format {found}; this version of Noria reads up to {known}: upgrade it"


def shown(value: Any) -> str:
    """Its repr, or its type where that raises."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _default(value: Any) -> Any:
    try:
        return to_jsonable_python(value)
    except Exception:
        return _collected(value)


def _collected(value: Any) -> Any:
    """Of what is no dict or list but behaves like one (a view, a range, a proxy) what is in it; else the repr."""
    try:
        if isinstance(value, Mapping):
            return dict(cast(Mapping[Any, Any], value))
        if isinstance(value, (Sequence, Set, ValuesView)) and not isinstance(value, (bytes, bytearray, memoryview)):
            return list(cast(Sequence[Any], value))
    except Exception:
        return shown(value)
    return shown(value)


def dumps(value: Any) -> bytes:
    """JSON of anything, always readable by `loads`: what has no JSON form becomes its repr, NaN and infinity null.
    Integers beyond 64 bit are written exactly but read as floats."""
    return bytes(memoryview(_encoded(value)))  # a copy: what orjson returns keeps its buffer, 4 KB at least, often ten times what is in it


def _encoded(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_default, option=_OPTIONS)
    except (TypeError, orjson.JSONEncodeError):  # integers beyond 64 bit, odd keys, lone surrogates, cycles
        try:
            return json.dumps(_tamed(value)).encode()
        except RecursionError:
            return json.dumps(_text(repr(value))).encode()


def _tamed(value: Any) -> Any:
    """JSON data of what orjson refuses as a whole, part by part."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= 1000 else hex(value)  # beyond a float's range no reader takes it
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_key(k): _tamed(v) for k, v in cast(dict[Any, Any], value).items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_tamed(v) for v in cast(list[Any], value)]
    return _tamed(_default(value))


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8


def _key(key: Any) -> str:
    try:
        return next(iter(orjson.loads(orjson.dumps({key: None}, option=_OPTIONS))))
    except (TypeError, orjson.JSONEncodeError):
        return _text(str(key))


def plain(value: Any) -> Any:
    """A copy made of JSON data only."""
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]  # compared by identity: a subclass may have a form of its own
    if value is None or kind is str or kind is bool or (kind is float and math.isfinite(value)):
        return value
    if kind is int and -(2**63) <= value < 2**64:
        return value
    return loads(_encoded(value))


def plain_object(what: str, given: Any) -> dict[str, Any]:
    """Names and their values as JSON data; None is none. Raises InvalidInput for anything else."""
    data = plain({} if given is None else given)
    if as_dict(data) is None:
        raise InvalidInput(f"{what} takes a dict of names and values, not {str(given)[:100]!r}")
    return data


class ToldError(Exception):
    """An exception of another process: `info` is what `error_info` made of it there."""

    def __init__(self, info: dict[str, Any]) -> None:
        super().__init__(info.get("message", ""))
        self.info = info


def error_info(error: BaseException, depth: int = 0) -> dict[str, Any]:
    """An exception as data: bare class name, text, public attributes, cause; the names of the classes it is one of, for whoever
    decides elsewhere whether to try again."""
    if isinstance(error, ToldError):
        return error.info
    attributes = {name: _kept(value) for name, value in vars(error).items() if not name.startswith("_")}
    if isinstance(error.__cause__, ValidationError):
        attributes["issues"] = plain([{k: v for k, v in e.items() if k != "ctx"} for e in error.__cause__.errors()])
    hidden = error.__cause__ is not None or error.__suppress_context__
    cause = error.__cause__ if hidden else error.__context__
    info: dict[str, Any] = {
        "type": type(error).__name__,
        "message": _message(error),
        "attributes": attributes,
        "cause": error_info(cause, depth + 1) if cause is not None and depth < CAUSE_DEPTH else None,
    }
    if bases := [] if depth else [c.__name__ for c in type(error).__mro__[1:] if c not in _COMMON]:
        info["bases"] = bases
    return {**info, "non_retryable": True} if isinstance(error, (NonRetryable, InvalidInput)) else info


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a broken __str__ of the user's must not hide the failure itself
        return type(error).__name__


def _kept(value: Any) -> Any:
    try:
        return orjson.loads(orjson.dumps(value, default=to_jsonable_python, option=_OPTIONS))
    except Exception:
        return shown(value)


def as_dict(value: Any) -> dict[str, Any] | None:
    """The value if it is a JSON object."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def as_list(value: Any) -> list[Any] | None:
    """The value if it is a JSON array."""
    return cast(list[Any], value) if isinstance(value, list) else None


def as_listing(value: Any) -> list[Any] | None:
    """The members of a list or tuple that a user gave."""
    return list(cast(list[Any], value)) if isinstance(value, (list, tuple)) else None
