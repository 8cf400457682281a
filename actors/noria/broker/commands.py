"""Commands in the RUNS stream, and their deliveries: one durable pull consumer per workflow, shared by all workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from noria.broker.connection import Connection
from noria.broker.log import stored
from noria.broker.reading import delivered, last, read
from noria.broker.wire import DESCRIPTION, STATUS, Incoming
from noria.clock import monotonic
from noria.contract.subjects import Subjects
from noria.errors import BrokerUnavailable, NoriaError, NotPermitted
from noria.limits import RESCUE_COMMANDS, RESCUE_SPAN
from noria.ports import ActorKey, Delivery, Known, RunKey, Stored, Unacknowledged

log = logging.getLogger("noria.broker")
SECOND = 1_000_000_000
HEARTBEAT_SECONDS = 2
EXPIRES_SECONDS = 20
PAUSE_SECONDS = 0.25
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
ASK_SECONDS = 1.0  # how long a worker may take to say that it is there


class NatsDelivery:
    """ports.Delivery: acknowledgements are written, not awaited."""

    __slots__ = ("_connection", "_reply", "actor", "after", "body", "count", "sequence", "time")

    def __init__(self, connection: Connection, subjects: Subjects, msg: Incoming) -> None:
        self._connection, self._reply = connection, msg.reply
        self.actor, self.body = subjects.parse(msg.subject)[1], msg.data
        self.count, self.sequence, _, self.time = delivered(msg.reply)
        expected = msg.headers.get(EXPECTED)
        self.after = None if expected is None else int(expected)

    def renew(self) -> None:
        self._connection.publish(self._reply, b"+WPI")

    def ack(self) -> None:
        self._connection.publish(self._reply, b"+ACK")

    def hand_back(self, delay: float = 0.0) -> None:
        self._connection.publish(self._reply, b'-NAK {"delay":%d}' % int(delay * SECOND) if delay else b"-NAK")


class Pull:
    """A standing pull with credits: never more wished for than there is room; pulled again when it went silent."""

    def __init__(self, connection: Connection, subject: str, on_message: Callable[[Incoming], None], room: Callable[[], int],
        revive: Callable[[], Awaitable[object]] | None = None,
    ) -> None:  # fmt: skip
        self._revive = revive
        self._pauses: asyncio.TimerHandle | None = None
        self._connection, self._subject, self._on_message, self._room = connection, subject, on_message, room
        self._wished, self._heard = 0, monotonic()
        self.also: Callable[[], Awaitable[None]] | None = None  # what else ends with the pull
        self._box = connection.client.new_inbox()
        self._open = self._gone = False

    async def start(self) -> None:
        self._stop = await self._connection.subscribe(self._box, self._arrived)
        self._connection.on_reconnect.append(self.reset)
        self._open = True
        self._watch = asyncio.create_task(self._watch_over())
        self.top_up()

    def reset(self) -> None:
        self._wished = 0
        self.top_up()

    def top_up(self) -> None:
        """Wish for what there is room for."""
        missing = self._room() - self._wished if self._open and self._pauses is None else 0
        if missing > 0 and missing * 4 >= self._wished:
            self._wished += missing
            wish = {"batch": missing, "expires": EXPIRES_SECONDS * SECOND, "idle_heartbeat": HEARTBEAT_SECONDS * SECOND}
            self._connection.publish(self._subject, orjson.dumps(wish), reply=self._box)

    def _arrived(self, msg: Incoming) -> None:
        self._heard = monotonic()
        headers = msg.headers
        status = headers.get(STATUS)
        if status is None or msg.reply:
            self._wished = max(0, self._wished - 1)
            self._on_message(msg)
        elif status != "100":
            left = headers.get("Nats-Pending-Messages")
            self._wished = max(0, self._wished - int(left)) if left is not None else 0
            if status != "408" and self._pauses is None:  # nobody there, or refused: asking again at once would never end
                self._gone = status in ("404", "503") or "Deleted" in headers.get(DESCRIPTION, "")
                self._pauses = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._paused)
        self.top_up()

    def _paused(self) -> None:
        self._pauses = None
        self._heard = monotonic()
        self.top_up()

    async def _watch_over(self) -> None:
        while True:
            await asyncio.sleep(1)
            if self._gone and self._revive is not None:  # somebody removed the consumer: make it again
                try:
                    await self._revive()
                    self._gone = False
                except NoriaError as error:
                    log.warning("%s", error)
            if monotonic() - self._heard > 2.5 * HEARTBEAT_SECONDS:
                self._heard = monotonic()
                self.reset()

    async def close(self) -> None:
        self._open = False
        self._watch.cancel()
        if self._pauses is not None:
            self._pauses.cancel()
        self._connection.on_reconnect.remove(self.reset)
        await self._stop()
        if self.also is not None:
            await self.also()


class NatsCommands:
    """ports.Commands on JetStream."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects

    def send(self, actor: ActorKey, body: bytes, expected: int | None = None) -> asyncio.Future[int]:
        return self.connection.append(self.subjects.of("in", actor), body, expected)

    async def last(self, actor: ActorKey) -> Stored | None:
        found = await last(self.connection, self.subjects.runs, self.subjects.of("in", actor))
        return None if found is None else stored(self.subjects, found)

    async def read(self, actor: ActorKey, after: int = 0, known: Known | None = None) -> list[Stored]:
        subject = self.subjects.of("in", actor)
        newest = await last(self.connection, self.subjects.runs, subject)
        if newest is None or newest.sequence <= after:
            return []
        # mostly there is one new command, which names its predecessor: no scan of the stream between the two
        before = newest.headers.get(EXPECTED)
        if int(before) <= after if before is not None else known is not None and await self._is_next(subject, known):
            return [stored(self.subjects, newest)]
        return [stored(self.subjects, m) for m in await read(self.connection, self.subjects.runs, subject, after)]

    async def _is_next(self, subject: str, known: Known) -> bool:
        """Whether one command is stored behind those that are known: a timer names no predecessor. While the first one is
        there none of them aged out, and the server counts without looking at what is between: to look costs it as much as
        there was since, so that N sleeps due at one instant would cost N times N.

        Not where replicas may lag behind: one that knows another new command, and not the newest, counts as many.
        """
        if self.connection.replicated:
            return False
        found = await read(self.connection, self.subjects.runs, subject, 0, 1)
        return bool(found) and found[0].sequence == known.first and int(found[0].headers["Nats-Num-Pending"]) == known.total

    async def read_tree(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        found = await read(self.connection, self.subjects.runs, self.subjects.below("in", actor), after)
        return [stored(self.subjects, m) for m in found]

    async def find(self, run: str) -> list[RunKey]:
        """The runs with this id, of whatever workflow."""
        return [self.subjects.parse(s)[1].tree for s in await self._subjects(f"{self.subjects.ns}.in.*.{run}._")]

    async def started(self, workflow: str | None = None) -> dict[RunKey, int]:
        found = await self._subjects(f"{self.subjects.ns}.in.{workflow or '*'}.*._")
        return {self.subjects.parse(subject)[1].tree: count for subject, count in found.items()}

    async def _subjects(self, wanted: str) -> dict[str, int]:
        """Messages by subject."""
        found: dict[str, int] = {}
        while True:
            wish = {"subjects_filter": wanted, "offset": len(found)}
            info = await self.connection.api(f"STREAM.INFO.{self.subjects.runs}", wish)
            if "error" in info:
                raise NoriaError(f"stream {self.subjects.runs}: {info['error'].get('description')}")
            page: dict[str, int] = info["state"].get("subjects") or {}
            found.update(page)
            if not page or len(found) >= info.get("total", 0):
                return found

    async def receive(
        self, workflow: str, lease_seconds: float, on_delivery: Callable[[Delivery], None], room: Callable[[], int]
    ) -> Pull:
        name = await self._consumer(workflow, lease_seconds)

        def arrived(msg: Incoming) -> None:
            on_delivery(NatsDelivery(self.connection, self.subjects, msg))

        wish = f"{self.connection.js}.CONSUMER.MSG.NEXT.{self.subjects.runs}.{name}"
        pull = Pull(self.connection, wish, arrived, room, lambda: self._consumer(workflow, lease_seconds))
        await pull.start()

        def asked(msg: Incoming) -> None:
            self.connection.publish(msg.reply, b"{}")

        pull.also = await self.connection.subscribe(self.subjects.worker(workflow), asked)
        return pull

    async def unacknowledged(self, workflow: str) -> Unacknowledged:
        info = await self._info(workflow)
        floor, newest = info.get("ack_floor", {}), info.get("delivered", {})
        return Unacknowledged(info.get("num_ack_pending", 0), floor.get("stream_seq", 0), newest.get("stream_seq", 0))

    async def delivered(self, workflow: str, span: Unacknowledged) -> list[tuple[ActorKey, int]]:
        subject, ends = self.subjects.commands_of(workflow), dict[int, ActorKey]()
        for after in {span.after, max(span.after, span.until - RESCUE_SPAN)}:  # what began long ago, and what began just now
            for found in await read(self.connection, self.subjects.runs, subject, after, RESCUE_COMMANDS):
                if found.sequence <= span.until:
                    ends[found.sequence] = self.subjects.parse(found.subject)[1]
        return [(actor, sequence) for sequence, actor in sorted(ends.items())]

    async def hand_back(self, workflow: str, sequences: Sequence[int]) -> None:
        """A negative acknowledgement in the name of whoever holds them: the server asks for the stream's sequence and a
        delivery number that was given out, not for the deliverer."""
        number = (await self._info(workflow)).get("delivered", {}).get("consumer_seq", 0)
        for sequence in sequences:
            reply = f"$JS.ACK.{self.subjects.runs}.{self.subjects.consumer(workflow)}.1.{sequence}.{number}.0.0"
            self.connection.publish(reply, b"-NAK")

    async def _info(self, workflow: str) -> dict[str, Any]:
        return await self.connection.api(f"CONSUMER.INFO.{self.subjects.runs}.{self.subjects.consumer(workflow)}")

    async def _consumer(self, workflow: str, lease_seconds: float) -> str:
        """The consumer that all workers of the workflow share: made once, with the lease of who came first."""
        name, stream = self.subjects.consumer(workflow), self.subjects.runs
        info = await self.connection.api(f"CONSUMER.INFO.{stream}.{name}")
        if "error" not in info:
            lease = info["config"].get("ack_wait", 0) / SECOND
            if abs(lease - lease_seconds) > 0.001:
                log.warning("workflow %r has a lease of %s s since its first worker; %s s is not applied", workflow, lease, lease_seconds)
            return name
        config = {
            "durable_name": name, "name": name, "ack_policy": "explicit", "ack_wait": int(lease_seconds * SECOND),
            "filter_subject": self.subjects.commands_of(workflow), "max_ack_pending": -1, "max_deliver": -1, "deliver_policy": "all",
        }  # fmt: skip
        answer = await self.connection.api(
            f"CONSUMER.CREATE.{stream}.{name}.{self.subjects.commands_of(workflow)}", {"stream_name": stream, "config": config}
        )
        if "error" in answer and answer["error"].get("err_code") != 10148:
            raise NoriaError(f"cannot receive commands of {workflow!r}: {answer['error'].get('description')}")
        return name

    async def hosted(self, workflow: str) -> bool:
        """Whether a worker is there, busy or not. Deliveries in hand are no sign: the dead hold some too."""
        if (await self._info(workflow)).get("num_waiting", 0) > 0:
            return True
        try:  # one without a free slot does not pull, but answers; without any, the server says so at once
            answer = await self.connection.request(self.subjects.worker(workflow), timeout=ASK_SECONDS)
        except (BrokerUnavailable, NotPermitted):
            return False
        return (answer.headers or {}).get(STATUS) is None
