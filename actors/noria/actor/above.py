"""What a step that was spread sees of the workflow around it, which lives on another host."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeAlias

from noria.actor.load import load
from noria.limits import RESULTS_KEPT
from noria.machine.state import parent, segment, split
from noria.machine.view import results
from noria.ports import ActorKey, Broker, RunKey

if TYPE_CHECKING:
    from noria.actor.activation import Activation

Block: TypeAlias = tuple[RunKey, str, str, int]  # run, path of the workflow, unit of its children and their life


class Above:
    """Results of workflows around spread steps, read once per host and block of children: they came before the block,
    and do not change while it runs."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: OrderedDict[Block, asyncio.Task[dict[str, Any]]] = OrderedDict()

    async def results(self, activation: Activation) -> dict[str, Any]:
        """The outputs of the steps that succeeded in the workflow around the activation's actor."""
        path = activation.key.path
        unit, _, life = split(segment(path))
        block = (activation.key.tree, parent(path), unit, life)
        reading = self._known.get(block)
        if reading is None or (reading.done() and (reading.cancelled() or reading.exception() is not None)):
            reading = self._known[block] = asyncio.create_task(self._read(activation.key.tree, parent(path)))
            if len(self._known) > RESULTS_KEPT:
                self._known.popitem(last=False)
        return await asyncio.shield(reading)

    async def _read(self, run: RunKey, path: str) -> dict[str, Any]:
        tree = (await load(self._broker, ActorKey(*run))).tree
        return results(tree, tree.actors[path]) if path in tree.actors else {}
