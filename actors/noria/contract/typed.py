"""Whether data that came over the wire has the types that its dataclass declares. What has not is refused where it comes
in: no later reader needs to be on its guard."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from noria.contract.values import as_list, as_listing

LATEST = 253_402_300_799.0  # the last second of the year 9999: what a datetime can hold
MAX_INT = 2**63

T = TypeVar("T")
Predicate = Callable[[Any], bool]


def check_types(value: Any) -> None:
    """Raises ValueError that names the first field of a dataclass instance that has another type than declared. Numbers
    are times (epoch seconds) or counts: negative and endless ones are refused too."""
    getter, checks = _checks(cast(Any, type(value)))
    for found, (name, plainly, fits) in zip(getter(value), checks, strict=True):
        if type(found) not in plainly and not fits(found):
            raise ValueError(f"{type(value).__name__}.{name} is {str(found)[:100]!r}")


def made(kind: type[T], data: dict[str, Any]) -> T:
    """A dataclass from its fields, checked; those that a newer build added, within the same format, are left out."""
    try:
        found = kind(**data)
    except TypeError:
        found = kind(**{f.name: data[f.name] for f in fields(cast(Any, kind)) if f.name in data})
    check_types(found)
    return found


@cache
def _checks(kind: type[Any]) -> tuple[Callable[[Any], tuple[Any, ...]], list[tuple[str, frozenset[type], Predicate]]]:
    """How to get the fields that have a type, and of each: its name, the types that need no further look, the test."""
    hints = get_type_hints(kind)
    found = [(f.name, _plain_types(hints[f.name]), _predicate(hints[f.name])) for f in fields(kind) if hints[f.name] is not Any]
    # one more name: an attrgetter of a single one gives no tuple
    return attrgetter(*(name for name, _, _ in found), "__class__"), [*found, ("__class__", frozenset({type}), _anything)]


def _plain_types(hint: Any) -> frozenset[type]:
    """Types whose every value fits: mostly there is nothing more to see."""
    if get_origin(hint) in (Union, types.UnionType):
        return frozenset[type]().union(*map(_plain_types, get_args(hint)))
    if get_origin(hint) is dict:
        return frozenset({dict})
    return frozenset({hint}) if hint in (str, bool, types.NoneType) else frozenset()


def _predicate(hint: Any) -> Predicate:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return _anything
    if origin in (Union, types.UnionType):
        options = [_predicate(option) for option in inner]
        return lambda value: any(fits(value) for fits in options)
    if origin is list:
        member = _predicate(inner[0])
        return lambda value: (found := as_list(value)) is not None and all(map(member, found))
    if origin is tuple:
        members = [_predicate(each) for each in inner]
        return lambda value: (found := as_listing(value)) is not None and len(found) == len(members) and all(map(_fits, members, found))
    if origin is dict:
        return lambda value: type(value) is dict
    if is_dataclass(hint):
        kind = cast("type[Any]", hint)
        return lambda value: isinstance(value, kind) and _is_fit(value)
    if hint is float:
        return is_time
    if hint is int:
        return lambda value: type(value) is int and 0 <= value < MAX_INT
    return lambda value: type(value) is hint


def is_time(value: Any) -> bool:
    """Whether a value is a number of epoch seconds that a datetime can hold."""
    return type(value) in (int, float) and 0 <= value <= LATEST


def _is_fit(value: Any) -> bool:
    try:
        check_types(value)
    except ValueError:
        return False
    return True


def _fits(predicate: Predicate, value: Any) -> bool:
    return predicate(value)


def _anything(value: Any) -> bool:
    return True
