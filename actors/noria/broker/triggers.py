"""What wants to start runs: the namespace's triggers and ticks, and events on streams and subjects of the user's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from noria.broker.commands import Pull
from noria.broker.connection import Connection
from noria.broker.reading import Message, delivered, read
from noria.broker.wire import Incoming
from noria.contract.subjects import Subjects
from noria.errors import BrokerUnavailable, DefinitionError, NoriaError, choices
from noria.limits import BINDING_IDLE_SECONDS, MAX_REASON, TRIGGERS_AT_ONCE
from noria.ports import Letter, Receiver, Tick, Trigger

log = logging.getLogger("noria.broker")
REASON, CUT, ORIGINAL = "Noria-Reason", "Noria-Truncated", "Noria-Original-"
KNOWN_BY, OURS = "Nats-Msg-Id", "noria:"  # by which the server knows a message again, and what marks it as our word to it
ACK_WAIT = 30_000_000_000
EXISTS = 10148
TAKEN = (10099, 10100)  # a work queue takes one consumer per subject

OnTrigger = Callable[[Trigger], Awaitable[None]]


class NatsTrigger:
    """ports.Trigger of a JetStream message, or of a core one, which nobody can hand back."""

    def __init__(self, connection: Connection, msg: Incoming) -> None:
        self._connection, self._reply = connection, msg.reply if msg.reply.startswith("$JS.ACK.") else ""
        self.subject, self.body = msg.subject, msg.data
        self.count, self.sequence, _, self.time = delivered(self._reply) if self._reply else (1, 0, 0, 0.0)
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in msg.headers.items() if k != KNOWN_BY or not v.startswith(OURS)}
        self.tick = _tick(self.headers)

    def ack(self) -> None:
        if self._reply:
            self._connection.publish(self._reply, b"+ACK")

    def hand_back(self, delay: float = 0.0) -> None:
        if self._reply:
            self._connection.publish(self._reply, b'-NAK {"delay":%d}' % int(delay * 1e9))
        else:
            log.warning("an event on %s is lost: no stream holds it, so it cannot come again", self.subject)


def _tick(headers: Mapping[str, str]) -> Tick | None:
    following = headers.get("nats-schedule-next", "")
    _, _, place = headers.get("nats-scheduler", "").partition(".cron.")
    workflow, _, schedule = place.partition(".")
    if not schedule or following in ("", "purge"):
        return None
    return Tick(workflow, schedule, datetime.fromisoformat(following).timestamp())


class NatsTriggers:
    """ports.Triggers: one durable consumer for all workflows, one for each binding, and the dead stream."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects

    async def receive(self, on_trigger: OnTrigger) -> Receiver:
        return await self._pull(self.subjects.triggers, "triggers", f"{self.subjects.ns}.trigger.>", {"deliver_policy": "all"}, on_trigger)

    async def bind(self, on: str, stream: str | None, consumer: str, on_trigger: OnTrigger) -> Receiver:
        holder = stream or await self._holder(on)
        if holder is None:
            return await self._listen(on, consumer, on_trigger)
        # one that nobody reads for long goes by itself: a worker of an older build must not take it from newer ones
        idle = {"deliver_policy": "new", "inactive_threshold": BINDING_IDLE_SECONDS * 1_000_000_000}
        return await self._pull(holder, consumer, on, idle, on_trigger)

    async def _holder(self, on: str) -> str | None:
        """The stream that holds a subject; None when none does."""
        answer = await self.connection.api("STREAM.NAMES", {"subject": on})
        names: list[str] = answer.get("streams") or []
        if len(names) > 1:
            raise DefinitionError(f"on_event {on!r}: several streams hold it: name one of {choices(sorted(names))} by stream=")
        return names[0] if names else None

    async def _pull(self, stream: str, name: str, on: str, extra: dict[str, Any], on_trigger: OnTrigger) -> Receiver:
        work = _Work(on_trigger)

        def arrived(msg: Incoming) -> None:
            work.begin(NatsTrigger(self.connection, msg))

        async def revive() -> None:
            await self._consumer(stream, name, on, extra)

        await revive()
        wish = f"{self.connection.js}.CONSUMER.MSG.NEXT.{stream}.{name}"
        pull = Pull(self.connection, wish, arrived, lambda: max(0, TRIGGERS_AT_ONCE - len(work.tasks)), revive)
        work.done, pull.also = pull.top_up, work.finish
        await pull.start()
        return pull

    async def _consumer(self, stream: str, name: str, on: str, extra: dict[str, Any]) -> None:
        """Made once, shared by all workers; one that is there stays as it is."""
        if "error" not in await self.connection.api(f"CONSUMER.INFO.{stream}.{name}"):
            return
        config: dict[str, Any] = {
            "durable_name": name, "name": name, "ack_policy": "explicit", "ack_wait": ACK_WAIT, "max_deliver": -1,
            "filter_subject": on, "max_ack_pending": 1000, **extra,
        }  # fmt: skip
        for deliver in (extra["deliver_policy"], "all"):  # a work queue knows no "new": what waits in it is meant for its one consumer
            wish = {"stream_name": stream, "config": {**config, "deliver_policy": deliver}}
            error = (await self.connection.api(f"CONSUMER.CREATE.{stream}.{name}.{on}", wish)).get("error")
            if error is None or error.get("err_code") == EXISTS:
                return
            if error.get("err_code") != 10101:
                break
        hint = ": it is a work queue, which takes one consumer per subject" if error.get("err_code") in TAKEN else ""
        raise NoriaError(f"cannot receive {on!r} from the stream {stream!r}: {error.get('description')}{hint}")

    async def _listen(self, on: str, queue: str, on_trigger: OnTrigger) -> Receiver:
        work = _Work(on_trigger)
        stop = await self.connection.subscribe(on, lambda msg: work.begin(NatsTrigger(self.connection, msg)), queue)
        return _Listening(stop, work)

    async def bury(self, kind: str, workflow: str, body: bytes, headers: Mapping[str, str], reason: str) -> None:
        text = _lines({REASON: _one_line(reason)[:MAX_REASON], **{f"{ORIGINAL}{k}": v for k, v in headers.items()}})
        limit = self.connection.client.max_payload - 64
        if len(body) + len(text.encode()) > limit:  # better cut than lost: a letter that cannot be buried comes again for ever
            text = _lines({REASON: _one_line(reason)[:MAX_REASON], CUT: f"{len(body)} bytes and the original headers"})
            body = body[: limit - len(text.encode())]
        await self.connection.append(self.subjects.dead_letter(kind, workflow), body, None, text.encode())

    async def publish(self, workflow: str, body: bytes, headers: Mapping[str, str], id: str | None = None) -> None:
        known = {} if id is None else {KNOWN_BY: f"{OURS}{id}"}
        await self.connection.append(self.subjects.trigger(workflow), body, None, _lines({**headers, **known}).encode())

    async def dead(
        self, after: int = 0, limit: int = 100, *, kind: str | None = None, workflow: str | None = None
    ) -> Sequence[Letter]:
        subject = self.subjects.dead_letter(kind or "*", workflow or "*")
        return [_letter(m) for m in await read(self.connection, self.subjects.dead, subject, after, limit)]


