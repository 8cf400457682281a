"""Records, blobs and the catalogue: what is read by key."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Mapping
from typing import Any

from noria.broker.connection import Connection
from noria.broker.reading import last, last_of_leader, purge, read
from noria.broker.wire import Incoming
from noria.contract.subjects import Subjects
from noria.contract.values import dumps
from noria.errors import BrokerUnavailable, NoriaError, NotPermitted, ValueUnavailable
from noria.limits import CHUNK_BYTES, CHUNKS_AT_ONCE, PAYLOAD_MARGIN_BYTES
from noria.ports import RunKey, StoredRecord

SUMMARY = "Noria-Summary"


class NatsRecords:
    """ports.Records in a key-value bucket; the summary is a header, so that lists read headers only."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects
        self.stream = f"KV_{subjects.records}"

    async def get(self, run: RunKey) -> StoredRecord | None:
        found = await last(self.connection, self.stream, self.subjects.record(run))
        if found is None:
            return None
        if "Nats-Marker-Reason" in found.headers or "KV-Operation" in found.headers:
            return StoredRecord(found.sequence, b"")
        return StoredRecord(found.sequence, found.body)

    def put(self, run: RunKey, body: bytes, revision: int, summary: str, ttl_seconds: float | None = None) -> asyncio.Future[int]:
        headers = f"{SUMMARY}: {summary}\r\n" if summary else ""
        if ttl_seconds is not None:
            headers += f"Nats-TTL: {max(1, math.ceil(ttl_seconds))}s\r\n"
        return self.connection.append(self.subjects.record(run), body, revision, headers.encode())

    async def delete(self, run: RunKey, tombstone_seconds: float) -> None:
        """Leave a record that says nothing but that the id is taken, for a while."""
        headers = f"Nats-TTL: {max(1, math.ceil(tombstone_seconds))}s\r\n".encode()
        await self.connection.append(self.subjects.record(run), b'{"deleted":true}', None, headers)

    async def summaries(self, workflow: str | None = None) -> list[tuple[RunKey, str]]:
        """(run, summary) of all records; by a consumer that is sent headers only, where we may make one."""
        wanted = f"$KV.{self.subjects.records}.{workflow or '*'}.*"
        try:
            return await self._summaries(wanted)
        except NotPermitted:
            stored = await read(self.connection, self.stream, wanted)
        return [(RunKey(*m.subject.split(".", 3)[2:]), m.headers[SUMMARY]) for m in stored if m.headers.get(SUMMARY)]

    async def _summaries(self, wanted: str) -> list[tuple[RunKey, str]]:
        box, found = self.connection.client.new_inbox(), dict[RunKey, str]()
        total, seen, done = -1, 0, asyncio.Event()

        def arrived(msg: Incoming) -> None:
            nonlocal seen
            seen += 1
            _, _, name, run = msg.subject.split(".", 3)
            summary = msg.headers.get(SUMMARY)
            if summary:
                found[RunKey(name, run)] = summary
            if msg.reply.endswith(".0") or seen == total:
                done.set()

        stop = await self.connection.subscribe(box, arrived)
        try:
            config = {
                "deliver_subject": box, "ack_policy": "none", "deliver_policy": "last_per_subject", "headers_only": True,
                "filter_subject": wanted, "mem_storage": True, "num_replicas": 1,
                "max_deliver": 1, "inactive_threshold": 10_000_000_000,
            }  # fmt: skip
            answer = await self.connection.api(f"CONSUMER.CREATE.{self.stream}", {"stream_name": self.stream, "config": config})
            if "error" in answer:
                raise NoriaError(f"cannot list runs: {answer['error'].get('description')}")
            total = answer.get("num_pending", 0) + answer.get("delivered", {}).get("consumer_seq", 0)
            if seen < total:
                async with asyncio.timeout(20):
                    await done.wait()
            self.connection.publish(f"{self.connection.js}.CONSUMER.DELETE.{self.stream}.{answer['name']}")
        except TimeoutError as error:
            raise BrokerUnavailable("the list of runs did not come in time") from error
        finally:
            await stop()
        return list(found.items())


class NatsBlobs:
    """ports.Blobs as chunks in a stream of their own: plain messages are faster than the object store up to 1 MiB."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects

    async def put(self, run: RunKey, data: bytes, name: str | None = None) -> str:
        size = min(CHUNK_BYTES, self.connection.client.max_payload - PAYLOAD_MARGIN_BYTES)
        name = f"{name or hashlib.sha256(data).hexdigest()}-{max(1, (len(data) + size - 1) // size)}"
        subject = self.subjects.blob(run, name)
        if await last(self.connection, self.subjects.blobs, f"{subject}.0") is None:
            later = list(enumerate(range(0, len(data), size)))[1:]
            for part in range(0, len(later), CHUNKS_AT_ONCE):
                chunks = later[part : part + CHUNKS_AT_ONCE]
                await asyncio.gather(*(self.connection.append(f"{subject}.{n}", data[at : at + size]) for n, at in chunks))
            # the first chunk goes last: who finds it finds all
            await self.connection.append(f"{subject}.0", data[:size])
        return name

    async def get(self, run: RunKey, name: str) -> bytes:
        # by exact subjects: a wildcard would scan to the end of the stream
        subject, count = self.subjects.blob(run, name), int(name.rpartition("-")[2])
        bodies = list[bytes | None]()
        for at in range(0, count, CHUNKS_AT_ONCE):
            bodies += await asyncio.gather(*(self._chunk(f"{subject}.{n}") for n in range(at, min(at + CHUNKS_AT_ONCE, count))))
        found = [body for body in bodies if body is not None]
        if len(found) != count:
            raise ValueUnavailable(f"the stored value {name} of run {run.run!r} of workflow {run.workflow!r} is gone or incomplete")
        return b"".join(found)

    async def _chunk(self, subject: str) -> bytes | None:
        """None: it is not there. A replica may not have it yet."""
        found = await last(self.connection, self.subjects.blobs, subject)
        if found is not None or not self.connection.replicated:
            return None if found is None else found.body
        try:
            return await last_of_leader(self.connection, self.subjects.blobs, subject)
        except NotPermitted:
            return None

    def drop(self, run: RunKey, name: str) -> None:
        body = dumps({"filter": f"{self.subjects.blob(run, name)}.>"})
        self.connection.publish(f"{self.connection.js}.STREAM.PURGE.{self.subjects.blobs}", body)

    async def purge(self, run: RunKey) -> None:
        await purge(self.connection, self.subjects.blobs, self.subjects.blob(run))


class NatsCatalogue:
    """ports.Catalogue in a key-value bucket."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects
        self.stream = f"KV_{subjects.catalogue}"

    async def put(self, workflow: str, body: bytes) -> None:
        if await self.get(workflow) != body:
            await self.connection.append(f"$KV.{self.subjects.catalogue}.{workflow}", body)

    async def get(self, workflow: str) -> bytes | None:
        found = await last(self.connection, self.stream, f"$KV.{self.subjects.catalogue}.{workflow}")
        return found.body if found is not None and found.body else None

    async def list(self) -> Mapping[str, bytes]:
        found: Any = await read(self.connection, self.stream, f"$KV.{self.subjects.catalogue}.*")
        return {m.subject.rpartition(".")[2]: m.body for m in found if m.body}
