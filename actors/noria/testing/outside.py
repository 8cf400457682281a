"""Triggers and schedules as the simulated server keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from noria.ports import Refused, StoredRecord, StoredSchedule, Tick
from noria.testing.consumers import Queue
from noria.testing.loop import NOWHERE
from noria.workflow.cron import Cron

if TYPE_CHECKING:
    from noria.testing.server import Server

ACK_SECONDS = 30.0
REMEMBERED_SECONDS = 120.0


class Published(NamedTuple):
    """A message from outside."""

    subject: str
    headers: Mapping[str, str]
    body: bytes
    time: float
    tick: Tick | None = None


class TriggerQueue(Queue):
    """Triggers, gone once acknowledged; a tick also when nobody took it in time."""

    def __init__(self, server: Server) -> None:
        self.published: dict[int, Published] = {}
        self._known: dict[str, tuple[float, int]] = {}  # id of a message -> until when it is remembered, its sequence
        super().__init__(server.loop, ACK_SECONDS, self.published.__contains__)
        self._server, self._sequence = server, 0

    def publish(
        self, subject: str, headers: Mapping[str, str], body: bytes, tick: Tick | None = None, ttl_seconds: float | None = None,
        id: str | None = None,
    ) -> int:  # fmt: skip
        until, known = self._known.get(id or "", (0.0, 0))
        if until > self._server.now():
            return known
        self._sequence += 1
        if id is not None:
            self._known[id] = self._server.now() + REMEMBERED_SECONDS, self._sequence
        self.published[self._sequence] = Published(subject, headers, body, self._server.now(), tick)
        if ttl_seconds is not None:
            self.loop.call_later(ttl_seconds, self.ack, self._sequence, context=NOWHERE)
        self.offer(self._sequence)
        return self._sequence

    def ack(self, sequence: int) -> None:
        self.published.pop(sequence, None)
        super().ack(sequence)


class ScheduleTable:
    """Schedules and what became of their ticks."""

    def __init__(self, server: Server) -> None:
        self._server, self._revision = server, 0
        self._stored: dict[tuple[str, str], StoredSchedule] = {}
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self.past: dict[tuple[str, str], StoredRecord] = {}

    def every(self, workflow: str | None) -> list[StoredSchedule]:
        return [s for s in self._stored.values() if workflow in (None, s.workflow)]

    def get(self, workflow: str, id: str) -> StoredSchedule | None:
        return self._stored.get((workflow, id))

    def put(
        self, workflow: str, id: str, body: bytes, revision: int, pattern: str | None, timezone: str, ttl_seconds: float
    ) -> int:
        """Raises Refused when the revision is another one."""
        found = self.get(workflow, id)
        if revision != (found.revision if found is not None else 0):
            raise Refused(f"schedule {workflow}.{id}")
        self.remove(workflow, id)
        self._revision += 1
        self._stored[workflow, id] = StoredSchedule(workflow, id, self._revision, body, pattern is not None)
        if pattern is not None:
            self._plan(workflow, id, Cron(pattern, timezone=timezone), ttl_seconds)
        return self._revision

    def remove(self, workflow: str, id: str) -> None:
        self._stored.pop((workflow, id), None)
        timer = self._timers.pop((workflow, id), None)
        if timer is not None:
            timer.cancel()

    def _plan(self, workflow: str, id: str, cron: Cron, ttl_seconds: float) -> None:
        now = self._server.now()
        due = cron.after(datetime.fromtimestamp(now, UTC))
        wait = due.timestamp() - now
        self._timers[workflow, id] = self._server.loop.call_later(wait, self._tick, workflow, id, cron, ttl_seconds, due, context=NOWHERE)

    def _tick(self, workflow: str, id: str, cron: Cron, ttl_seconds: float, due: datetime) -> None:
        tick = Tick(workflow, id, cron.after(due).timestamp())
        self._server.triggers.publish(f"trigger.{workflow}", {}, self._stored[workflow, id].body, tick, ttl_seconds)
        self._plan(workflow, id, cron, ttl_seconds)

    def put_past(self, workflow: str, id: str, body: bytes, revision: int) -> int:
        """Raises Refused when the revision is another one."""
        found = self.past.get((workflow, id))
        if revision != (found.revision if found is not None else 0):
            raise Refused(f"past of {workflow}.{id}")
        self._revision += 1
        self.past[workflow, id] = StoredRecord(self._revision, body)
        return self._revision


def fits(wanted: str, subject: str) -> bool:
    """Whether a NATS subject matches a pattern with * and >."""
    parts, tokens = wanted.split("."), subject.split(".")
    if parts[-1] == ">":
        return len(tokens) >= len(parts) and fits(".".join(parts[:-1]), ".".join(tokens[: len(parts) - 1])) if len(parts) > 1 else True
    return len(parts) == len(tokens) and all(p in ("*", t) for p, t in zip(parts, tokens, strict=True))
