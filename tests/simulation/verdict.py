"""What the runs of a world must have come to, by the interpreter, and whether they did."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from noria import Noria
from noria.contract.values import dumps, loads
from noria.machine.state import Tree
from noria.ports import ActorKey, RunKey
from noria.testing.loop import Process
from noria.testing.memory import MemoryBroker
from tests.simulation.graphs import Outcome, expected
from tests.simulation.trouble import targets
from tests.simulation.watch import Rewind, Violation
from tests.simulation.weather import FaultyWire

if TYPE_CHECKING:
    from tests.simulation.world import World


class Verdict:
    """Of one world, once everything in it has come to its end."""

    def __init__(self, world: World) -> None:
        self.world = world

    def _expected(self, key: RunKey) -> Outcome | None:
        """What the interpreter says of a run, sent back as it was; None: it was where something had to be made up."""
        world = self.world
        spec, first, begin = world.specs[key.workflow], world.expected[key.workflow], None
        found: Outcome | None = first
        for of, rewind in self._travels(key):
            target, given = rewind.travel.target, rewind.travel.input
            index = self._entry(key, target[0])
            if given is not None:
                found, begin = expected(spec, given, index), index
            elif not self._stood(of, rewind):
                found, begin = None, None
            elif begin is not None and index < begin:
                found, begin = (*first[:2], None), None  # what the other life wrote stays
        return found

    def _stood(self, key: RunKey, rewind: Rewind) -> bool:
        """Whether a run was, when it was sent back, where whoever sent it had seen it: he may have been slow."""
        origin = rewind.travel.origin
        tree = self.world.watch.folded(key, rewind.fact) if origin is None else Tree.of(loads(dumps(origin)))
        return ".".join(rewind.travel.target) in dict(targets(self.world.specs[key.workflow], key, tree))

    def _travels(self, key: RunKey, until: float = inf) -> Iterator[tuple[RunKey, Rewind]]:
        """Those that took effect up to a fact; of a fork those of its origin first."""
        for rewind in self.world.watch.rewinds.get(key, ()):
            origin = rewind.travel.origin
            if origin is not None:
                yield from self._travels(self.world.origins[key], next(a["last"] for a in origin["actors"] if a["path"] == ""))
            if rewind.fact <= until:
                yield key, rewind

    def _entry(self, key: RunKey, unit: str) -> int:
        return next(n for n, entry in enumerate(self.world.specs[key.workflow]) if f"'{unit}'" in str(entry))

    async def judge(self) -> None:
        """Raises Violation for the first run that did not come to its end."""
        world = self.world
        noria = Noria(MemoryBroker(world.server, "sim", FaultyWire(world.weather, Process("judge"), mortal=False)))
        for key in world.runs:
            outcome = self._expected(key)
            record = await noria.runs.get(key.run, world.flow(key))
            tree = world.watch.tree(key)
            if record is None or record.status != tree.root.status:
                raise Violation(f"{key}: its log says {tree.root.status}, its reader {record}")
            if outcome is None or (record.status == "canceled" and key in world.cancelled):
                continue
            wanted, value, state = outcome
            if record.status != wanted:
                raise Violation(f"{key} came to {record.status} ({record.error}), not {wanted}: {world.specs[key.workflow]}")
            if wanted == "success" and record.result != value:
                raise Violation(f"{key} gives {record.result}, not {value}: {world.specs[key.workflow]}")
            if wanted == "success" and state is not None and "bail" not in str(world.specs[key.workflow]) and record.state != state:
                raise Violation(f"{key} has the state {record.state}, not {state}: {world.specs[key.workflow]}")
            if await noria.broker.log.last(ActorKey(*key)) is None and record.result is None and wanted == "success":
                raise Violation(f"{key}: its result aged out")
