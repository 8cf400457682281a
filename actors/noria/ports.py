"""What the runtime needs from the world: protocols with their laws.

The broker layer implements them on NATS; the simulated broker in memory. Bodies are opaque bytes here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

T = TypeVar("T")
Late: TypeAlias = Callable[[int | None], None]  # gets the sequence of an append, or None when it came to nothing
Stop: TypeAlias = Callable[[], Awaitable[None]]  # how to end what was begun


class Refused(Exception):
    """A compare-and-set was lost: somebody else wrote first. Read again."""


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


class StoredRecord(NamedTuple):
    """A run's record as stored: `revision` is what the next put expects (0 = none)."""

    revision: int
    body: bytes


class Delivery(Protocol):
    """A command in hand. Un-acknowledged and renewed it is a lease; dropped, it comes back after the lease time."""

    actor: ActorKey
    sequence: int
    count: int  # how often it was delivered, from 1
    body: bytes
    time: float  # when it was stored, epoch seconds
    first: bool  # the server saw to it that none was on its subject before

    def renew(self) -> None: ...
    def ack(self) -> None: ...
    def hand_back(self, delay: float = 0.0) -> None: ...


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
    async def read_live(self, run: RunKey, after: int = 0) -> list[Stored]: ...
    def follow(self, run: RunKey, after: int = 0) -> AsyncGenerator[Stored, None]: ...
    async def purge(self, run: RunKey) -> None: ...


class Commands(Protocol):
    """Commands to actors, delivered at least once to some worker of the workflow.

    Laws: with `expected` given the send is a compare-and-set on the actor's last command (0 = none); an
    acknowledged command is delivered until acknowledged; a delivery that is neither renewed nor acknowledged comes
    back after the lease, with a higher count. `hand_back` brings deliveries back at once, whoever holds them, and does
    nothing to acknowledged ones; `delivered` gives commands of such a span, acknowledged ones among them, and the middle
    of a very long span left out.
    """

    def send(self, actor: ActorKey, body: bytes, expected: int | None = None) -> asyncio.Future[int]: ...
    async def last(self, actor: ActorKey) -> Stored | None: ...
    async def read(self, actor: ActorKey, after: int = 0) -> list[Stored]: ...
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


class Unacknowledged(NamedTuple):
    """How many commands of a workflow were delivered and not acknowledged: all of them have a sequence above `after`
    and up to `until`."""

    pending: int
    after: int
    until: int


class Receiver(Protocol):
    """A standing wish for deliveries, never for more than `room()` at once."""

    def top_up(self) -> None: ...
    async def close(self) -> None: ...


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


class Catalogue(Protocol):
    """The workflows that were ever registered: id -> description (JSON)."""

    async def put(self, workflow: str, body: bytes) -> None: ...
    async def get(self, workflow: str) -> bytes | None: ...
    async def list(self) -> Mapping[str, bytes]: ...


class News(Protocol):
    """Best effort: may be lost, never believed without reading. `rest` tells callers that a run rests; `nudge` tells
    hosts of a part of the run to look at their commands now."""

    def rest(self, run: RunKey, status: str, body: bytes) -> None: ...
    async def on_rests(self, workflow: str, callback: Callable[[RunKey, bytes], None]) -> Stop: ...
    def nudge(self, run: RunKey, sender: str) -> None: ...
    async def on_nudge(self, workflow: str, callback: Callable[[RunKey, str], None]) -> Stop: ...


class Tick(NamedTuple):
    """That a schedule is due: `following` is its next time, epoch seconds, which tells this tick from all others."""

    workflow: str
    schedule: str
    following: float


EVERYBODY = "all"  # answers under this name too: who comes new does not know the others' ids


