"""Timers, news and triggers: what comes without being asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from nats.aio.msg import Msg

from noria.broker.commands import Pull
from noria.broker.connection import Connection
from noria.broker.reading import Message, delivered, purge, read
from noria.contract.subjects import Subjects
from noria.errors import NoriaError
from noria.limits import MAX_REASON
from noria.ports import ActorKey, Letter, RunKey, Trigger

log = logging.getLogger("noria.broker")
REASON, CUT, ORIGINAL = "Noria-Reason", "Noria-Truncated", "Noria-Original-"


class NatsTimers:
    """ports.Timers as message schedules: the server itself delivers the command."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects

    async def set(self, actor: ActorKey, name: str, at: float, body: bytes) -> None:
        when = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
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
        def arrived(msg: Msg) -> None:
            callback(RunKey(workflow, msg.subject.split(".")[3]), msg.data)

        return await self.connection.subscribe(self.subjects.rest(RunKey(workflow, "*"), "*"), arrived)

    def nudge(self, run: RunKey, sender: str) -> None:
        self.connection.publish(self.subjects.nudge(*run), sender.encode())

    async def on_nudge(self, workflow: str, callback: Callable[[RunKey, str], None]) -> Callable[[], Awaitable[None]]:
        def arrived(msg: Msg) -> None:
            callback(RunKey(workflow, msg.subject.rpartition(".")[2]), msg.data.decode(errors="replace"))

        return await self.connection.subscribe(self.subjects.nudge(workflow, "*"), arrived)


class NatsTrigger:
    """ports.Trigger."""

    def __init__(self, connection: Connection, msg: Msg) -> None:
        self._connection, self._reply = connection, msg.reply
        self.subject, self.body = msg.subject, msg.data
        self.sequence = delivered(msg.reply)[1]
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in (msg.headers or {}).items()}

    def ack(self) -> None:
        self._connection.publish(self._reply, b"+ACK")

    def hand_back(self, delay: float = 0.0) -> None:
        self._connection.publish(self._reply, b'-NAK {"delay":%d}' % int(delay * 1e9))


class NatsTriggers:
    """ports.Triggers: one durable consumer for all workflows, and the dead stream."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects
        self._tasks: set[asyncio.Task[None]] = set()

    async def receive(self, on_trigger: Callable[[Trigger], Awaitable[None]]) -> Pull:
        name, stream = "triggers", self.subjects.triggers
        config: dict[str, Any] = {
            "durable_name": name, "name": name, "ack_policy": "explicit", "ack_wait": 30_000_000_000, "max_deliver": -1,
            "filter_subject": f"{self.subjects.ns}.trigger.>", "max_ack_pending": 1000,
        }  # fmt: skip
        answer = await self.connection.api(f"CONSUMER.CREATE.{stream}.{name}.{self.subjects.ns}.trigger.>", {"stream_name": stream, "config": config})
        if "error" in answer and answer["error"].get("err_code") != 10148:
            raise NoriaError(f"cannot receive triggers: {answer['error'].get('description')}")

        async def handle(trigger: Trigger) -> None:
            try:
                await on_trigger(trigger)
            except Exception:
                log.exception("trigger %d on %s failed; it comes again", trigger.sequence, trigger.subject)
                trigger.hand_back(1.0)

        def handled(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            pull.top_up()

        def arrived(msg: Msg) -> None:
            task = asyncio.create_task(handle(NatsTrigger(self.connection, msg)))
            self._tasks.add(task)
            task.add_done_callback(handled)

        pull = Pull(self.connection, f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", arrived, lambda: max(0, 64 - len(self._tasks)))
        await pull.start()
        return pull

    async def bury(self, kind: str, workflow: str, body: bytes, headers: Mapping[str, str], reason: str) -> None:
        text = _lines({REASON: _one_line(reason)[:MAX_REASON], **{f"{ORIGINAL}{k}": v for k, v in headers.items()}})
        limit = self.connection.client.max_payload - 64
        if len(body) + len(text.encode()) > limit:  # better cut than lost: a letter that cannot be buried comes again for ever
            text = _lines({REASON: _one_line(reason)[:MAX_REASON], CUT: f"{len(body)} bytes and the original headers"})
            body = body[: limit - len(text.encode())]
        await self.connection.append(self.subjects.dead_letter(kind, workflow), body, None, text.encode())

    async def publish(self, workflow: str, body: bytes, headers: Mapping[str, str]) -> None:
        await self.connection.append(self.subjects.trigger(workflow), body, None, _lines(headers).encode())

    async def dead(
        self, after: int = 0, limit: int = 100, *, kind: str | None = None, workflow: str | None = None
    ) -> Sequence[Letter]:
        subject = self.subjects.dead_letter(kind or "*", workflow or "*")
        return [_letter(m) for m in await read(self.connection, self.subjects.dead, subject, after, limit)]


def _letter(message: Message) -> Letter:
    kind, workflow = message.subject.rsplit(".", 2)[1:]
    prefix, headers = ORIGINAL.lower(), {k.lower(): v for k, v in message.headers.items()}
    original = {k[len(prefix) :]: v for k, v in headers.items() if k.startswith(prefix)}
    reason, cut = headers.get(REASON.lower(), ""), CUT.lower() in headers
    return Letter(message.sequence, kind, workflow, reason, original, message.body, message.time, cut)


def _lines(headers: Mapping[str, str]) -> str:
    """Header lines; names and values cannot smuggle in further ones."""
    return "".join(f"{_one_line(k).replace(' ', '-').replace(':', '-')}: {_flat(v)}\r\n" for k, v in headers.items())


def _flat(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ").strip()


def _one_line(text: str) -> str:
    return " ".join(text.split())
