"""Facts and live events in the RUNS stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from nats.aio.msg import Msg

from noria.broker.connection import Connection
from noria.broker.reading import Message, delivered, last, purge, read
from noria.contract.subjects import Subjects
from noria.errors import BrokerUnavailable, NoriaError
from noria.limits import LIVE_TTL_SECONDS, LOG_TTL_SECONDS
from noria.ports import ActorKey, RunKey, Stored

_ONE = b"Nats-TTL: %ds\r\nContent-Type: application/cloudevents+json\r\n" % LOG_TTL_SECONDS
_BATCH = b"Nats-TTL: %ds\r\nContent-Type: application/cloudevents-batch+json\r\n" % LOG_TTL_SECONDS
_LIVE = b"Nats-TTL: %ds\r\nContent-Type: application/cloudevents+json\r\n" % LIVE_TTL_SECONDS
SILENCE_SECONDS = 6.0


def stored(subjects: Subjects, message: Message) -> Stored:
    kind, actor = subjects.parse(message.subject)
    return Stored(message.sequence, kind, actor, message.body, message.time)


class NatsLog:
    """ports.Log on JetStream."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects

    def append(self, actor: ActorKey, body: bytes, expected: int) -> asyncio.Future[int]:
        headers = _BATCH if body.startswith(b"[") else _ONE
        return self.connection.append(self.subjects.of("run", actor), body, expected, headers)

    def publish_live(self, actor: ActorKey, body: bytes) -> None:
        self.connection.publish(self.subjects.of("live", actor), body, _LIVE)

    async def last(self, actor: ActorKey) -> Stored | None:
        found = await last(self.connection, self.subjects.runs, self.subjects.of("run", actor))
        return None if found is None else stored(self.subjects, found)

    async def read(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        found = await read(self.connection, self.subjects.runs, self.subjects.of("run", actor), after)
        return [stored(self.subjects, m) for m in found]

    async def read_tree(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        found = await read(self.connection, self.subjects.runs, self.subjects.below("run", actor), after)
        return [stored(self.subjects, m) for m in found]

    async def purge(self, run: RunKey) -> None:
        key = ActorKey(*run)
        for kind in ("in", "run", "live", "timer"):
            await purge(self.connection, self.subjects.runs, self.subjects.below(kind, key))

    async def follow(self, run: RunKey, after: int = 0) -> AsyncGenerator[Stored, None]:
        """Commands, facts and live events of a run as they are stored; without a gap across reconnects."""
        queue: asyncio.Queue[tuple[str, int, Stored] | None] = asyncio.Queue()

        def lost() -> None:
            queue.put_nowait(None)

        self.connection.on_reconnect.append(lost)
        watch, position = None, 0
        try:
            while True:
                if watch is None:
                    watch, position = await self._watch(run, after, queue), 0
                try:
                    entry = await asyncio.wait_for(queue.get(), SILENCE_SECONDS)
                except TimeoutError:
                    if await self._is_alive(watch[1]):
                        continue
                    entry = None
                if entry is not None and entry[0] != watch[0]:
                    continue  # of a consumer that was given up
                if entry is None or entry[1] != position + 1:  # reconnected, gone, or one is missing: go on behind what was seen
                    await self._unwatch(watch)
                    watch = None
                else:
                    position = entry[1]
                    if entry[2].sequence > after:
                        after = entry[2].sequence
                        yield entry[2]
        finally:
            self.connection.on_reconnect.remove(lost)
            if watch is not None:
                await self._unwatch(watch)

    async def _watch(
        self, run: RunKey, after: int, queue: asyncio.Queue[tuple[str, int, Stored] | None]
    ) -> tuple[str, str, Callable[[], Awaitable[None]]]:
        """(inbox, consumer, how to stop). Each consumer has an inbox of its own: an older one must not fill its gaps."""
        box = self.connection.client.new_inbox()

        def arrived(msg: Msg) -> None:
            if msg.reply.startswith("$JS.ACK."):
                _, sequence, position, time = delivered(msg.reply)
                kind, actor = self.subjects.parse(msg.subject)
                queue.put_nowait((box, position, Stored(sequence, kind, actor, msg.data, time)))

        stop = await self.connection.subscribe(box, arrived)
        try:
            return box, await self._consumer(run, box, after), stop
        except BaseException:
            await stop()
            raise

    async def _unwatch(self, watch: tuple[str, str, Callable[[], Awaitable[None]]]) -> None:
        await watch[2]()
        self.connection.publish(f"$JS.API.CONSUMER.DELETE.{self.subjects.runs}.{watch[1]}")

    async def _is_alive(self, name: str) -> bool:
        try:
            return "error" not in await self.connection.api(f"CONSUMER.INFO.{self.subjects.runs}.{name}")
        except BrokerUnavailable:
            return False

    async def _consumer(self, run: RunKey, box: str, after: int) -> str:
        config: dict[str, Any] = {
            "deliver_subject": box, "ack_policy": "none", "max_deliver": 1, "mem_storage": True, "num_replicas": 1,
            "inactive_threshold": 60 * 1_000_000_000, "deliver_policy": "by_start_sequence", "opt_start_seq": after + 1,
            "filter_subjects": [self.subjects.below(kind, ActorKey(*run)) for kind in ("in", "run", "live")],
        }  # fmt: skip
        answer = await self.connection.api(f"CONSUMER.CREATE.{self.subjects.runs}", {"stream_name": self.subjects.runs, "config": config})
        if "error" in answer:
            raise NoriaError(f"cannot watch run {run.run}: {answer['error'].get('description')}")
        return str(answer["name"])
