"""Commands and their deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from noria.ports import ActorKey, Delivery, Known, RunKey, Stored, Unacknowledged
from noria.testing.consumers import Queue, Wish
from noria.testing.memory.port import Port
from noria.testing.wire import Wire, ask


class MemoryDelivery:
    """ports.Delivery."""

    def __init__(self, wire: Wire, queue: Queue, entry: Stored, count: int, after: int | None) -> None:
        self._wire, self._queue, self.after = wire, queue, after
        self.actor, self.sequence, self.count = entry.actor, entry.sequence, count
        self.body, self.time = entry.body, entry.time

    def renew(self) -> None:
        self._wire.send("renew", lambda: self._queue.renew(self.sequence))

    def ack(self) -> None:
        self._wire.send("ack", lambda: self._queue.ack(self.sequence))

    def hand_back(self, delay: float = 0.0) -> None:
        self._wire.send("hand back", lambda: self._queue.hand_back(self.sequence, delay))


class MemoryReceiver:
    """ports.Receiver: a standing wish, renewed when it expires."""

    def __init__(self, wire: Wire, queue: Queue, room: Callable[[], int], deliver: Callable[[int, int], None]) -> None:
        self._wire, self._queue, self._room, self._deliver = wire, queue, room, deliver
        self._wished, self._open = 0, True
        self._wishes: list[Wish] = []
        self.gone: Callable[[], None] | None = None
        wire.closed.append(self._leave)

    def top_up(self) -> None:
        missing = self._room() - self._wished
        if self._open and missing > 0:
            wish = Wish(missing, self._give, self._over)
            self._wished += missing
            self._wishes.append(wish)
            self._wire.send("wish", lambda: self._queue.wish(wish))

    def _give(self, sequence: int, count: int) -> None:
        self._wire.receive("delivery", self._arrived, sequence, count)

    def _arrived(self, sequence: int, count: int) -> None:
        self._wished = max(0, self._wished - 1)
        self._deliver(sequence, count)
        self.top_up()

    def _over(self, left: int) -> None:
        self._wire.receive("expired wish", self._expired, left)

    def _expired(self, left: int) -> None:
        self._wished = max(0, self._wished - left)
        self.top_up()

    def _leave(self) -> None:
        for wish in self._wishes:
            self._queue.forget(wish)
        if self.gone is not None:
            self.gone()
            self.gone = None

    async def close(self) -> None:
        self._open = False
        await self._wire.request("leave", self._leave)


class MemoryCommands(Port):
    """ports.Commands."""

    def send(self, actor: ActorKey, body: bytes, expected: int | None = None) -> asyncio.Future[int]:
        return self.append_to("in", actor, body, expected)

    async def last(self, actor: ActorKey) -> Stored | None:
        return await self.last_of("in", actor)

    async def read(self, actor: ActorKey, after: int = 0, known: Known | None = None) -> list[Stored]:
        if known is not None:
            stored = [entry.sequence for entry in self.server.read("in", actor, 0)]
            assert not stored or stored[0] != known.first or known.total <= sum(s <= after for s in stored), (actor, after, known, stored)
        return await self.read_of("in", actor, after, False)

    async def read_tree(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        return await self.read_of("in", actor, after, True)

    async def find(self, run: str) -> list[RunKey]:
        return [key for key in await self.started() if key.run == run]

    async def started(self, workflow: str | None = None) -> dict[RunKey, int]:
        found = await ask(self.wire, "started", self.server.started)
        return {key: count for key, count in found.items() if workflow in (None, key.workflow)}

    async def receive(
        self, workflow: str, lease_seconds: float, on_delivery: Callable[[Delivery], None], room: Callable[[], int]
    ) -> MemoryReceiver:
        consumer = await ask(self.wire, "consumer", lambda: self.server.consumer(workflow, lease_seconds))

        def deliver(sequence: int, count: int) -> None:
            entry = self.server.messages.get(sequence)
            if entry is not None:
                on_delivery(MemoryDelivery(self.wire, consumer, entry, count, self.server.checked.get(sequence)))

        def leave() -> None:
            consumer.present -= 1

        consumer.present += 1
        receiver = MemoryReceiver(self.wire, consumer, room, deliver)
        receiver.gone = leave
        receiver.top_up()
        return receiver

    async def hosted(self, workflow: str) -> bool:
        consumers = self.server.consumers
        return await ask(self.wire, "hosted", lambda: workflow in consumers and consumers[workflow].present > 0)

    async def unacknowledged(self, workflow: str) -> Unacknowledged:
        return await ask(self.wire, "unacknowledged", lambda: self._unacknowledged(workflow))

    def _unacknowledged(self, workflow: str) -> Unacknowledged:
        pending = self.server.consumers[workflow].pending if workflow in self.server.consumers else {}
        return Unacknowledged(len(pending), min(pending, default=1) - 1, max(pending, default=0))

    async def delivered(self, workflow: str, span: Unacknowledged) -> list[tuple[ActorKey, int]]:
        def found() -> list[tuple[ActorKey, int]]:
            entries = [self.server.messages.get(sequence) for sequence in range(span.after + 1, span.until + 1)]
            return [(e.actor, e.sequence) for e in entries if e is not None and e.kind == "in" and e.actor.workflow == workflow]

        return await ask(self.wire, "delivered", found)

    async def hand_back(self, workflow: str, sequences: Sequence[int]) -> None:
        for sequence in sequences:
            self.wire.send("hand back for another", lambda s=sequence: self.server.consumers[workflow].hand_back(s, 0.0))
