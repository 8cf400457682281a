"""Timers, news and triggers: what comes without being asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from noria.ports import ActorKey, RunKey, Trigger
from noria.testing.consumers import Queue
from noria.testing.memory.commands import MemoryReceiver
from noria.testing.memory.port import Port
from noria.testing.server import Server
from noria.testing.wire import Wire, ask

TRIGGERS_AT_ONCE = 64


class MemoryTimers(Port):
    """ports.Timers."""

    async def set(self, actor: ActorKey, name: str, at: float, body: bytes) -> None:
        await ask(self.wire, "timer set", lambda: self.server.set_timer(actor, name, at, body))

    async def clear(self, run: RunKey) -> None:
        await ask(self.wire, "timer clear", lambda: self.server.clear_timers(run))


class MemoryNews(Port):
    """ports.News."""

    def rest(self, run: RunKey, status: str, body: bytes) -> None:
        self._publish("rest", run, body)

    def nudge(self, run: RunKey, sender: str) -> None:
        self._publish("nudge", run, sender.encode())

    def _publish(self, kind: str, run: RunKey, body: bytes) -> None:
        def spread() -> None:
            for callback in list(self.server.news.get((kind, run.workflow), ())):
                callback(run, body)

        self.wire.send(kind, spread)

    async def on_rests(self, workflow: str, callback: Callable[[RunKey, bytes], None]) -> Callable[[], Awaitable[None]]:
        return await self._subscribe("rest", workflow, callback)

    async def on_nudge(self, workflow: str, callback: Callable[[RunKey, str], None]) -> Callable[[], Awaitable[None]]:
        return await self._subscribe("nudge", workflow, lambda run, body: callback(run, body.decode()))

    async def _subscribe(
        self, kind: str, workflow: str, callback: Callable[[RunKey, bytes], None]
    ) -> Callable[[], Awaitable[None]]:
        def hear(run: RunKey, body: bytes) -> None:
            self.wire.receive(kind, callback, run, body)

        subscribers = self.server.news.setdefault((kind, workflow), [])

        def leave() -> None:
            if hear in subscribers:
                subscribers.remove(hear)

        async def stop() -> None:
            leave()

        await ask(self.wire, "subscribe", lambda: subscribers.append(hear))
        self.wire.closed.append(leave)
        return stop


class MemoryTrigger:
    """ports.Trigger."""

    def __init__(self, wire: Wire, queue: Queue, sequence: int, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        self._wire, self._queue, self.sequence, self.subject, self.body = wire, queue, sequence, subject, body
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in headers.items()}

    def ack(self) -> None:
        self._wire.send("trigger ack", lambda: self._queue.ack(self.sequence))

    def hand_back(self, delay: float = 0.0) -> None:
        self._wire.send("trigger hand back", lambda: self._queue.hand_back(self.sequence, delay))


class MemoryTriggers(Port):
    """ports.Triggers."""

    def __init__(self, server: Server, wire: Wire) -> None:
        super().__init__(server, wire)
        self._tasks: set[asyncio.Task[None]] = set()

    async def receive(self, on_trigger: Callable[[Trigger], Awaitable[None]]) -> MemoryReceiver:
        queue = self.server.triggers

        async def handle(trigger: Trigger) -> None:
            try:
                await on_trigger(trigger)
            except Exception:
                trigger.hand_back(1.0)

        def handled(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            receiver.top_up()

        def deliver(sequence: int, count: int) -> None:
            found = queue.published.get(sequence)
            if found is not None:
                task = asyncio.ensure_future(handle(MemoryTrigger(self.wire, queue, sequence, *found)))
                self._tasks.add(task)
                task.add_done_callback(handled)

        receiver = MemoryReceiver(self.wire, queue, lambda: TRIGGERS_AT_ONCE - len(self._tasks), deliver)
        receiver.top_up()
        return receiver

    async def bury(self, kind: str, workflow: str, body: bytes, headers: Mapping[str, str], reason: str) -> None:
        lines = {"Noria-Reason": " ".join(reason.split()), **{f"Noria-Original-{k}": " ".join(v.split()) for k, v in headers.items()}}
        await ask(self.wire, "bury", lambda: self.server.bury(kind, workflow, body, lines))

    async def dead(self, limit: int = 100) -> Sequence[tuple[int, str, Mapping[str, str], bytes]]:
        return await ask(self.wire, "dead", lambda: list(self.server.dead[-limit:]))
