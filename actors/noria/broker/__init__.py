"""The only importer of nats: the ports of the runtime on NATS JetStream."""

from __future__ import annotations

import os
from typing import Any

import noria.broker.aiohttp_later  # noqa: F401  # pyright: ignore[reportUnusedImport]  # before anything imports nats
from noria.broker.commands import NatsCommands
from noria.broker.connection import Connection
from noria.broker.contexts import context_options, environment_options
from noria.broker.log import NatsLog
from noria.broker.opening import open_connection
from noria.broker.presence import NatsPresence
from noria.broker.schedules import NatsSchedules
from noria.broker.services import NatsCalls, NatsServices
from noria.broker.signals import NatsNews, NatsTimers
from noria.broker.stores import NatsBlobs, NatsCatalogue, NatsRecords
from noria.broker.topology import Topology
from noria.broker.triggers import NatsTriggers
from noria.contract.subjects import Subjects
from noria.limits import MAX_INLINE_BYTES, PAYLOAD_MARGIN_BYTES
from noria.ports import Blobs, Calls, Catalogue, Commands, Log, News, Operations, Presence, Records, Schedules, Services, Timers, Triggers

DEFAULT_URL = "nats://127.0.0.1:4222"


class NatsBroker:
    """All ports on one connection."""

    def __init__(self, connection: Connection, namespace: str, replicas: int = 1) -> None:
        self.connection, self.subjects = connection, Subjects(namespace)
        self.namespace, self.url = namespace, connection.url
        self.topology = Topology(connection, self.subjects, replicas)
        self.log: Log = NatsLog(connection, self.subjects)
        self.commands: Commands = NatsCommands(connection, self.subjects)
        self.timers: Timers = NatsTimers(connection, self.subjects)
        self.records: Records = NatsRecords(connection, self.subjects)
        self.blobs: Blobs = NatsBlobs(connection, self.subjects)
        self.catalogue: Catalogue = NatsCatalogue(connection, self.subjects)
        self.news: News = NatsNews(connection, self.subjects)
        self.presence: Presence = NatsPresence(connection, self.subjects)
        self.triggers: Triggers = NatsTriggers(connection, self.subjects)
        self.schedules: Schedules = NatsSchedules(connection, self.subjects)
        self.calls: Calls = NatsCalls(connection)
        self.services: Services = NatsServices(connection)
        self.operations: Operations = self.topology
        connection.stream_of = self._stream_of

    def _stream_of(self, subject: str) -> str:
        if subject.startswith("$KV."):
            return "KV_" + subject.split(".")[1]
        kind = subject.split(".")[1]
        special = {"trigger": self.subjects.triggers, "cron": self.subjects.triggers, "dead": self.subjects.dead, "blob": self.subjects.blobs}
        return special.get(kind, self.subjects.runs)

    @property
    def inline_bytes(self) -> int:
        return min(MAX_INLINE_BYTES, self.payload_bytes)

    @property
    def payload_bytes(self) -> int:
        # five eighths: a codec makes bodies a third larger
        return (self.connection.client.max_payload - PAYLOAD_MARGIN_BYTES) * 5 // 8

    @property
    def connected(self) -> bool:
        return self.connection.client.is_connected

    @property
    def trouble(self) -> str:
        return "" if self.connected else self.connection.trouble or "not connected"

    async def provision(self) -> None:
        await self.topology.provision()

    async def close(self) -> None:
        await self.connection.close()


async def connect_broker(
    url: str | None, namespace: str, *, creds: str | None = None, tls: Any = None, replicas: int = 1, **options: Any
) -> NatsBroker:
    """Connect to `url`, else `NATS_URL`, else the selected nats CLI context, else the local default. Who we are there:
    `options`, else the environment of the nats CLI (NATS_USER, NATS_CA and so on), else the context."""
    Subjects(namespace)
    url, known = url or os.environ.get("NATS_URL") or None, environment_options()
    if url is None:
        url, found = context_options()
        known = {**found, **known}
    options = {**known, **options}
    if creds is not None:
        options["user_credentials"] = creds
    if tls is not None:
        options["tls"] = tls
    return NatsBroker(await open_connection(url or DEFAULT_URL, **options), namespace, replicas)
