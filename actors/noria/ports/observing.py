"""What the core tells of itself, for whoever watches: the port that telemetry listens at."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from noria.ports.common import RunKey
from noria.ports.runs import Delivery

T = TypeVar("T")


class Observer(Protocol):
    """Told of what the core does. Laws: never raises, never blocks; only where there is one is anything paid for it."""

    def sends(self, verb: str, run: RunKey, traceparent: str | None, of: str | None) -> AbstractContextManager[str | None]:
        """Around the sending of a command that goes on from `traceparent`, else from what the caller does; what the
        command shall carry. `of`: the traceparent of the run's start, "" if it had none, None where this is its start."""
        ...

    def delivered(self, delivery: Delivery) -> None:
        """A command came in, for the first time or again."""
        ...

    def hosts(self, delivery: Delivery, traceparent: str | None) -> Stretch:
        """An actor is hosted by this delivery, in the calling task; its start carried `traceparent`."""
        ...

    def serves(self, step: str, run: RunKey, traceparent: str | None) -> AbstractContextManager[None]:
        """Around a step that was called from elsewhere, where `traceparent` was current."""
        ...

    def traceparent(self) -> str | None:
        """What continues from what the caller does, for calls to elsewhere."""
        ...


class Stretch(Protocol):
    """One hosting of an actor, watched. `traceparent` continues its trace; times are epoch seconds."""

    traceparent: str

    async def step(self, step: str, path: str, attempt: int, work: Coroutine[Any, Any, T]) -> T:
        """Watch one try of a step; an outcome that is an exception, or whose `status` is no success, is one."""
        ...

    async def child(self, path: str, work: Coroutine[Any, Any, str]) -> str:
        """Watch a nested workflow that runs in place; its status."""
        ...

    async def evaluation(self, what: str, entry: str, path: str, work: Coroutine[Any, Any, T]) -> T:
        """Watch a function of the workflow itself, a "mapping" or a "condition"; what it gives or raises."""
        ...

    def took_in(self, command: bytes) -> None:
        """A command came for the actor while it is hosted by another one."""
        ...

    def slept(self, step: str, path: str, began: float, ended: float) -> None: ...
    def appended(self) -> None: ...
    def conflict(self) -> None: ...
    def end(self, status: str) -> None:
        """The actor rests with this status, or "active": another host goes on. Called once, by the task that `hosts` was."""
        ...
