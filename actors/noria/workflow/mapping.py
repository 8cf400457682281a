"""Where a mapping takes its data from: a closed union of sources, and how to resolve them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from noria.contract.values import as_dict, as_list, as_listing, plain
from noria.errors import DefinitionError, NoriaError, choices
from noria.workflow.context import Context
from noria.workflow.functions import UserFunction

_MISSING: Any = object()
_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_TERM = re.compile(r"(prev|input|state|context)(\.[^.\s]+)*|steps(\.[^.\s]+)+")


@dataclass(frozen=True, slots=True)
class Value:
    value: Any


@dataclass(frozen=True, slots=True)
class FromInput:
    path: str


@dataclass(frozen=True, slots=True)
class FromStep:
    steps: tuple[str, ...]
    path: str
    default: Any


@dataclass(frozen=True, slots=True)
class FromContext:
    key: str


@dataclass(frozen=True, slots=True)
class FromState:
    path: str


@dataclass(frozen=True, slots=True)
class Computed:
    function: UserFunction


@dataclass(frozen=True, slots=True)
class Template:
    text: str


Source: TypeAlias = Value | FromInput | FromStep | FromContext | FromState | Computed | Template
SOURCES = (Value, FromInput, FromStep, FromContext, FromState, Computed, Template)


def value(x: Any) -> Value:
    """A constant."""
    return Value(plain(x))


def from_input(path: str = ".") -> FromInput:
    """The innermost workflow's input, or what a dotted path finds in it."""
    return FromInput(path)


def from_step(step: Any, path: str = ".", default: Any = _MISSING) -> FromStep:
    """The output of a step, or of the first of a list of steps that has a non-empty one. Without any and without
    `default` the run fails, naming the step."""
    steps = as_listing(step) or [step]
    ids = [id for s in steps if isinstance(id := s if isinstance(s, str) else getattr(s, "id", None), str)]
    if len(ids) < len(steps):
        raise DefinitionError(f"from_step({step!r}): give a step, an id, or a list of these")
    return FromStep(tuple(ids), path, default)


def from_context(key: str) -> FromContext:
    """A key of the request context; None when it is not there."""
    return FromContext(key)


def from_state(path: str) -> FromState:
    """What a dotted path finds in the run's state."""
    return FromState(path)


def computed(fn: Callable[..., Any]) -> Computed:
    """The result of fn(prev, ctx)."""
    return Computed(UserFunction.of(fn))


def template(text: str) -> Template:
    """Text with placeholders `${scope.path}`: scopes prev, input, state, context, steps.<id>. Raises DefinitionError."""
    for found in _PLACEHOLDER.finditer(text):
        if not _TERM.fullmatch(found[1]):
            raise DefinitionError(f"template placeholder {found[0]!r}: use prev, input, state, context or steps.<id>, then a dotted path")
    if text.count("${") != len(_PLACEHOLDER.findall(text)):
        raise DefinitionError(f"template {text!r} has a placeholder that is not closed")
    return Template(text)


def resolve(source: Source, prev: Any, ctx: Context) -> Any:
    """The source's value; of an async `computed` an awaitable. Raises NoriaError naming what is missing."""
    match source:
        case Value(constant):
            return constant
        case FromInput(path):
            return dig(ctx.init_data, path, "input")
        case FromState(path):
            return dig(plain(ctx.state), path, "state")
        case FromContext(key):
            return ctx.request_context.get(key)
        case Computed(function):
            return function.call(plain(prev), ctx)
        case Template(text):
            return _PLACEHOLDER.sub(lambda found: _rendered(found[1], prev, ctx), text)
        case FromStep():
            return _from_step(source, ctx)


def _from_step(source: FromStep, ctx: Context) -> Any:
    found = [(step, result) for step in source.steps if (result := ctx.step_result(step, _MISSING)) is not _MISSING]
    filled = [pair for pair in found if pair[1] not in (None, {})]
    if not filled and len(source.steps) == 1:
        filled = found
    if filled:
        step, first = filled[0]
        return dig(first, source.path, f"output of step {step!r}")
    if source.default is not _MISSING:
        return source.default
    raise NoriaError(f"there is no result of step {choices(source.steps)}")


def _rendered(term: str, prev: Any, ctx: Context) -> str:
    scope, _, path = term.partition(".")
    if scope == "steps":
        step, _, path = path.partition(".")
        root = ctx.step_result(step, _MISSING)
        if root is _MISSING:
            raise NoriaError(f"template: there is no result of step {step!r}")
    else:
        root = _scope(scope, prev, ctx)
    found = dig(root, path or ".", scope, lenient=True)
    return "" if found is None else found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _scope(scope: str, prev: Any, ctx: Context) -> Any:
    match scope:
        case "prev":
            return prev
        case "input":
            return ctx.init_data
        case "state":
            return plain(ctx.state)
        case _:
            return dict(ctx.request_context)


def dig(root: Any, path: str, what: str, lenient: bool = False) -> Any:
    """What a dotted path finds; numbers index lists; a missing key gives None. Raises NoriaError when it leads into
    something that is no object."""
    found: Any = root
    parts: list[str] = [] if path in (".", "") else path.split(".")
    for part in parts:
        members, items = as_dict(found), as_list(found)
        if members is not None:
            found = members.get(part)
        elif items is not None and part.lstrip("-").isdigit():
            index = int(part)
            found = items[index] if -len(items) <= index < len(items) else None
        elif lenient and found is None:
            return None
        else:
            raise NoriaError(f"{what}: the path {path!r} leads into {type(found).__name__} at {part!r}")
    return found
