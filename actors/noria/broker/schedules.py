"""Schedules as NATS message schedules: the server itself sends the ticks."""

from __future__ import annotations

from noria.broker.connection import Connection
from noria.broker.reading import Message, last, purge, read
from noria.contract.subjects import Subjects
from noria.ports import StoredRecord, StoredSchedule


class NatsSchedules:
    """ports.Schedules: the definition is the schedule message itself (paused: a plain message, which removes the
    schedule); what became of its ticks is in the catalogue's bucket."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects

    async def every(self, workflow: str | None = None) -> list[StoredSchedule]:
        found = await read(self.connection, self.subjects.triggers, self.subjects.cron(workflow or "*", "*"))
        return [self._stored(message) for message in found]

    async def get(self, workflow: str, id: str) -> StoredSchedule | None:
        found = await last(self.connection, self.subjects.triggers, self.subjects.cron(workflow, id))
        return None if found is None else self._stored(found)

    def _stored(self, message: Message) -> StoredSchedule:
        _, _, workflow, id = message.subject.split(".", 3)
        return StoredSchedule(workflow, id, message.sequence, message.body, "Nats-Schedule" in message.headers)

    async def put(
        self, workflow: str, id: str, body: bytes, revision: int, pattern: str | None, timezone: str = "UTC", ttl_seconds: float = 1.0
    ) -> int:
        headers = "Nats-Rollup: sub\r\n"
        if pattern is not None:
            headers = (
                f"Nats-Schedule: {pattern}\r\nNats-Schedule-Time-Zone: {timezone}\r\nNats-Schedule-TTL: {max(1, int(ttl_seconds))}s\r\n"
                f"Nats-Schedule-Target: {self.subjects.trigger(workflow)}\r\n"
            )
        return await self.connection.append(self.subjects.cron(workflow, id), body, revision, headers.encode())

    async def remove(self, workflow: str, id: str) -> None:
        await purge(self.connection, self.subjects.triggers, self.subjects.cron(workflow, id))

    async def past(self, workflow: str, id: str) -> StoredRecord | None:
        found = await last(self.connection, f"KV_{self.subjects.catalogue}", self.subjects.past(workflow, id))
        return None if found is None else StoredRecord(found.sequence, found.body)

    async def put_past(self, workflow: str, id: str, body: bytes, revision: int) -> int:
        return await self.connection.append(self.subjects.past(workflow, id), body, revision)
