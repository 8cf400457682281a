"""Timers and news: what comes without being asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from noria.ports import ActorKey, RunKey
from noria.testing.memory.port import Port
from noria.testing.wire import ask

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
