"""User functions: how to call each of them, by its signature."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, cast

from noria.errors import DefinitionError

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class UserFunction:
    """A callable and the order of its arguments: "v" the value, "c" the context. `keywords` has for each of them the
    name that it must be passed by, None where its place is enough."""

    __slots__ = ("annotation", "fn", "is_async", "keywords", "name", "order", "returns")

    def __init__(
        self, fn: Callable[..., Any], order: str, annotation: Any, returns: Any, keywords: tuple[str | None, ...] = (),
    ) -> None:  # fmt: skip
        self.fn, self.order, self.annotation, self.returns = fn, order, annotation, returns
        self.keywords = keywords or (None,) * len(order)
        self.name = str(getattr(fn, "__name__", type(fn).__name__))
        self.is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__ if not inspect.isroutine(fn) else None)

    @classmethod
    def of(cls, fn: Callable[..., Any], *, for_step: bool = False) -> UserFunction:
        """Read the signature. A second parameter of a condition or mapping is the context whatever its name, unless it
        has a default: `sum(list, start=0)` and `lambda prev, i=i: …` keep theirs. Raises DefinitionError for parameters
        that nobody would fill."""
        if not callable(fn):
            raise DefinitionError(f"{fn!r} is not callable")
        hints, order, annotation, skipped = _hints(fn), "", Any, False
        keywords: list[str | None] = []
        for parameter in _parameters(fn):
            hint = hints.get(parameter.name, Any)
            role = _role(parameter, hint, order, for_step)
            if role:
                order += role
                keywords.append(parameter.name if skipped or parameter.kind is parameter.KEYWORD_ONLY else None)
                annotation = hint if role == "v" else annotation
            elif parameter.default is parameter.empty:
                raise DefinitionError(f"{fn!r}: nothing to give for the parameter {parameter.name!r}; it may take the input and a Context")
            else:
                skipped = True
        returns = hints.get("return", Any)
        return cls(fn, order, annotation, Any if returns in (typing.NoReturn, typing.Never) else returns, tuple(keywords))

    def call(self, value: Any, context: Any) -> Any:
        """Call it; an async function gives an awaitable."""
        places: list[Any] = []
        named: dict[str, Any] = {}
        for kind, keyword in zip(self.order, self.keywords, strict=True):
            given = value if kind == "v" else context
            if keyword is None:
                places.append(given)
            else:
                named[keyword] = given
        try:
            return self.fn(*places, **named)
        except StopIteration as error:  # no future can hold it
            raise RuntimeError(f"{self.name!r} raised StopIteration") from error


def _role(parameter: inspect.Parameter, hint: Any, order: str, for_step: bool) -> str:
    """"c", "v", or "" for a parameter that gets nothing."""
    if "c" not in order and _is_context(parameter.name, hint):
        return "c"
    filled = parameter.default is not parameter.empty
    if "v" not in order and not (filled and parameter.kind is parameter.KEYWORD_ONLY):
        return "v"
    fits = parameter.kind in POSITIONAL and not filled
    return "c" if fits and not for_step and "c" not in order else ""


def _parameters(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # built-ins without a signature take the value
        return [inspect.Parameter("value", inspect.Parameter.POSITIONAL_ONLY)]
    named = [p for p in parameters if p.kind in (*POSITIONAL, inspect.Parameter.KEYWORD_ONLY)]
    if not named and any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return [inspect.Parameter("value", inspect.Parameter.POSITIONAL_ONLY)]  # spies and plain wrappers
    return named


def _hints(fn: Callable[..., Any]) -> dict[str, Any]:
    called = cast(Any, fn).func if isinstance(fn, functools.partial) else fn
    target = called if inspect.isroutine(called) else type(called).__call__
    raw: dict[str, Any] = dict(getattr(target, "__annotations__", None) or {})
    local = _closure(target)
    try:
        return typing.get_type_hints(target, localns=local, include_extras=True)
    except Exception:  # a name that only the author's scope knows: such a parameter accepts everything
        return {name: _resolve(target, hint, local) for name, hint in raw.items()}


def _closure(target: Any) -> dict[str, Any]:
    inner: Any = inspect.unwrap(getattr(target, "__func__", target))
    try:
        return dict(inspect.getclosurevars(inner).nonlocals)
    except (TypeError, ValueError):
        return {}


def _resolve(target: Any, hint: Any, local: dict[str, Any]) -> Any:
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, dict(getattr(inspect.unwrap(target), "__globals__", {})), local)
    except Exception:
        hint = hint.replace(" ", "").removesuffix("|None")
        return hint if hint.rpartition(".")[2] == "Context" else Any


def _is_context(name: str, hint: Any) -> bool:
    from noria.workflow.context import Context

    if typing.get_origin(hint) in (typing.Union, types.UnionType, typing.Annotated):
        return name == "ctx" or _is_context(name, typing.get_args(hint)[0])
    return name == "ctx" or (isinstance(hint, str) and hint.endswith("Context")) or (inspect.isclass(hint) and issubclass(hint, Context))
