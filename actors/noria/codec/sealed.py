"""The ports that carry values, with a codec in between. Without one none of this is there, and nothing is paid for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from noria.codec.sealing import COMMAND, NEWS, SCHEDULE, Sealing
from noria.errors import NoriaError, ValueUnavailable
from noria.limits import STEP_BACK_SECONDS
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


def seal(broker: Broker, codec: Codec) -> None:
    """From now on everything that is stored by this broker is sealed, and what comes is opened."""
    sealing, ports = Sealing(codec), cast(Any, broker)
    ports.log, ports.commands = SealedLog(broker.log, sealing), SealedCommands(broker.commands, sealing)
    ports.records, ports.blobs = SealedRecords(broker.records, sealing), SealedBlobs(broker.blobs, sealing)
    ports.news, ports.triggers = SealedNews(broker.news, sealing), SealedTriggers(broker.triggers, sealing)
    ports.schedules, ports.calls = SealedSchedules(broker.schedules, sealing), SealedCalls(broker.calls, sealing)


KINDS = {"in": "command", "run": "fact", "live": "live event"}


def _open(sealing: Sealing, entry: Stored) -> Stored:
    """Raises ValueUnavailable."""
    opened = sealing.open_fields if entry.kind == "in" else sealing.open_events
    with _told_of(f"{KINDS[entry.kind]} {entry.sequence}", entry.actor.tree):
        return entry._replace(body=opened(entry.actor.tree, entry.body))


def _open_live(sealing: Sealing, entry: Stored) -> Stored | None:
    """The same of what may be lost."""
    try:
        return _open(sealing, entry)
    except ValueUnavailable as error:
        if entry.kind != "live":
            raise
        return log.warning("%s", error)


@contextmanager
def _told_of(what: str, run: RunKey) -> Generator[None]:
    """What does not open is told with its place."""
    try:
        yield
    except NoriaError as error:
        raise ValueUnavailable(f"{what} of run {run.run!r} of workflow {run.workflow!r}: {error}") from error


def _leave(what: str, given: Delivery | Trigger, error: NoriaError) -> None:
    """To others, who perhaps have the key; longer each time."""
    log.error("%s is left to others: %s", what, error)
    given.hand_back(min(STEP_BACK_SECONDS, 0.25 * 2 ** min(given.count, 10)))


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

    async def read(self, actor: ActorKey, after: int = 0, *known: Any) -> list[Stored]:
        return [_open(self._sealing, entry) for entry in await self._inner.read(actor, after, *known)]

    async def read_tree(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        return [_open(self._sealing, entry) for entry in await self._inner.read_tree(actor, after)]


class SealedLog(Reads):
    def append(self, actor: ActorKey, body: bytes, expected: int, late: Late | None = None) -> asyncio.Future[int]:
        return self._inner.append(actor, self._sealing.events(actor.tree, body), expected, late)

    def publish_live(self, actor: ActorKey, body: bytes) -> None:
        self._inner.publish_live(actor, self._sealing.events(actor.tree, body))

    async def tell_live(self, actor: ActorKey, body: bytes) -> None:
        await self._inner.tell_live(actor, self._sealing.events(actor.tree, body))

    async def read_live(self, run: RunKey, after: int = 0) -> list[Stored]:
        found = [_open_live(self._sealing, entry) for entry in await self._inner.read_live(run, after)]
        return [entry for entry in found if entry is not None]

    async def follow(self, run: RunKey, after: int = 0) -> AsyncGenerator[Stored, None]:
        async for entry in self._inner.follow(run, after):
            opened = _open_live(self._sealing, entry)
            if opened is not None:
                yield opened


class SealedCommands(Reads):
    def send(self, actor: ActorKey, body: bytes, expected: int | None = None) -> asyncio.Future[int]:
        return self._inner.send(actor, self._sealing.fields(actor.tree, body, COMMAND), expected)

    async def receive(
        self, workflow: str, lease_seconds: float, on_delivery: Callable[[Delivery], None], room: Callable[[], int]
    ) -> Receiver:
        def opened(delivery: Delivery) -> None:
            try:
                delivery.body = self._sealing.open_fields(delivery.actor.tree, delivery.body)
            except NoriaError as error:
                return _leave(f"command {delivery.sequence} of run {delivery.actor.run}", delivery, error)
            return on_delivery(delivery)

        return await self._inner.receive(workflow, lease_seconds, opened, room)


class SealedRecords(Through):
    async def get(self, run: RunKey) -> StoredRecord | None:
        found = await self._inner.get(run)
        with _told_of("the record", run):
            return None if found is None else found._replace(body=self._sealing.open_fields(run, found.body))

    def put(self, run: RunKey, body: bytes, revision: int, summary: str, ttl_seconds: float | None = None) -> asyncio.Future[int]:
        return self._inner.put(run, self._sealing.fields(run, body, ()), revision, summary, ttl_seconds)


class SealedBlobs(Through):
    """No longer idempotent by content: the same value sealed twice is two blobs of its run."""

    async def put(self, run: RunKey, data: bytes, name: str | None = None) -> str:
        return await self._inner.put(run, self._sealing.blob(run, data), name)

    async def get(self, run: RunKey, name: str) -> bytes:
        data = await self._inner.get(run, name)
        with _told_of(f"the stored value {name}", run):
            return self._sealing.open_blob(run, data)


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
                except NoriaError as error:
                    return _leave(f"a tick of schedule {tick.schedule}", trigger, error)
            return await on_trigger(trigger)

        return await self._inner.receive(opened)

    async def bury(self, kind: str, workflow: str, body: bytes, headers: Mapping[str, str], reason: str) -> None:
        await self._inner.bury(kind, workflow, self._sealing.blob(RunKey(workflow, ""), body), headers, reason)

    async def dead(self, after: int = 0, limit: int = 100, *, kind: str | None = None, workflow: str | None = None) -> Sequence[Letter]:
        letters = await self._inner.dead(after, limit, kind=kind, workflow=workflow)
        return [self._opened(letter) for letter in letters]

    def _opened(self, letter: Letter) -> Letter:
        """One that does not open is listed all the same."""
        try:
            return letter._replace(body=self._sealing.open_blob(RunKey(letter.workflow, ""), letter.body))
        except NoriaError as error:
            return letter._replace(body=b"", cut=True, reason=f"{letter.reason} (its body does not open: {error})")


class SealedSchedules(Through):
    async def every(self, workflow: str | None = None) -> list[StoredSchedule]:
        return [self._open(schedule) for schedule in await self._inner.every(workflow)]

    async def get(self, workflow: str, id: str) -> StoredSchedule | None:
        found = await self._inner.get(workflow, id)
        return None if found is None else self._open(found)

    def _open(self, schedule: StoredSchedule) -> StoredSchedule:
        """One that does not open stays sealed: who declares it stores it anew."""
        try:
            body = self._sealing.open_fields(_schedule(schedule.workflow, schedule.id), schedule.body)
        except NoriaError as error:
            log.warning("schedule %s of workflow %s: %s", schedule.id, schedule.workflow, error)
            body = schedule.body
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
