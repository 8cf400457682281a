"""Facts and live events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from noria.ports import ActorKey, Late, RunKey, Stored
from noria.testing.memory.port import Port
from noria.testing.server import MAX_PAYLOAD
from noria.testing.wire import ask


class MemoryLog(Port):
    """ports.Log."""

    def append(self, actor: ActorKey, body: bytes, expected: int, late: Late | None = None) -> asyncio.Future[int]:
        return self.append_to("run", actor, body, expected, late)

    async def last(self, actor: ActorKey) -> Stored | None:
        return await self.last_of("run", actor)

    async def read(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        return await self.read_of("run", actor, after, False)

    async def read_tree(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        return await self.read_of("run", actor, after, True)

    async def confirm(self, actor: ActorKey, fact: int, command: int) -> bool:
        newest = (("run", fact), ("in", command))
        return await ask(self.wire, "confirm", lambda: all(self.server.last_sequence(kind, actor) <= known for kind, known in newest))

    def publish_live(self, actor: ActorKey, body: bytes) -> None:
        if len(body) <= MAX_PAYLOAD:
            self.wire.send("live", lambda: self.server.append("live", actor, body, None))

    async def tell_live(self, actor: ActorKey, body: bytes) -> None:
        self.publish_live(actor, body)

    async def read_live(self, run: RunKey, after: int = 0) -> list[Stored]:
        return await self.read_of("live", ActorKey(*run), after, True)

    async def purge(self, run: RunKey) -> None:
        await ask(self.wire, "purge", lambda: self.server.purge(run))

    async def follow(self, run: RunKey, after: int = 0) -> AsyncGenerator[Stored, None]:
        queue: asyncio.Queue[Stored] = asyncio.Queue()
        server, root = self.server, ActorKey(*run)

        def watch(entry: Stored) -> None:
            if entry.actor.tree == run:
                self.wire.receive("follow", queue.put_nowait, entry)

        def begin() -> list[Stored]:
            server.watchers.append(watch)
            return sorted(e for kind in ("in", "run", "live") for e in server.read(kind, root, after, True))

        def end() -> None:
            if watch in server.watchers:
                server.watchers.remove(watch)

        self.wire.closed.append(end)
        try:
            for entry in await ask(self.wire, "follow", begin):
                yield entry
            while True:
                yield await queue.get()
        finally:
            self.wire.send("unfollow", end)
