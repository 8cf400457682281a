"""What comes from outside: triggers, schedules, and the dead letters of what could not be processed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from noria.ports.common import Receiver, StoredRecord


class Tick(NamedTuple):
    """That a schedule is due: `following` is its next time, epoch seconds, which tells this tick from all others."""

    workflow: str
    schedule: str
    following: float


class Trigger(Protocol):
    """A message from outside that wants to start a run. Header names are lower case; `tick` when a schedule sent it."""

    subject: str
    sequence: int
    count: int  # how often it was delivered, from 1
    time: float  # when it was stored, epoch seconds; 0 when it was not
    headers: Mapping[str, str]
    body: bytes
    tick: Tick | None

    def ack(self) -> None: ...
    def hand_back(self, delay: float = 0.0) -> None: ...


class Letter(NamedTuple):
    """A dead letter: what could not be processed, as it came, and why.

    `kind`: trigger, poison, schedule, command, fact or record. `headers` are the original ones, names in lower case. `cut`: it was too
    large to be kept whole, or does not open here, so body and headers are not what came. `time` is epoch seconds.
    """

    sequence: int
    kind: str
    workflow: str
    reason: str
    headers: Mapping[str, str]
    body: bytes
    time: float
    cut: bool = False


class Triggers(Protocol):
    """Laws: a published trigger is delivered until acknowledged, one with an `id` that was published a moment ago (two minutes)
    is not stored again; what is put into the dead stream stays there;
    `dead` gives the letters after a sequence, oldest first, at most `limit`. `bind` receives from a subject of the
    user's from the first binding on (`consumer` names it, for all workers together); of one that no stream holds, each
    message comes to one of the workers that are there, at most once."""

    async def receive(self, on_trigger: Callable[[Trigger], Awaitable[None]]) -> Receiver: ...
    async def bind(self, on: str, stream: str | None, consumer: str, on_trigger: Callable[[Trigger], Awaitable[None]]) -> Receiver: ...
    async def publish(self, workflow: str, body: bytes, headers: Mapping[str, str], id: str | None = None) -> None: ...
    async def bury(self, kind: str, workflow: str, body: bytes, headers: Mapping[str, str], reason: str) -> None: ...
    async def dead(self, after: int = 0, limit: int = 100, *, kind: str | None = None, workflow: str | None = None) -> Sequence[Letter]: ...


class StoredSchedule(NamedTuple):
    """A schedule as stored: `revision` is what the next put expects, `body` its definition, `stale` when a put of the very
    same would store it differently."""

    workflow: str
    id: str
    revision: int
    body: bytes
    ticking: bool
    stale: bool = False


class Schedules(Protocol):
    """Messages at planned times, again and again. Laws: `put` is a compare-and-set on the revision (0 = none), else
    Refused; with a pattern (six cron fields) the body comes as a trigger of the workflow at each time from now on, once,
    and vanishes when nobody took it in `ttl_seconds`; without one it ticks no more. `past` is a register beside it."""

    async def every(self, workflow: str | None = None) -> list[StoredSchedule]: ...
    async def get(self, workflow: str, id: str) -> StoredSchedule | None: ...
    async def put(
        self, workflow: str, id: str, body: bytes, revision: int, pattern: str | None, timezone: str = "UTC", ttl_seconds: float = 1.0
    ) -> int: ...
    async def remove(self, workflow: str, id: str) -> None: ...
    async def past(self, workflow: str, id: str) -> StoredRecord | None: ...
    async def put_past(self, workflow: str, id: str, body: bytes, revision: int) -> int: ...
