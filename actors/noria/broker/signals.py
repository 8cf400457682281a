"""Timers and news: what comes without being asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from noria.broker.connection import Connection
from noria.broker.reading import purge
from noria.broker.wire import Incoming
from noria.contract.subjects import Subjects
from noria.ports import ActorKey, RunKey


class NatsTimers:
    """ports.Timers as message schedules: the server itself delivers the command."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects

    async def set(self, actor: ActorKey, name: str, at: float, body: bytes) -> None:
        when = datetime.fromtimestamp(at - self.connection.ahead, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        target = self.subjects.of("in", ActorKey(*actor.tree))
        headers = f"Nats-Schedule: @at {when}\r\nNats-Schedule-Target: {target}\r\nNats-TTL: never\r\n"
        await self.connection.append(f"{self.subjects.of('timer', actor)}.{name}", body, None, headers.encode())

    async def clear(self, run: RunKey) -> None:
        await purge(self.connection, self.subjects.runs, self.subjects.below("timer", ActorKey(*run)))


class NatsNews:
    """ports.News as core publishes."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects

    def rest(self, run: RunKey, status: str, body: bytes) -> None:
        self.connection.publish(self.subjects.rest(run, status), body)

    async def on_rests(self, workflow: str, callback: Callable[[RunKey, bytes], None]) -> Callable[[], Awaitable[None]]:
        def arrived(msg: Incoming) -> None:
            callback(RunKey(workflow, msg.subject.split(".")[3]), msg.data)

        return await self.connection.subscribe(self.subjects.rest(RunKey(workflow, "*"), "*"), arrived)

    def nudge(self, run: RunKey, sender: str) -> None:
        self.connection.publish(self.subjects.nudge(*run), sender.encode())

    async def on_nudge(self, workflow: str, callback: Callable[[RunKey, str], None]) -> Callable[[], Awaitable[None]]:
        def arrived(msg: Incoming) -> None:
            callback(RunKey(workflow, msg.subject.rpartition(".")[2]), msg.data.decode(errors="replace"))

        return await self.connection.subscribe(self.subjects.nudge(workflow, "*"), arrived)
