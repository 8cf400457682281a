"""The ports that carry values, with a codec in between. Without one none of this is there, and nothing is paid for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from noria.codec.sealing import COMMAND, NEWS, SCHEDULE, Sealing
from noria.errors import NoriaError
from noria.ports import (
    ActorKey,
    Broker,
    Codec,
    Delivery,
    Late,
    Letter,
    Receiver,
    RunKey,
    Stored,
    StoredRecord,
    StoredSchedule,
    Trigger,
)  # fmt: skip

log = logging.getLogger("noria.codec")
AGAIN_SECONDS = 5.0


def seal(broker: Broker, codec: Codec) -> None:
    """From now on everything that is stored by this broker is sealed, and what comes is opened."""
    sealing, ports = Sealing(codec), cast(Any, broker)
    ports.log, ports.commands = SealedLog(broker.log, sealing), SealedCommands(broker.commands, sealing)
    ports.records, ports.blobs = SealedRecords(broker.records, sealing), SealedBlobs(broker.blobs, sealing)
    ports.news, ports.triggers = SealedNews(broker.news, sealing), SealedTriggers(broker.triggers, sealing)
    ports.schedules, ports.calls = SealedSchedules(broker.schedules, sealing), SealedCalls(broker.calls, sealing)


def _open(sealing: Sealing, entry: Stored) -> Stored:
    opened = sealing.open_fields if entry.kind == "in" else sealing.open_events
    return entry._replace(body=opened(entry.actor.tree, entry.body))


class Through:
    """What is not named in a port here carries no values, and goes through."""

    def __init__(self, inner: Any, sealing: Sealing) -> None:
        self._inner, self._sealing = inner, sealing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Reads(Through):
    """What an actor and its tree have in a stream, opened."""

    async def last(self, actor: ActorKey) -> Stored | None:
        found = await self._inner.last(actor)
        return None if found is None else _open(self._sealing, found)

    async def read(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        return [_open(self._sealing, entry) for entry in await self._inner.read(actor, after)]

    async def read_tree(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        return [_open(self._sealing, entry) for entry in await self._inner.read_tree(actor, after)]


class SealedLog(Reads):
    def append(self, actor: ActorKey, body: bytes, expected: int, late: Late | None = None) -> asyncio.Future[int]:
        return self._inner.append(actor, self._sealing.events(actor.tree, body), expected, late)

    def publish_live(self, actor: ActorKey, body: bytes) -> None:
        self._inner.publish_live(actor, self._sealing.events(actor.tree, body))

    async def read_live(self, run: RunKey, after: int = 0) -> list[Stored]:
        return [_open(self._sealing, entry) for entry in await self._inner.read_live(run, after)]

    async def follow(self, run: RunKey, after: int = 0) -> AsyncGenerator[Stored, None]:
        async for entry in self._inner.follow(run, after):
            yield _open(self._sealing, entry)


class SealedCommands(Reads):
    def send(self, actor: ActorKey, body: bytes, expected: int | None = None) -> asyncio.Future[int]:
        return self._inner.send(actor, self._sealing.fields(actor.tree, body, COMMAND), expected)

    async def receive(
        self, workflow: str, lease_seconds: float, on_delivery: Callable[[Delivery], None], room: Callable[[], int]
    ) -> Receiver:
        def opened(delivery: Delivery) -> None:
            try:
                delivery.body = self._sealing.open_fields(delivery.actor.tree, delivery.body)
            except NoriaError as error:  # perhaps another worker has the key
                log.error("a command of run %s is left to others: %s", delivery.actor.run, error)
                return delivery.hand_back(AGAIN_SECONDS)
            return on_delivery(delivery)

        return await self._inner.receive(workflow, lease_seconds, opened, room)


class SealedRecords(Through):
    async def get(self, run: RunKey) -> StoredRecord | None:
        found = await self._inner.get(run)
        return None if found is None else found._replace(body=self._sealing.open_fields(run, found.body))

    def put(self, run: RunKey, body: bytes, revision: int, summary: str, ttl_seconds: float | None = None) -> asyncio.Future[int]:
        return self._inner.put(run, self._sealing.fields(run, body, ()), revision, summary, ttl_seconds)


class SealedBlobs(Through):
    """No longer idempotent by content: the same value sealed twice is two blobs of its run."""

    async def put(self, run: RunKey, data: bytes, name: str | None = None) -> str:
        return await self._inner.put(run, self._sealing.blob(run, data), name)

    async def get(self, run: RunKey, name: str) -> bytes:
        return self._sealing.open_blob(run, await self._inner.get(run, name))


class SealedNews(Through):
    def rest(self, run: RunKey, status: str, body: bytes) -> None:
        self._inner.rest(run, status, self._sealing.fields(run, body, NEWS))

    async def on_rests(self, workflow: str, callback: Callable[[RunKey, bytes], None]) -> Callable[[], Awaitable[None]]:
        def opened(run: RunKey, body: bytes) -> None:
            try:
                body = self._sealing.open_fields(run, body)
            except NoriaError as error:  # news are hints: whoever waits reads for himself, and is told what is wrong
                return log.debug("news of run %s: %s", run.run, error)
            return callback(run, body)

        return await self._inner.on_rests(workflow, opened)


class SealedTriggers(Through):
    """Triggers come from outside and are not sealed. Ticks bring back the definition of their schedule, which is; dead letters
    may hold a command or a record, and are."""

    async def receive(self, on_trigger: Callable[[Trigger], Awaitable[None]]) -> Receiver:
        async def opened(trigger: Trigger) -> None:
            if (tick := trigger.tick) is not None:
                try:
                    trigger.body = self._sealing.open_fields(_schedule(tick.workflow, tick.schedule), trigger.body)
                except NoriaError as error:  # perhaps another worker has the key
                    log.error("a tick of schedule %s is left to others: %s", tick.schedule, error)
                    return trigger.hand_back(AGAIN_SECONDS)
            return await on_trigger(trigger)

        return await self._inner.receive(opened)

    async def bury(self, kind: str, workflow: str, body: bytes, headers: Mapping[str, str], reason: str) -> None:
        await self._inner.bury(kind, workflow, self._sealing.blob(RunKey(workflow, ""), body), headers, reason)

    async def dead(self, after: int = 0, limit: int = 100, *, kind: str | None = None, workflow: str | None = None) -> Sequence[Letter]:
        letters = await self._inner.dead(after, limit, kind=kind, workflow=workflow)
        return [letter._replace(body=self._sealing.open_blob(RunKey(letter.workflow, ""), letter.body)) for letter in letters]


class SealedSchedules(Through):
    async def every(self, workflow: str | None = None) -> list[StoredSchedule]:
        return [self._open(schedule) for schedule in await self._inner.every(workflow)]

    async def get(self, workflow: str, id: str) -> StoredSchedule | None:
        found = await self._inner.get(workflow, id)
        return None if found is None else self._open(found)

    def _open(self, schedule: StoredSchedule) -> StoredSchedule:
        body = self._sealing.open_fields(_schedule(schedule.workflow, schedule.id), schedule.body)
        return schedule._replace(body=body, stale=body is schedule.body)

    async def put(
        self, workflow: str, id: str, body: bytes, revision: int, pattern: str | None, timezone: str = "UTC", ttl_seconds: float = 1.0
    ) -> int:
        sealed = self._sealing.fields(_schedule(workflow, id), body, SCHEDULE)
        return await self._inner.put(workflow, id, sealed, revision, pattern, timezone, ttl_seconds)


def _schedule(workflow: str, id: str) -> RunKey:
    return RunKey(workflow, f"@{id}")


class SealedCalls(Through):
    """What is asked and answered otherwise, by the control API, comes from outside and is not sealed."""

    seals = True

    def seal(self, context: RunKey, body: bytes, shown: tuple[str, ...]) -> bytes:
        return self._sealing.fields(context, body, shown)

    def unseal(self, context: RunKey, body: bytes) -> bytes:
        return self._sealing.open_fields(context, body)