class _Work:
    """The triggers being handled; `done` is called after each."""

    def __init__(self, on_trigger: OnTrigger) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.done: Callable[[], None] | None = None
        self._on_trigger = on_trigger

    def begin(self, trigger: NatsTrigger) -> None:
        task = asyncio.create_task(self._handle(trigger))
        self.tasks.add(task)
        task.add_done_callback(self._handled)

    async def _handle(self, trigger: NatsTrigger) -> None:
        try:
            await self._on_trigger(trigger)
        except BrokerUnavailable as error:
            log.warning("a trigger on %s waits: %s", trigger.subject, error)
            trigger.hand_back(1.0)
        except Exception:
            log.exception("trigger %d on %s failed; it comes again", trigger.sequence, trigger.subject)
            trigger.hand_back(1.0)

    def _handled(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if self.done is not None:
            self.done()

    async def finish(self) -> None:
        """What is under way ends well before the connection does; what does not comes again."""
        if self.tasks:
            await asyncio.wait(set(self.tasks), timeout=2)
        for task in list(self.tasks):
            task.cancel()


class _Listening:
    """ports.Receiver of a core subscription."""

    def __init__(self, stop: Callable[[], Awaitable[None]], work: _Work) -> None:
        self._stop, self._work = stop, work

    def top_up(self) -> None:
        """Core messages come as they come."""

    async def close(self) -> None:
        await self._stop()
        await self._work.finish()


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
