"""What a run lives on: its log, commands and their deliveries, timers, record, large values, news."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from noria.ports.common import ActorKey, Known, Late, Receiver, RunKey, Stop, Stored, StoredRecord


class Delivery(Protocol):
    """A command in hand. Un-acknowledged and renewed it is a lease; dropped, it comes back after the lease time."""

    actor: ActorKey
    sequence: int
    count: int  # how often it was delivered, from 1
    body: bytes
    time: float  # when it was stored, epoch seconds
    after: int | None  # the command before it on its subject (0 = none), where the server saw to that; None: nobody asked it to

    def renew(self) -> None: ...
    def ack(self) -> None: ...
    def hand_back(self, delay: float = 0.0) -> None: ...


class Unacknowledged(NamedTuple):
    """How many commands of a workflow were delivered and not acknowledged: all of them have a sequence above `after`
    and up to `until`."""

    pending: int
    after: int
    until: int


class Log(Protocol):
    """Facts: one chain per actor, all chains in one total order (shared with commands).

    Laws: `append` stores if and only if the actor's last fact has the sequence `expected` (0 = none), else Refused;
    a retry after a lost answer does not store twice; what was acknowledged is never lost; what `confirm` confirms is
    every acknowledged append. The append is under way when `append` returns, and completes though nobody awaits it:
    when its future was cancelled, `late` is told how it ended.
    `follow` gives commands, facts and live events behind `after` (0: from the run's first on, begun or not) in stream
    order, each once and without a gap, for ever. `read_live` gives the live events that are still kept.
    """

    def append(self, actor: ActorKey, body: bytes, expected: int, late: Late | None = None) -> asyncio.Future[int]: ...
    async def last(self, actor: ActorKey) -> Stored | None: ...
    async def read(self, actor: ActorKey, after: int = 0) -> list[Stored]: ...
    async def read_tree(self, actor: ActorKey, after: int = 0) -> list[Stored]: ...
    async def confirm(self, actor: ActorKey, fact: int, command: int) -> bool:
        """Whether no acknowledged fact or command of the actor is newer than these sequences: reads may lag behind
        where there are replicas."""
        ...

    def publish_live(self, actor: ActorKey, body: bytes) -> None: ...
    async def tell_live(self, actor: ActorKey, body: bytes) -> None:
        """The same for what may come in any number: it waits where the server does not keep up, which would drop some."""
        ...

    async def read_live(self, run: RunKey, after: int = 0) -> list[Stored]: ...
    def follow(self, run: RunKey, after: int = 0) -> AsyncGenerator[Stored, None]: ...
    async def purge(self, run: RunKey) -> None: ...


class Commands(Protocol):
    """Commands to actors, delivered at least once to some worker of the workflow.

    Laws: with `expected` given the send is a compare-and-set on the actor's last command (0 = none); an
    acknowledged command is delivered until acknowledged; a delivery that is neither renewed nor acknowledged comes
    back after the lease, with a higher count. `hand_back` brings deliveries back at once, whoever holds them, and does
    nothing to acknowledged ones; `delivered` gives commands of such a span, acknowledged ones among them, and the middle
    of a very long span left out. What `read` is told of the commands up to `after` saves work, and changes nothing.
    """

    def send(self, actor: ActorKey, body: bytes, expected: int | None = None) -> asyncio.Future[int]: ...
    async def last(self, actor: ActorKey) -> Stored | None: ...
    async def read(self, actor: ActorKey, after: int = 0, known: Known | None = None) -> list[Stored]: ...
    async def read_tree(self, actor: ActorKey, after: int = 0) -> list[Stored]: ...
    async def find(self, run: str) -> list[RunKey]: ...
    async def started(self, workflow: str | None = None) -> Mapping[RunKey, int]:
        """All runs whose commands are still stored, and how many of them the root has."""
        ...

    async def receive(self, workflow: str, lease_seconds: float, on_delivery: Callable[[Delivery], None], room: Callable[[], int]) -> Receiver: ...
    async def hosted(self, workflow: str) -> bool: ...
    async def unacknowledged(self, workflow: str) -> Unacknowledged: ...
    async def delivered(self, workflow: str, span: Unacknowledged) -> list[tuple[ActorKey, int]]: ...
    async def hand_back(self, workflow: str, sequences: Sequence[int]) -> None: ...


class Timers(Protocol):
    """Messages from the future. Laws: a timer that was set sends its body as a command to the run's root once it is
    due, not earlier, whoever lives then; setting one again under its name replaces it."""

    async def set(self, actor: ActorKey, name: str, at: float, body: bytes) -> None: ...
    async def clear(self, run: RunKey) -> None: ...


class Records(Protocol):
    """State of a run as of a sequence. Laws: `put` is a compare-and-set on the revision, else Refused; a put with
    `ttl_seconds` vanishes after it, and may leave a mark for a while, a record with an empty body; `summaries` sees every
    acknowledged put."""

    async def get(self, run: RunKey) -> StoredRecord | None: ...
    def put(self, run: RunKey, body: bytes, revision: int, summary: str, ttl_seconds: float | None = None) -> asyncio.Future[int]: ...
    async def summaries(self, workflow: str | None = None) -> list[tuple[RunKey, str]]: ...
    async def delete(self, run: RunKey, tombstone_seconds: float) -> None: ...


class Blobs(Protocol):
    """Values above the inline limit, owned by a run. Laws: `put` is idempotent by content, or by the name it is given;
    what was put is there until `purge`, or until `drop`, which is best effort."""

    async def put(self, run: RunKey, data: bytes, name: str | None = None) -> str: ...
    async def get(self, run: RunKey, name: str) -> bytes: ...
    def drop(self, run: RunKey, name: str) -> None: ...
    async def purge(self, run: RunKey) -> None: ...


class News(Protocol):
    """Best effort: may be lost, never believed without reading. `rest` tells callers that a run rests; `nudge` tells
    hosts of a part of the run to look at their commands now."""

    def rest(self, run: RunKey, status: str, body: bytes) -> None: ...
    async def on_rests(self, workflow: str, callback: Callable[[RunKey, bytes], None]) -> Stop: ...
    def nudge(self, run: RunKey, sender: str) -> None: ...
    async def on_nudge(self, workflow: str, callback: Callable[[RunKey, str], None]) -> Stop: ...
