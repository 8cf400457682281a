"""What a step that was spread sees of the workflow around it, which lives on another host."""

from __future__ import annotations

from typing import Any, NamedTuple

from noria.actor.load import load
from noria.actor.once import Once
from noria.limits import RESULTS_KEPT
from noria.machine.state import parent, segment, split
from noria.machine.view import results
from noria.ports import ActorKey, Broker, RunKey


class Around(NamedTuple):
    """A workflow as the steps see that were spread from it: its input, and the outputs of its steps that succeeded."""

    init: Any
    results: dict[str, Any]


NOTHING = Around(None, {})


class Surroundings:
    """The workflows around spread steps, each read once per host and block of children: what they show came before the
    block, and does not change while it runs. To send it along with each start would store it once per child."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        # by run, path of the workflow, unit of its children and their life
        self._known = Once[tuple[RunKey, str, str, int], Around](RESULTS_KEPT)

    async def of(self, actor: ActorKey) -> Around:
        """The workflow around an actor."""
        path = parent(actor.path)
        unit, _, life = split(segment(actor.path))
        return await self._known.read((actor.tree, path, unit, life), lambda: self._read(actor.tree, path))

    async def _read(self, run: RunKey, path: str) -> Around:
        tree = (await load(self._broker, ActorKey(*run))).tree
        workflow = tree.actors.get(path)
        return NOTHING if workflow is None else Around(workflow.input, results(tree, workflow))
