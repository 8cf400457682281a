"""What an operator asks: is everything there, and does it work?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noria.broker import NatsBroker
from noria.broker.topology import streams

if TYPE_CHECKING:
    from noria.client.noria import Noria


class Infra:
    """Streams and buckets of the namespace."""

    def __init__(self, broker: NatsBroker) -> None:
        self._broker = broker

    async def plan(self) -> list[str]:
        """What `apply` would do."""
        return await self._broker.topology.plan()

    async def apply(self) -> list[str]:
        """Create what is missing, change what differs; what was done."""
        return await self._broker.topology.apply()


async def check_up(noria: Noria) -> list[tuple[str, bool, str]]:
    """(name, ok, detail and fix) of each check."""
    broker = noria.broker
    found = [("server", True, f"nats-server {broker.server_version} at {broker.url}")]
    account = await broker.connection.api("INFO")
    ok = "error" not in account
    found.append(("jetstream", ok, "enabled" if ok else "not enabled: start the server with -js"))
    if not ok:
        return found
    for wanted in streams(broker.subjects):
        info = await broker.connection.api(f"STREAM.INFO.{wanted['name']}")
        missing = "error" in info
        detail = "missing: noria infra apply" if missing else f"{info['state']['messages']} messages, replicas {info['config']['num_replicas']}"
        found.append((str(wanted["name"]), not missing, detail))
    if any(not good for _, good, _ in found):
        return found
    for name in sorted(await broker.catalogue.list()):
        hosted = await broker.commands.hosted(name)
        found.append((f"workflow {name}", hosted, "hosted" if hosted else "no worker: noria worker MODULE:ATTR"))
    return found
