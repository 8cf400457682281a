"""A normal client on a simulated broker."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime

from noria.client.noria import Noria
from noria.contract.subjects import Subjects
from noria.testing.loop import EPOCH
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server
from noria.testing.virtual import virtual_time


@asynccontextmanager
async def simulated(namespace: str = "noria", *, start: datetime | None = None, seed: int = 0) -> AsyncGenerator[Noria]:
    """A client like that of `Noria.connect()`, on a broker in memory that obeys the same laws. Time is virtual while
    it is open: an hour's sleep takes none. `start`: what the clock says at first (aware); `seed`: where run ids and
    jitter come from, so the same test makes the same run."""
    Subjects(namespace)
    with virtual_time(EPOCH if start is None else start.timestamp(), seed):
        noria = Noria(MemoryBroker(Server(), namespace))
        try:
            yield noria
        finally:
            await noria.close()
