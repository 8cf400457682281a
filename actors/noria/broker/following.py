"""Following one run: its commands, facts and live events as they are stored, in order, each once, without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from noria.broker.connection import Connection
from noria.broker.observing import observe
from noria.broker.reading import delivered
from noria.broker.wire import Incoming
from noria.contract.subjects import Subjects
from noria.errors import BrokerUnavailable, NoriaError, NotPermitted
from noria.limits import FOLLOW_WINDOW_BYTES
from noria.ports import ActorKey, RunKey, Stored

KINDS = ("in", "run", "live")
SILENCE_SECONDS = 6.0


async def follow(connection: Connection, subjects: Subjects, run: RunKey, after: int) -> AsyncGenerator[Stored, None]:
    """What is stored behind `after` (0: from the run's beginning), for ever. The consumer is made anew behind the last
    entry seen when it went away, when a delivery is missing, or when the reader fell too far behind."""
    after = after or await _before_start(connection, subjects, run)
    while True:
        watch = _Watch(connection, subjects, run)
        try:
            try:
                await watch.open(after)
            except NotPermitted:  # an observer: reads, makes nothing
                break
            while (entry := await watch.next()) is not None:
                if entry.sequence > after:
                    after = entry.sequence
                    yield entry
        finally:
            await watch.close()
    async for entry in observe(connection, subjects, run, after):
        yield entry


async def _before_start(connection: Connection, subjects: Subjects, run: RunKey) -> int:
    """The sequence before the run's first entry: a consumer that begins far below costs the server a scan of the
    stream. Of a run that has not begun, where the stream ends now."""
    end = int((await _api(connection, f"STREAM.INFO.{subjects.runs}"))["state"]["last_seq"])
    for kind in ("in", "run"):
        wish = {"seq": 1, "next_by_subj": subjects.of(kind, ActorKey(*run))}
        # through the leader: a replica may not know of a start that was acknowledged just now
        found = (await connection.api(f"STREAM.MSG.GET.{subjects.runs}", wish)).get("message")
        if found is not None:
            return int(found["seq"]) - 1
    return end


async def _api(connection: Connection, subject: str, body: Any = None) -> dict[str, Any]:
    answer = await connection.api(subject, body)
    if "error" in answer:
        raise NoriaError(f"cannot follow the run: {answer['error'].get('description')}")
    return answer


class _Watch:
    """One consumer in memory that pushes to an inbox of its own. What a slow reader does not fetch is bounded: above
    the window deliveries are dropped, and the next watch fetches them again."""

    def __init__(self, connection: Connection, subjects: Subjects, run: RunKey) -> None:
        self._connection, self._subjects, self._run = connection, subjects, run
        self._queue: asyncio.Queue[tuple[int, Stored] | None] = asyncio.Queue()
        self._held, self._full = 0, False
        self._position = 0
        self._consumer: str | None = None
        self._stop: Callable[[], Awaitable[None]] | None = None

    async def open(self, after: int) -> None:
        box = self._connection.client.new_inbox()
        self._connection.on_reconnect.append(self._lost)
        self._stop = await self._connection.subscribe(box, self._arrived)
        config: dict[str, Any] = {
            "deliver_subject": box, "ack_policy": "none", "max_deliver": 1, "mem_storage": True, "num_replicas": 1,
            "inactive_threshold": 60 * 1_000_000_000, "deliver_policy": "by_start_sequence", "opt_start_seq": after + 1,
            "filter_subjects": [self._subjects.below(kind, ActorKey(*self._run)) for kind in KINDS],
        }  # fmt: skip
        stream = self._subjects.runs
        answer = await _api(self._connection, f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
        self._consumer = str(answer["name"])

    def _lost(self) -> None:
        self._queue.put_nowait(None)

    def _arrived(self, msg: Incoming) -> None:
        if self._full or not msg.reply.startswith("$JS.ACK."):
            return
        self._held += len(msg.data)
        if self._held > FOLLOW_WINDOW_BYTES:
            self._full = True
            self._lost()
            return
        _, sequence, position, time = delivered(msg.reply)
        kind, actor = self._subjects.parse(msg.subject)
        self._queue.put_nowait((position, Stored(sequence, kind, actor, msg.data, time)))

    async def next(self) -> Stored | None:
        """The next delivery; None when this watch is at its end: reconnected, gone, full, or one is missing."""
        while True:
            try:
                found = await self._next() if self._queue.empty() else self._queue.get_nowait()
            except TimeoutError:
                if await self._is_alive():
                    continue
                return None
            if found is None or found[0] != self._position + 1:
                return None
            self._position, entry = found
            self._held -= len(entry.body)
            return entry

    async def _next(self) -> tuple[int, Stored] | None:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await self._queue.get()

    async def _is_alive(self) -> bool:
        try:
            return "error" not in await self._connection.api(f"CONSUMER.INFO.{self._subjects.runs}.{self._consumer}")
        except BrokerUnavailable:
            return False

    async def close(self) -> None:
        self._connection.on_reconnect.remove(self._lost)
        if self._stop is not None:
            await self._stop()
        if self._consumer is not None:
            self._connection.publish(f"{self._connection.js}.CONSUMER.DELETE.{self._subjects.runs}.{self._consumer}")
