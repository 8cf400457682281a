"""What a NATS server keeps and does, in memory: one stream of commands, facts and live events, schedules, buckets.

Everything here happens at once and in order; the way to it, with its delays and losses, is `wire.py`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping
from typing import NamedTuple

from noria import clock
from noria.errors import NoriaError
from noria.limits import LIVE_TTL_SECONDS, LOG_TTL_SECONDS, MAX_AGE_SECONDS
from noria.ports import ActorKey, Answer, Letter, Refused, RunKey, Stored, StoredRecord
from noria.testing.consumers import Consumer
from noria.testing.loop import NOWHERE, current_process
from noria.testing.outside import Published, ScheduleTable, TriggerQueue, fits

MAX_PAYLOAD = 1024 * 1024
AGES = {"in": MAX_AGE_SECONDS, "run": LOG_TTL_SECONDS, "live": LIVE_TTL_SECONDS}
NEVER = float("inf")


class Record(NamedTuple):
    """A key's last value."""

    revision: int
    body: bytes
    summary: str
    expires: float


NO_RECORD = Record(0, b"", "", NEVER)


class Server:
    """The state of one namespace. `log_seconds`: how long facts are kept; `replicas`: whether reads may lag behind.
    `watchers` hear of every message."""

    def __init__(self, log_seconds: float = LOG_TTL_SECONDS, replicas: bool = False) -> None:
        self.loop, self.replicas = asyncio.get_running_loop(), replicas
        self.ages: dict[str, float] = {**AGES, "run": log_seconds}
        self.sequence = self.revision = 0
        self.messages: dict[int, Stored] = {}
        self.checked: dict[int, int] = {}  # command -> the one before it, where its sender had that checked
        self.subjects: dict[tuple[str, ActorKey], list[int]] = {}
        self.consumers: dict[str, Consumer] = {}
        self.triggers, self.schedules = TriggerQueue(self), ScheduleTable(self)
        self.bindings: dict[tuple[str, str], list[Callable[[Published], None]]] = {}  # (subject, queue group) -> members
        self.served: dict[str, list[Callable[[bytes, Callable[[Answer | None], None]], None]]] = {}
        self.listeners: dict[str, list[Callable[[str, bytes], None]]] = {}
        self.inboxes = 0
        self.timers: dict[tuple[ActorKey, str], asyncio.TimerHandle] = {}
        self.records: dict[RunKey, Record] = {}
        self.former: dict[RunKey, list[tuple[float, Record]]] = {}  # what was replaced, and until when it stood
        self.blobs: dict[tuple[RunKey, str], bytes] = {}
        self.catalogue: dict[str, bytes] = {}
        self.dead: list[Letter] = []
        self.watchers: list[Callable[[Stored], None]] = []
        self.news: dict[tuple[str, str], list[Callable[[RunKey, bytes], None]]] = {}  # (kind, workflow) -> subscribers
        self.hosts: dict[str, list[Callable[[bytes, Callable[[bytes], None]], None]]] = {}  # name -> who answers
        self._expiries: list[tuple[float, int]] = []

    def now(self) -> float:
        """The server's own wall clock, whoever's callback reads it."""
        return clock.now() - current_process().skew

    # The stream -------------------------------------------------------------------------------------------------

    def append(self, kind: str, actor: ActorKey, body: bytes, expected: int | None) -> int:
        """Store a message. Raises Refused when the subject's last sequence is not the expected one."""
        if len(body) > MAX_PAYLOAD:
            raise NoriaError(f"{len(body)} bytes exceed the server's max_payload of {MAX_PAYLOAD} bytes")
        if expected is not None and expected != self.last_sequence(kind, actor):
            raise Refused(f"{kind} {actor}")
        self.sequence += 1
        entry = Stored(self.sequence, kind, actor, body, self.now())
        self.messages[self.sequence] = entry
        self.subjects.setdefault((kind, actor), []).append(self.sequence)
        heapq.heappush(self._expiries, (entry.time + self.ages[kind], self.sequence))
        if kind == "in" and expected is not None:
            self.checked[self.sequence] = expected
        if kind == "in" and actor.workflow in self.consumers:
            self.consumers[actor.workflow].offer(self.sequence)
        for watch in list(self.watchers):
            watch(entry)
        return self.sequence

    def last_sequence(self, kind: str, actor: ActorKey) -> int:
        self.age()
        found = self.subjects.get((kind, actor))
        return found[-1] if found else 0

    def last(self, kind: str, actor: ActorKey, lag: float = 0.0) -> Stored | None:
        if lag:
            return next(reversed(self.read(kind, actor, 0, lag=lag)), None)
        sequence = self.last_sequence(kind, actor)
        return self.messages[sequence] if sequence else None

    def read(self, kind: str, actor: ActorKey, after: int, below: bool = False, lag: float = 0.0) -> list[Stored]:
        """An actor's messages behind `after`; with `below` those of the actors under it as well. As a replica knows them
        that is `lag` seconds behind."""
        self.age()
        keys = [(kind, actor)]
        if below:
            keys = [k for k in self.subjects if k[0] == kind and is_below(k[1], actor)]
        found = [self.messages[s] for s in sorted(s for k in keys for s in self.subjects.get(k, ()) if s > after)]
        return [entry for entry in found if entry.time <= self.now() - lag] if lag else found

    def started(self) -> dict[RunKey, int]:
        """Every run with a command to its root, and how many it has."""
        self.age()
        return {actor.tree: len(sent) for (kind, actor), sent in self.subjects.items() if kind == "in" and not actor.path}

    def purge(self, run: RunKey) -> None:
        for key in [k for k in self.subjects if k[1].tree == run]:
            for sequence in self.subjects.pop(key):
                del self.messages[sequence]
        self.clear_timers(run)

    def age(self) -> None:
        """Remove what is older than its kind may become."""
        now = self.now()
        while self._expiries and self._expiries[0][0] <= now:
            entry = self.messages.pop(heapq.heappop(self._expiries)[1], None)
            if entry is not None:
                left = self.subjects[entry.kind, entry.actor]
                left.remove(entry.sequence)
                if not left:
                    del self.subjects[entry.kind, entry.actor]

    # Deliveries -------------------------------------------------------------------------------------------------

    def consumer(self, workflow: str, lease_seconds: float) -> Consumer:
        """The workflow's consumer, made with the lease of who came first."""
        found = self.consumers.get(workflow)
        if found is None:
            found = self.consumers[workflow] = Consumer(self, lease_seconds)
            for entry in self.messages.values():
                if entry.kind == "in" and entry.actor.workflow == workflow:
                    found.offer(entry.sequence)
        return found

    # Timers -----------------------------------------------------------------------------------------------------

    def set_timer(self, actor: ActorKey, name: str, at: float, body: bytes) -> None:
        old = self.timers.pop((actor, name), None)
        if old is not None:
            old.cancel()
        self.timers[actor, name] = self.loop.call_later(at - self.now(), self._fire, actor, name, body, context=NOWHERE)

    def _fire(self, actor: ActorKey, name: str, body: bytes) -> None:
        del self.timers[actor, name]
        self.append("in", ActorKey(*actor.tree), body, None)

    def clear_timers(self, run: RunKey) -> None:
        for key in [k for k in self.timers if k[0].tree == run]:
            self.timers.pop(key).cancel()

    # Buckets ----------------------------------------------------------------------------------------------------

    def record(self, run: RunKey, lag: float = 0.0) -> StoredRecord | None:
        """`lag`: as a replica knows it that is so many seconds behind."""
        for until, former in self.former.get(run, ()) if lag else ():
            if until > self.now() - lag:
                return StoredRecord(former.revision, former.body) if former.revision else None
        found = self.records.get(run)
        if found is None or found.expires <= self.now():
            self.records.pop(run, None)
            return None
        return StoredRecord(found.revision, found.body)

    def put_record(self, run: RunKey, body: bytes, revision: int | None, summary: str, ttl_seconds: float | None) -> int:
        """Raises Refused when the key's revision is another one; with None it is not looked at."""
        if len(body) + len(summary) > MAX_PAYLOAD:
            raise NoriaError(f"{len(body)} bytes exceed the server's max_payload of {MAX_PAYLOAD} bytes")
        found = self.record(run)
        if revision is not None and revision != (found.revision if found is not None else 0):
            raise Refused(f"record {run}")
        self.revision += 1
        expires = NEVER if ttl_seconds is None else self.now() + max(1.0, ttl_seconds)
        if self.replicas:
            self.former.setdefault(run, []).append((self.now(), self.records.get(run, NO_RECORD)))
        self.records[run] = Record(self.revision, body, summary, expires)
        return self.revision

    def summaries(self, workflow: str | None) -> list[tuple[RunKey, str]]:
        for run in list(self.records):
            self.record(run)
        return [(k, r.summary) for k, r in self.records.items() if r.summary and workflow in (None, k.workflow)]

    # Outside ----------------------------------------------------------------------------------------------------

    def publish(self, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        """A core message on a subject of the user's: to one member of each queue group that listens."""
        for (wanted, _), members in self.bindings.items():
            if members and fits(wanted, subject):
                members.append(members.pop(0))
                members[-1](Published(subject, headers, body, 0.0))

    def call(self, subject: str, body: bytes, settle: Callable[[Answer | None], None]) -> None:
        """A request to one of those who serve the subject; None at once when there is nobody."""
        members = self.served.get(subject)
        if not members:
            return settle(None)
        members.append(members.pop(0))
        return members[-1](body, settle)

    def tell(self, subject: str, body: bytes) -> None:
        """A message to whoever listens."""
        for hears in [hear for members in self.listeners.values() for hear in members]:
            hears(subject, body)

    def bury(self, kind: str, workflow: str, reason: str, headers: Mapping[str, str], body: bytes) -> None:
        sequence, cut = len(self.dead) + 1, len(body) + sum(len(k) + len(v) for k, v in headers.items()) > MAX_PAYLOAD - 64
        kept = body[: MAX_PAYLOAD - 64 - len(reason)] if cut else body
        self.dead.append(Letter(sequence, kind, workflow, reason, {} if cut else headers, kept, self.now(), cut))


def is_below(actor: ActorKey, top: ActorKey) -> bool:
    """Whether an actor is `top` or under it."""
    return actor.tree == top.tree and (not top.path or actor.path == top.path or actor.path.startswith(f"{top.path}."))
