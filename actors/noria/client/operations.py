"""What an operator asks: is everything there, and does it work?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noria.ports import Broker

if TYPE_CHECKING:
    from noria.client.noria import Noria


class Infra:
    """Streams and buckets of the namespace."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def plan(self) -> list[str]:
        """What `apply` would do."""
        return await self._broker.operations.plan()

    async def apply(self) -> list[str]:
        """Create what is missing, change what differs; what was done."""
        return await self._broker.operations.apply()


async def check_up(noria: Noria) -> list[tuple[str, bool, str]]:
    """(name, ok, detail and fix) of each check."""
    broker = noria.broker
    found = await broker.operations.check()
    if any(not good for _, good, _ in found):
        return found
    for name in sorted(await broker.catalogue.list()):
        hosted = await broker.commands.hosted(name)
        found.append((f"workflow {name}", hosted, "hosted" if hosted else "no worker: noria worker MODULE:ATTR"))
    for key, reason in await noria.runs.misfits():
        found.append((f"run {key.run}", False, f"{reason}. Run a worker of the version that it began with, or cancel it"))
    return found
