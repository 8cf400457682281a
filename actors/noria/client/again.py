"""Whether a command was sent before: of a request that is asked again since its answer was lost, the first one counts."""

from __future__ import annotations

from noria.actor import parcels
from noria.contract import commands
from noria.ports import ActorKey, Broker, RunKey


async def sent_before(broker: Broker, run: RunKey, kind: type[commands.Command], id: str) -> int | None:
    """The sequence of the run's command of this kind with this id; None when there is none."""
    for entry in await broker.commands.read(ActorKey(*run)):
        body = await parcels.unpack(broker, run, entry.body)
        if id.encode() in body and isinstance(command := commands.decode(body), kind) and command.id == id:
            return entry.sequence
    return None
