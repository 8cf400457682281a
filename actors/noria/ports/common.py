"""What the ports have in common: whom they speak of, what is stored, how a thing is refused or ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from math import inf
from typing import NamedTuple, Protocol, TypeAlias

from noria.errors import BrokerUnavailable

deadline: ContextVar[float] = ContextVar("deadline", default=inf)  # of whoever asks, on the monotonic clock: no try begins behind it
Late: TypeAlias = Callable[[int | None], None]  # gets the sequence of an append, or None when it came to nothing
Stop: TypeAlias = Callable[[], Awaitable[None]]  # how to end what was begun


class Refused(Exception):
    """A compare-and-set was lost: somebody else wrote first. Read again."""


class Closed(BrokerUnavailable):
    """The connection is closed for good: no later try can help."""


class RunKey(NamedTuple):
    """A run, unique within the namespace."""

    workflow: str
    run: str


class ActorKey(NamedTuple):
    """An actor of a run. `path` is dotted ("ship.pack=3"); the root's is empty."""

    workflow: str
    run: str
    path: str = ""

    @property
    def tree(self) -> RunKey:
        return RunKey(self.workflow, self.run)


class Stored(NamedTuple):
    """A message of the RUNS stream. `kind` is "in" (command), "run" (fact) or "live"; `time` is epoch seconds."""

    sequence: int
    kind: str
    actor: ActorKey
    body: bytes
    time: float


class Known(NamedTuple):
    """What a reader knows of an actor's commands up to some sequence: the first one, and at least how many they were."""

    first: int
    total: int


class StoredRecord(NamedTuple):
    """A run's record as stored: `revision` is what the next put expects (0 = none)."""

    revision: int
    body: bytes


class Receiver(Protocol):
    """A standing wish for deliveries, never for more than `room()` at once."""

    def top_up(self) -> None: ...
    async def close(self) -> None: ...
