"""Facts and live events in the RUNS stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from noria.broker.connection import Connection
from noria.broker.following import follow
from noria.broker.reading import Message, last, purge, read
from noria.contract.subjects import Subjects
from noria.errors import NoriaError, NotPermitted
from noria.limits import LIVE_TTL_SECONDS, LIVE_WINDOW, LIVE_WINDOW_BYTES, LOG_TTL_SECONDS
from noria.ports import ActorKey, Late, RunKey, Stored

log = logging.getLogger("noria.broker")
_ONE = b"Nats-TTL: %ds\r\nContent-Type: application/cloudevents+json\r\n" % LOG_TTL_SECONDS
_BATCH = b"Nats-TTL: %ds\r\nContent-Type: application/cloudevents-batch+json\r\n" % LOG_TTL_SECONDS
_LIVE = b"Nats-TTL: %ds\r\nContent-Type: application/cloudevents+json\r\n" % LIVE_TTL_SECONDS


def stored(subjects: Subjects, message: Message) -> Stored:
    kind, actor = subjects.parse(message.subject)
    return Stored(message.sequence, kind, actor, message.body, message.time)


class NatsLog:
    """ports.Log on JetStream."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects
        self._told = self._told_bytes = 0  # since the last one that waited

    def append(self, actor: ActorKey, body: bytes, expected: int, late: Late | None = None) -> asyncio.Future[int]:
        headers = _BATCH if body.startswith(b"[") else _ONE
        return self.connection.append(self.subjects.of("run", actor), body, expected, headers, late)

    def publish_live(self, actor: ActorKey, body: bytes) -> None:
        self.connection.publish(self.subjects.of("live", actor), body, _LIVE)

    async def tell_live(self, actor: ActorKey, body: bytes) -> None:
        self._told, self._told_bytes = self._told + 1, self._told_bytes + len(body)
        if self._told < LIVE_WINDOW and self._told_bytes < LIVE_WINDOW_BYTES:
            return self.publish_live(actor, body)
        self._told = self._told_bytes = 0
        try:  # it is stored in its turn: by then so are those before it
            await self.connection.append(self.subjects.of("live", actor), body, None, _LIVE)
        except NoriaError as error:
            log.warning("a live event of run %s is lost: %s", actor.run, error)

    async def last(self, actor: ActorKey) -> Stored | None:
        found = await last(self.connection, self.subjects.runs, self.subjects.of("run", actor))
        return None if found is None else stored(self.subjects, found)

    async def read(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        found = await read(self.connection, self.subjects.runs, self.subjects.of("run", actor), after)
        return [stored(self.subjects, m) for m in found]

    async def confirm(self, actor: ActorKey, fact: int, command: int) -> bool:
        if not self.connection.replicated:
            return True
        subjects = (self.subjects.of("run", actor), fact), (self.subjects.of("in", actor), command)
        return all(await asyncio.gather(*(self._is_newest(subject, known) for subject, known in subjects)))

    async def _is_newest(self, subject: str, known: int) -> bool:
        """Asks the leader; who may not ask has to believe what he read."""
        try:
            found = (await self.connection.api(f"STREAM.MSG.GET.{self.subjects.runs}", {"last_by_subj": subject})).get("message")
        except NotPermitted:
            return True
        return found is None or int(found["seq"]) <= known

    async def read_tree(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        found = await read(self.connection, self.subjects.runs, self.subjects.below("run", actor), after)
        return [stored(self.subjects, m) for m in found]

    async def read_live(self, run: RunKey, after: int = 0) -> list[Stored]:
        found = await read(self.connection, self.subjects.runs, self.subjects.below("live", ActorKey(*run)), after)
        return [stored(self.subjects, m) for m in found]

    async def purge(self, run: RunKey) -> None:
        key = ActorKey(*run)
        for kind in ("timer", "in", "run", "live"):  # a timer must not fire into what was purged
            await purge(self.connection, self.subjects.runs, self.subjects.below(kind, key))

    def follow(self, run: RunKey, after: int = 0) -> AsyncGenerator[Stored, None]:
        return follow(self.connection, self.subjects, run, after)
