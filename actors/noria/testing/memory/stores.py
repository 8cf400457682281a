"""Records, blobs and the catalogue: what is read by key."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping

from noria.errors import ValueUnavailable
from noria.ports import RunKey, StoredRecord
from noria.testing.memory.port import Port
from noria.testing.wire import ask, store


class MemoryRecords(Port):
    """ports.Records."""

    async def get(self, run: RunKey) -> StoredRecord | None:
        return await ask(self.wire, "record get", lambda: self.server.record(run, self.wire.lag()))

    def put(
        self, run: RunKey, body: bytes, revision: int, summary: str, ttl_seconds: float | None = None
    ) -> asyncio.Future[int]:
        server = self.server

        def own() -> int | None:
            found = server.record(run)
            return found.revision if found is not None and found.body == body else None

        return store(self.wire, "record put", lambda: server.put_record(run, body, revision, summary, ttl_seconds), own)

    async def summaries(self, workflow: str | None = None) -> list[tuple[RunKey, str]]:
        return await ask(self.wire, "summaries", lambda: self.server.summaries(workflow))

    async def delete(self, run: RunKey, tombstone_seconds: float) -> None:
        body = b'{"deleted":true}'
        await ask(self.wire, "record delete", lambda: self.server.put_record(run, body, None, "", tombstone_seconds))


class MemoryBlobs(Port):
    """ports.Blobs."""

    async def put(self, run: RunKey, data: bytes, name: str | None = None) -> str:
        name = f"{name or hashlib.sha256(data).hexdigest()}-1"
        await ask(self.wire, "blob put", lambda: self.server.blobs.setdefault((run, name), data))
        return name

    async def get(self, run: RunKey, name: str) -> bytes:
        data = await ask(self.wire, "blob get", lambda: self.server.blobs.get((run, name)))
        if data is None:
            raise ValueUnavailable(f"the stored value {name} of run {run.run!r} of workflow {run.workflow!r} is gone or incomplete")
        return data

    def drop(self, run: RunKey, name: str) -> None:
        self.wire.send("blob drop", lambda: self.server.blobs.pop((run, name), None))

    async def purge(self, run: RunKey) -> None:
        def remove() -> None:
            for key in [k for k in self.server.blobs if k[0] == run]:
                del self.server.blobs[key]

        await ask(self.wire, "blob purge", remove)


class MemoryCatalogue(Port):
    """ports.Catalogue."""

    async def put(self, workflow: str, body: bytes) -> None:
        await ask(self.wire, "catalogue put", lambda: self.server.catalogue.__setitem__(workflow, body))

    async def get(self, workflow: str) -> bytes | None:
        return await ask(self.wire, "catalogue get", lambda: self.server.catalogue.get(workflow))

    async def list(self) -> Mapping[str, bytes]:
        return await ask(self.wire, "catalogue list", lambda: dict(self.server.catalogue))
