"""The processes of a world, each with its connection and client, and what the engine did not expect of them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from noria import Noria
from noria.testing.loop import Process
from noria.testing.memory import MemoryBroker
from tests.simulation.weather import FaultyWire

if TYPE_CHECKING:
    from tests.simulation.world import World

LEASE = 5.0  # of the workers


class Member:
    """A process of the world with its connection and client."""

    def __init__(self, world: World, name: str, mortal: bool = True) -> None:
        self.process = Process(name)
        self.wire: FaultyWire | None = None
        self.stop = asyncio.Event()
        self._world, self._mortal = world, mortal

    def client(self) -> Noria:
        """Made inside the process."""
        world = self._world
        self.wire = FaultyWire(world.weather, self.process, self._mortal)
        broker = MemoryBroker(world.server, "sim", self.wire)
        broker.inline_bytes = world.kind.inline_bytes or broker.inline_bytes
        return Noria(broker)

    @property
    def lives(self) -> bool:
        return not self.process.killed

    def kill(self) -> None:
        if self.wire is not None:
            self.wire.kill()


class Errors(logging.Handler):
    """What the engine did not expect."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[1] is not None:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")
