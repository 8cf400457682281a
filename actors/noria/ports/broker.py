"""All ports together, and what concerns the namespace as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from noria.ports.calls import Calls, Presence, Services
from noria.ports.outside import Schedules, Triggers
from noria.ports.runs import Blobs, Commands, Log, News, Records, Timers


class Catalogue(Protocol):
    """The workflows that were ever registered: id -> description (JSON)."""

    async def put(self, workflow: str, body: bytes) -> None: ...
    async def get(self, workflow: str) -> bytes | None: ...
    async def list(self) -> Mapping[str, bytes]: ...


class Operations(Protocol):
    """What an operator asks: is everything there, and does it work?"""

    async def plan(self) -> list[str]:
        """What `apply` would do, a line each."""
        ...

    async def apply(self) -> list[str]:
        """Create what is missing, change what differs; what was done."""
        ...

    async def check(self) -> list[tuple[str, bool, str]]:
        """(name, ok, detail and fix) of the server and of each thing that must be there."""
        ...


class Broker(Protocol):
    """All ports together, on one connection."""

    namespace: str
    url: str
    log: Log
    commands: Commands
    timers: Timers
    records: Records
    blobs: Blobs
    catalogue: Catalogue
    news: News
    presence: Presence
    triggers: Triggers
    schedules: Schedules
    calls: Calls
    services: Services
    operations: Operations

    @property
    def inline_bytes(self) -> int:
        """Larger bodies go to the blobs."""
        ...

    @property
    def payload_bytes(self) -> int:
        """What one message may carry."""
        ...

    @property
    def connected(self) -> bool:
        """Whether the broker is reached right now."""
        ...

    @property
    def trouble(self) -> str:
        """Why it is not reached; empty while it is."""
        ...

    async def provision(self) -> None: ...
    async def close(self) -> None: ...


class Codec(Protocol):
    """What seals values at rest. Laws: `open` of what `seal` gave, in the same context, is the data; in another one, or
    of anything else, it raises NoriaError. Neither blocks."""

    def seal(self, data: bytes, context: bytes) -> bytes: ...
    def open(self, data: bytes, context: bytes) -> bytes: ...
