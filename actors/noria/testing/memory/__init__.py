"""Every port of `noria.ports` in memory: a simulated broker that obeys the laws of the real one (tests/laws)."""

from __future__ import annotations

from noria.limits import MAX_INLINE_BYTES, MAX_VALUE_BYTES
from noria.ports import Blobs, Calls, Catalogue, Commands, Log, News, Operations, Presence, Records, Schedules, Services, Timers, Triggers
from noria.testing.memory.calls import MemoryCalls, MemoryServices
from noria.testing.memory.commands import MemoryCommands
from noria.testing.memory.log import MemoryLog
from noria.testing.memory.presence import MemoryPresence
from noria.testing.memory.signals import MemoryNews, MemoryTimers
from noria.testing.memory.stores import MemoryBlobs, MemoryCatalogue, MemoryRecords
from noria.testing.memory.triggers import MemorySchedules, MemoryTriggers
from noria.testing.server import Server
from noria.testing.wire import Wire


class MemoryBroker:
    """All ports on one connection to a simulated server."""

    def __init__(self, server: Server, namespace: str, wire: Wire | None = None) -> None:
        self.server, self.namespace, self.url = server, namespace, f"memory://{namespace}"
        self.wire = wire if wire is not None else Wire()
        self.inline_bytes, self.payload_bytes = MAX_INLINE_BYTES, MAX_VALUE_BYTES
        self.connected, self.trouble = True, ""
        self.log: Log = MemoryLog(server, self.wire)
        self.commands: Commands = MemoryCommands(server, self.wire)
        self.timers: Timers = MemoryTimers(server, self.wire)
        self.records: Records = MemoryRecords(server, self.wire)
        self.blobs: Blobs = MemoryBlobs(server, self.wire)
        self.catalogue: Catalogue = MemoryCatalogue(server, self.wire)
        self.news: News = MemoryNews(server, self.wire)
        self.presence: Presence = MemoryPresence(server, self.wire)
        self.triggers: Triggers = MemoryTriggers(server, self.wire)
        self.schedules: Schedules = MemorySchedules(server, self.wire)
        self.calls: Calls = MemoryCalls(server, self.wire)
        self.services: Services = MemoryServices(server, self.wire)
        self.operations: Operations = MemoryOperations(self.url)

    async def provision(self) -> None:
        """There is nothing to create."""

    async def close(self) -> None:
        self.wire.close()


class MemoryOperations:
    """ports.Operations: nothing is missing here."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def plan(self) -> list[str]:
        return []

    async def apply(self) -> list[str]:
        return []

    async def check(self) -> list[tuple[str, bool, str]]:
        return [("server", True, f"simulated, at {self._url}")]