class Presence(Protocol):
    """Who is there, asked and answered without storing anything.

    Laws: `ask` gives None if and only if nobody answers under this id any more, and at once; it raises
    BrokerUnavailable when somebody is there and silent. `gather` asks all hosts and gives what came within `seconds`,
    sooner when `enough` have answered; `tell` lets them know and wants no answer. `on_question` gets the body of a
    question or of what was told, and gives the answer.
    """

    async def answer(self, host: str, on_question: Callable[[bytes], bytes]) -> Stop: ...
    async def ask(self, host: str) -> bytes | None: ...
    async def gather(self, body: bytes, seconds: float, enough: int) -> list[bytes]: ...
    def tell(self, body: bytes) -> None: ...


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

    `kind`: trigger, poison, schedule, command or record. `headers` are the original ones, names in lower case. `cut`: it was too
    large to be kept whole, so body and headers are not what came. `time` is epoch seconds.
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
    """Laws: a published trigger is delivered until acknowledged; what is put into the dead stream stays there;
    `dead` gives the letters after a sequence, oldest first, at most `limit`. `bind` receives from a subject of the
    user's from the first binding on (`consumer` names it, for all workers together); of one that no stream holds, each
    message comes to one of the workers that are there, at most once."""

    async def receive(self, on_trigger: Callable[[Trigger], Awaitable[None]]) -> Receiver: ...
    async def bind(self, on: str, stream: str | None, consumer: str, on_trigger: Callable[[Trigger], Awaitable[None]]) -> Receiver: ...
    async def publish(self, workflow: str, body: bytes, headers: Mapping[str, str]) -> None: ...
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


class Nobody(Exception):
    """No one serves this subject; known at once."""


class Answer(NamedTuple):
    """What a request was answered; `error` in words and its code when it was refused."""

    body: bytes
    error: str | None = None
    code: str | None = None


class Endpoint(NamedTuple):
    """A place to send requests to. The handler must not raise; cancelled, it lets the caller ask again."""

    name: str
    subject: str
    handler: Callable[[bytes], Awaitable[Answer]]
    metadata: Mapping[str, str]


class Talk(Protocol):
    """An address of our own for one conversation."""

    address: str

    def send(self, subject: str, body: bytes) -> None: ...
    def close(self) -> None: ...


class Calls(Protocol):
    """Requests, at most once. Laws: `ask` gives the one answer, Nobody at once when no one serves the subject, or
    BrokerUnavailable when none came in time; `open` hears every message to its address in order, None for Nobody.
    `unseal` opens what `seal` made, in the same context, and what is not sealed to itself; `seal` changes nothing unless
    `seals`, and leaves the fields `shown` of a JSON object readable."""

    seals: bool

    @property
    def max_bytes(self) -> int:
        """Larger bodies cannot be sent."""
        ...

    async def ask(self, subject: str, body: bytes, timeout: float) -> Answer: ...
    def open(self, on_message: Callable[[Answer | None], None]) -> Talk: ...
    def tell(self, subject: str, body: bytes) -> None: ...
    async def listen(self, subject: str, callback: Callable[[str, bytes], None]) -> Stop: ...
    def seal(self, context: RunKey, body: bytes, shown: tuple[str, ...]) -> bytes: ...
    def unseal(self, context: RunKey, body: bytes) -> bytes: ...


class Services(Protocol):
    """Laws: each request goes to one of those who serve its subject; many are handled at once. `serve` gives how to stop:
    what runs gets so many seconds, then its callers are told to ask again."""

    async def serve(
        self, name: str, description: str, metadata: Mapping[str, str], endpoints: Sequence[Endpoint]
    ) -> Callable[[float], Awaitable[None]]: ...


class Operations(Protocol):
    """What an operator asks: is everything there, and does it work?"""

    async def plan(self) -> list[str]:
        """What `apply` would do, a line each."""
        ...

    async def apply(self) -> list[str]:
        """Create what is missing, change what differs; what was done."""
        ...

    async def check(self) -> list[tuple[str, bool, str]]:
        """(name, ok, detail and fix) of the server and of each thing that must be there."""
        ...


class Broker(Protocol):
    """All ports together, on one connection."""

    namespace: str
    url: str
    log: Log
    commands: Commands
    timers: Timers
    records: Records
    blobs: Blobs
    catalogue: Catalogue
    news: News
    presence: Presence
    triggers: Triggers
    schedules: Schedules
    calls: Calls
    services: Services
    operations: Operations

    @property
    def inline_bytes(self) -> int:
        """Larger bodies go to the blobs."""
        ...

    @property
    def connected(self) -> bool:
        """Whether the broker is reached right now."""
        ...

    async def provision(self) -> None: ...
    async def close(self) -> None: ...


class Codec(Protocol):
    """What seals values at rest. Laws: `open` of what `seal` gave, in the same context, is the data; in another one, or
    of anything else, it raises NoriaError. Neither blocks."""

    def seal(self, data: bytes, context: bytes) -> bytes: ...
    def open(self, data: bytes, context: bytes) -> bytes: ...
