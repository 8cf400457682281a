"""What the runs of a world must have come to, by the interpreter, and whether they did."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from noria import Noria
from noria.contract.commands import TimeTravel
from noria.ports import ActorKey, RunKey
from noria.testing.loop import Process
from noria.testing.memory import MemoryBroker
from tests.simulation.graphs import Outcome, expected
from tests.simulation.watch import Violation
from tests.simulation.weather import FaultyWire

if TYPE_CHECKING:
    from tests.simulation.world import World


class Verdict:
    """Of one world, once everything in it has come to its end."""

    def __init__(self, world: World) -> None:
        self.world = world

    def _expected(self, key: RunKey) -> Outcome:
        """What the interpreter says of a run, sent back as it was."""
        world = self.world
        outcome, begin, spec = world.expected[key.workflow], None, world.specs[key.workflow]
        for travel in self._travels(key):
            index = self._entry(key, travel.target[0])
            if travel.input is not None:
                outcome, begin = expected(spec, travel.input, index), index
            elif begin is not None and index < begin:
                outcome, begin = (*world.expected[key.workflow][:2], None), None  # what the other life wrote stays
        return outcome

    def _travels(self, key: RunKey, until: float = inf) -> Iterator[TimeTravel]:
        """Those that took effect up to a fact; of a fork those of its origin first."""
        for fact, _, travel in self.world.watch.rewinds.get(key, ()):
            if travel.origin is not None:
                yield from self._travels(self.world.origins[key], next(a["last"] for a in travel.origin["actors"] if a["path"] == ""))
            if fact <= until:
                yield travel

    def _entry(self, key: RunKey, unit: str) -> int:
        return next(n for n, entry in enumerate(self.world.specs[key.workflow]) if f"'{unit}'" in str(entry))

    async def judge(self) -> None:
        """Raises Violation for the first run that did not come to its end."""
        world = self.world
        noria = Noria(MemoryBroker(world.server, "sim", FaultyWire(world.weather, Process("judge"), mortal=False)))
        for key in world.runs:
            wanted, value, state = self._expected(key)
            record = await noria.runs.get(key.run, world.flow(key))
            tree = world.watch.tree(key)
            if record is None or record.status != tree.root.status:
                raise Violation(f"{key}: its log says {tree.root.status}, its reader {record}")
            if record.status == "canceled" and key in world.cancelled:
                continue
            if record.status != wanted:
                raise Violation(f"{key} came to {record.status} ({record.error}), not {wanted}: {world.specs[key.workflow]}")
            if wanted == "success" and record.result != value:
                raise Violation(f"{key} gives {record.result}, not {value}: {world.specs[key.workflow]}")
            if wanted == "success" and state is not None and "bail" not in str(world.specs[key.workflow]) and record.state != state:
                raise Violation(f"{key} has the state {record.state}, not {state}: {world.specs[key.workflow]}")
            if await noria.broker.log.last(ActorKey(*key)) is None and record.result is None and wanted == "success":
                raise Violation(f"{key}: its result aged out")
