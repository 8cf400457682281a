"""User functions: how to call each of them, by its signature."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from noria.errors import DefinitionError

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class UserFunction:
    """A callable and the order of its arguments: "v" the value, "c" the context."""

    __slots__ = ("annotation", "fn", "is_async", "name", "order", "returns")

    def __init__(self, fn: Callable[..., Any], order: str, annotation: Any, returns: Any) -> None:
        self.fn, self.order, self.annotation, self.returns = fn, order, annotation, returns
        self.name = str(getattr(fn, "__name__", type(fn).__name__))
        self.is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__ if not inspect.isroutine(fn) else None)

    @classmethod
    def of(cls, fn: Callable[..., Any], *, for_step: bool = False) -> UserFunction:
        """Read the signature. Raises DefinitionError for parameters that nobody would fill."""
        if not callable(fn):
            raise DefinitionError(f"{fn!r} is not callable")
        hints, order, annotation = _hints(fn), "", Any
        for parameter in _parameters(fn):
            hint = hints.get(parameter.name, Any)
            if _is_context(parameter.name, hint) and "c" not in order:
                order += "c"
            elif "v" not in order:
                order, annotation = order + "v", hint
            elif not for_step and "c" not in order:
                order += "c"
            elif parameter.default is inspect.Parameter.empty:
                raise DefinitionError(f"{fn!r}: nothing to give for the parameter {parameter.name!r}; it may take the input and a Context")
        return cls(fn, order, annotation, hints.get("return", Any))

    def call(self, value: Any, context: Any) -> Any:
        """Call it; an async function gives an awaitable."""
        return self.fn(*[value if kind == "v" else context for kind in self.order])


def _parameters(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # built-ins without a signature take the value
        return [inspect.Parameter("value", inspect.Parameter.POSITIONAL_ONLY)]
    if [p.kind for p in parameters] == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]:
        return [inspect.Parameter("value", inspect.Parameter.POSITIONAL_ONLY)]  # spies
    return [p for p in parameters if p.kind in POSITIONAL]


def _hints(fn: Callable[..., Any]) -> dict[str, Any]:
    target = fn if inspect.isroutine(fn) else getattr(fn, "func", type(fn).__call__)
    raw: dict[str, Any] = dict(getattr(target, "__annotations__", {}))
    try:
        local: dict[str, Any] = dict(inspect.getclosurevars(target).nonlocals) if inspect.isfunction(target) else {}
        return typing.get_type_hints(target, localns=local, include_extras=True)
    except Exception:  # a name that only the author's scope knows: such a parameter accepts everything
        return {name: _resolve(target, hint) for name, hint in raw.items()}


def _resolve(target: Any, hint: Any) -> Any:
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, dict(getattr(target, "__globals__", {})))
    except Exception:
        return hint if hint.rpartition(".")[2] == "Context" else Any


def _is_context(name: str, hint: Any) -> bool:
    from noria.workflow.context import Context

    return name == "ctx" or (isinstance(hint, str) and hint.endswith("Context")) or (inspect.isclass(hint) and issubclass(hint, Context))
