"""What a step that was spread sees of the workflow around it, which lives on another host."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, NamedTuple, TypeAlias

from noria.actor.load import load
from noria.limits import RESULTS_KEPT
from noria.machine.state import parent, segment, split
from noria.machine.view import results
from noria.ports import ActorKey, Broker, RunKey

Block: TypeAlias = tuple[RunKey, str, str, int]  # run, path of the workflow, unit of its children and their life


class Around(NamedTuple):
    """A workflow as the steps see that were spread from it: its input, and the outputs of its steps that succeeded."""

    init: Any
    results: dict[str, Any]


NOTHING = Around(None, {})


class Above:
    """What is known of workflows around spread steps, read once per host and block of children: it came before the
    block, and does not change while it runs. To send it along with each start would store it once per child."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: OrderedDict[Block, asyncio.Task[Around]] = OrderedDict()

    async def look(self, actor: ActorKey) -> Around:
        """The workflow around an actor."""
        around = parent(actor.path)
        unit, _, life = split(segment(actor.path))
        block = (actor.tree, around, unit, life)
        reading = self._known.get(block)
        if reading is None or (reading.done() and (reading.cancelled() or reading.exception() is not None)):
            reading = self._known[block] = asyncio.create_task(self._read(actor.tree, around))
            if len(self._known) > RESULTS_KEPT:
                self._known.popitem(last=False)
        return await asyncio.shield(reading)

    async def _read(self, run: RunKey, path: str) -> Around:
        tree = (await load(self._broker, ActorKey(*run))).tree
        workflow = tree.actors.get(path)
        return NOTHING if workflow is None else Around(workflow.input, results(tree, workflow))
