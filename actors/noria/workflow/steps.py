"""Steps: user functions with an id and declared types."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any, overload

from noria.contract.values import plain
from noria.errors import InvalidInput, NoriaError
from noria.retry import Retry
from noria.workflow.functions import UserFunction
from noria.workflow.settings import checked_name, checked_retry, checked_seconds
from noria.workflow.types import Declared, is_emptied


class Step:
    """A named function of a workflow, made by `@step` or `remote_step`. Callable as the plain function that it wraps. `timeout` is in
    seconds; `retry` None leaves it to the workflow."""

    def __init__(
        self, fn: Callable[..., Any], *, id: str | None = None, input: Any = None, output: Any = None, resume: Any = None,
        suspend: Any = None, state: Any = None, context: Any = None, retry: Retry | None = None,
        timeout: float | timedelta | None = None, description: str | None = None, metadata: dict[str, Any] | None = None,
        remote: bool = False, subject: str | None = None, sealed: bool = True,
    ) -> None:  # fmt: skip
        self.fn = UserFunction.of(fn, for_step=True)
        self.id = checked_name(id if id is not None else self.fn.name.replace("_", "-"), "step")
        where = f"step {self.id!r}"
        self.annotation = Declared(self.fn.annotation if "v" in self.fn.order else Any, where)
        self.input = Declared(input, where)
        self.output = Declared(output if output is not None else self.fn.returns, where)
        self.resume, self.suspend = Declared(resume, where), Declared(suspend, where)
        self.state, self.context = Declared(state, where), Declared(context, where)
        self.retry = None if retry is None else checked_retry(retry, where)
        self.timeout = checked_seconds(timeout, f"{where}: timeout")
        self.description, self.metadata = description, metadata
        self.remote, self.subject, self.sealed = remote, subject, sealed
        self.__doc__ = description or fn.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Step({self.id!r})"

    @property
    def state_type(self) -> Any:
        """What the step takes the run's state for; None: as the workflow does."""
        return self.state.type if self.state else None

    def clone(self, *, id: str) -> Step:
        """The same step under another id."""
        twin = copy.copy(self)
        twin.id = checked_name(id, "step")
        return twin

    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the input, declared or annotated; `{}` accepts everything."""
        return (self.input or self.annotation).schema()

    def schemas(self) -> dict[str, dict[str, Any]]:
        """The JSON Schemas of what is declared: input, output, resume, suspend, state."""
        parts = {"output": self.output, "resume": self.resume, "suspend": self.suspend, "state": self.state}
        return {"input": self.input_schema(), **{name: declared.schema() for name, declared in parts.items() if declared}}

    def parse_input(self, value: Any, validate: bool = True) -> tuple[Any, Any]:
        """(what the function gets, what the record keeps) of plain JSON. Raises InvalidInput."""
        if not validate or not (self.input or self.annotation):
            return value, value
        what, kept = f"Step input validation failed: step {self.id!r}", value
        if self.input:
            kept = plain(self.input.parse(what, value))
            if is_emptied(value, kept):
                return value, value
        if not self.annotation:
            return plain(kept), kept
        typed = self.annotation.parse(what, kept)
        recorded = plain(typed)
        return typed, (kept if is_emptied(kept, recorded) else recorded)

    def parse_resume(self, value: Any) -> tuple[Any, Any]:
        """(what the function gets, what the record keeps) of plain JSON. Raises InvalidInput."""
        if not self.resume:
            return plain(value), value
        typed = self.resume.parse(f"Invalid resume data: step {self.id!r}", value)
        return typed, plain(typed)

    def parse_suspend(self, value: Any) -> Any:
        """A plain suspend payload; None is none. Raises InvalidInput."""
        if not self.suspend or value is None:
            return value
        return plain(self.suspend.parse(f"Invalid suspend data: step {self.id!r}", value))

    def known_suspend(self, value: Any) -> Any:
        """A stored suspend payload as its declared type; as it is where it is none of this version's."""
        try:
            return None if value is None else self.suspend.parse("", plain(value))
        except InvalidInput:
            return value

    def check_state(self, values: dict[str, Any], changed: Collection[str]) -> None:
        """Raises InvalidInput when `changed` keys of the state are not as this step declares it."""
        self.state.check_changes(f"Invalid state: step {self.id!r}", values, changed)

    def check_context(self, value: dict[str, Any]) -> None:
        """Raises InvalidInput when the request context is not as this step declares it."""
        self.context.parse(f"Request context validation failed: step {self.id!r}", value)

    def parse_state(self, value: Any) -> Any:
        """The state as this step declares it. Raises InvalidInput."""
        return self.state.parse(f"Invalid state: step {self.id!r}", value)


@overload
def step(
    fn: Callable[..., Any], *, id: str | None = None, input: Any = None, output: Any = None, resume: Any = None,
    suspend: Any = None, state: Any = None, context: Any = None, retry: Retry | None = None,
    timeout: float | timedelta | None = None, description: str | None = None, metadata: dict[str, Any] | None = None,
) -> Step: ...  # fmt: skip
@overload
def step(
    fn: None = None, *, id: str | None = None, input: Any = None, output: Any = None, resume: Any = None,
    suspend: Any = None, state: Any = None, context: Any = None, retry: Retry | None = None,
    timeout: float | timedelta | None = None, description: str | None = None, metadata: dict[str, Any] | None = None,
) -> Callable[[Callable[..., Any]], Step]: ...  # fmt: skip
def step(
    fn: Callable[..., Any] | None = None, *, id: str | None = None, input: Any = None, output: Any = None, resume: Any = None,
    suspend: Any = None, state: Any = None, context: Any = None, retry: Retry | None = None,
    timeout: float | timedelta | None = None, description: str | None = None, metadata: dict[str, Any] | None = None,
) -> Step | Callable[[Callable[..., Any]], Step]:  # fmt: skip
    """Make a step of a function, async or sync (then it runs in a thread): `@step` or `@step(id=…, …)`.

    The function takes nothing, its input, a `Context` (annotated so, or named `ctx`), or both. `id`: its name with - for _ without
    one. `input` and `output`: the annotations without; `resume`, `suspend`: types of the data of a resume and of a suspension;
    `state`, `context`: what it takes the run's state and request context for. All are types that pydantic can validate. `retry`: the
    workflow's without; `timeout`: of one try, in seconds or as a timedelta. Raises DefinitionError.
    """

    def decorate(fn: Callable[..., Any]) -> Step:
        return Step(
            fn, id=id, input=input, output=output, resume=resume, suspend=suspend, state=state, context=context,
            retry=retry, timeout=timeout, description=description, metadata=metadata,
        )  # fmt: skip

    return decorate if fn is None else decorate(fn)


def remote_step(id: str, *, input: Any = None, output: Any = None, subject: str | None = None, sealed: bool = True, **options: Any) -> Step:
    """A step whose handler lives elsewhere, in whatever language, reached by NATS request/reply only: on `subject`, else on
    `<namespace>.step.<workflow>.<id>`. `options` are those of `@step`. `sealed`: where the namespace has a codec its
    calls are sealed; False for a handler that has none, and then values cross the network as they are."""

    def elsewhere(value: Any) -> Any:
        raise NoriaError(f"step {id!r} has no function in this process: its handler is reached through a worker")

    return Step(elsewhere, id=id, input=input, output=output, remote=True, subject=subject, sealed=sealed, **options)
