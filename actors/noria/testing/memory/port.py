"""What the ports on the stream of commands and facts share."""

from __future__ import annotations

import asyncio

from noria.ports import ActorKey, Late, Stored
from noria.testing.server import Server
from noria.testing.wire import Wire, ask, store


class Port:
    def __init__(self, server: Server, wire: Wire) -> None:
        self.server, self.wire = server, wire

    def append_to(
        self, kind: str, actor: ActorKey, body: bytes, expected: int | None, late: Late | None = None
    ) -> asyncio.Future[int]:
        server = self.server

        def own() -> int | None:
            last = server.last(kind, actor)
            return last.sequence if last is not None and last.body == body else None

        return store(self.wire, f"{kind} append", lambda: server.append(kind, actor, body, expected), own, late)

    async def last_of(self, kind: str, actor: ActorKey) -> Stored | None:
        return await ask(self.wire, f"{kind} last", lambda: self.server.last(kind, actor, self.wire.lag()))

    async def read_of(self, kind: str, actor: ActorKey, after: int, below: bool) -> list[Stored]:
        return await ask(self.wire, f"{kind} read", lambda: self.server.read(kind, actor, after, below, self.wire.lag()))
