"""What wants to start runs: triggers, ticks of schedules, events on subjects of the user's; and the dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from noria.limits import MAX_REASON, TRIGGERS_AT_ONCE
from noria.ports import Letter, StoredRecord, StoredSchedule, Trigger
from noria.testing.memory.commands import MemoryReceiver
from noria.testing.memory.port import Port
from noria.testing.outside import Published, TriggerQueue
from noria.testing.wire import Wire, ask, store

OnTrigger = Callable[[Trigger], Awaitable[None]]


class MemoryTrigger:
    """ports.Trigger; without a queue it is a core message, which nobody can hand back."""

    def __init__(self, wire: Wire, queue: TriggerQueue | None, sequence: int, count: int, message: Published) -> None:
        self._wire, self._queue, self.sequence, self.count = wire, queue, sequence, count
        self.subject, self.body, self.time, self.tick = message.subject, message.body, message.time, message.tick
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in message.headers.items()}

    def ack(self) -> None:
        queue = self._queue
        if queue is not None:
            self._wire.send("trigger ack", lambda: queue.ack(self.sequence))

    def hand_back(self, delay: float = 0.0) -> None:
        queue = self._queue
        if queue is not None:
            self._wire.send("trigger hand back", lambda: queue.hand_back(self.sequence, delay))


class _Work:
    """The handling of triggers under way."""

    def __init__(self, on_trigger: OnTrigger) -> None:
        self._on_trigger = on_trigger
        self.tasks: set[asyncio.Task[None]] = set()
        self.done: Callable[[], None] | None = None

    def begin(self, trigger: MemoryTrigger) -> None:
        task = asyncio.ensure_future(self._handle(trigger))
        self.tasks.add(task)
        task.add_done_callback(self._handled)

    async def _handle(self, trigger: MemoryTrigger) -> None:
        try:
            await self._on_trigger(trigger)
        except Exception:
            trigger.hand_back(1.0)

    def _handled(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if self.done is not None:
            self.done()


class _Bound:
    """ports.Receiver of a core subscription."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave

    def top_up(self) -> None:
        """Core messages come as they come."""

    async def close(self) -> None:
        self._leave()


class MemoryTriggers(Port):
    """ports.Triggers. No stream of the user's is simulated: bindings get core messages (`Server.publish`)."""

    async def receive(self, on_trigger: OnTrigger) -> MemoryReceiver:
        queue, work = self.server.triggers, _Work(on_trigger)

        def deliver(sequence: int, count: int) -> None:
            message = queue.published.get(sequence)
            if message is not None:
                work.begin(MemoryTrigger(self.wire, queue, sequence, count, message))

        receiver = MemoryReceiver(self.wire, queue, lambda: TRIGGERS_AT_ONCE - len(work.tasks), deliver)
        work.done = receiver.top_up
        receiver.top_up()
        return receiver

    async def bind(self, on: str, stream: str | None, consumer: str, on_trigger: OnTrigger) -> _Bound:
        work, members = _Work(on_trigger), self.server.bindings.setdefault((on, consumer), [])

        def came(message: Published) -> None:
            self.wire.receive("event", lambda: work.begin(MemoryTrigger(self.wire, None, 0, 1, message)))

        def leave() -> None:
            if came in members:
                members.remove(came)

        await ask(self.wire, "bind", lambda: members.append(came))
        self.wire.closed.append(leave)
        return _Bound(leave)

    async def publish(self, workflow: str, body: bytes, headers: Mapping[str, str], id: str | None = None) -> None:
        subject = f"trigger.{workflow}"
        await ask(self.wire, "publish", lambda: self.server.triggers.publish(subject, headers, body, id=id))

    async def bury(self, kind: str, workflow: str, body: bytes, headers: Mapping[str, str], reason: str) -> None:
        lines = {k.lower(): v.replace("\r", " ").replace("\n", " ").strip() for k, v in headers.items()}
        text = " ".join(reason.split())[:MAX_REASON]
        await ask(self.wire, "bury", lambda: self.server.bury(kind, workflow, text, lines, body))

    async def dead(
        self, after: int = 0, limit: int = 100, *, kind: str | None = None, workflow: str | None = None
    ) -> Sequence[Letter]:
        def letters() -> list[Letter]:
            found = [letter for letter in self.server.dead if letter.sequence > after]
            return [d for d in found if kind in (None, d.kind) and workflow in (None, d.workflow)][:limit]

        return await ask(self.wire, "dead", letters)


class MemorySchedules(Port):
    """ports.Schedules."""

    async def every(self, workflow: str | None = None) -> list[StoredSchedule]:
        return await ask(self.wire, "schedules", lambda: self.server.schedules.every(workflow))

    async def get(self, workflow: str, id: str) -> StoredSchedule | None:
        return await ask(self.wire, "schedule get", lambda: self.server.schedules.get(workflow, id))

    async def put(
        self, workflow: str, id: str, body: bytes, revision: int, pattern: str | None, timezone: str = "UTC", ttl_seconds: float = 1.0
    ) -> int:
        schedules = self.server.schedules

        def own() -> int | None:
            found = schedules.get(workflow, id)
            return found.revision if found is not None and found.body == body else None

        return await store(
            self.wire, "schedule put", lambda: schedules.put(workflow, id, body, revision, pattern, timezone, ttl_seconds), own
        )

    async def remove(self, workflow: str, id: str) -> None:
        await ask(self.wire, "schedule remove", lambda: self.server.schedules.remove(workflow, id))

    async def past(self, workflow: str, id: str) -> StoredRecord | None:
        return await ask(self.wire, "past get", lambda: self.server.schedules.past.get((workflow, id)))

    async def put_past(self, workflow: str, id: str, body: bytes, revision: int) -> int:
        schedules = self.server.schedules

        def own() -> int | None:
            found = schedules.past.get((workflow, id))
            return found.revision if found is not None and found.body == body else None

        return await store(self.wire, "past put", lambda: schedules.put_past(workflow, id, body, revision), own)
