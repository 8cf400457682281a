"""Where an actor stands in the definition: what it runs, and in which workflow."""

from __future__ import annotations

from noria.errors import GraphMismatch
from noria.machine.state import Actor, Tree, parent, segment, split
from noria.machine.tasks import Unit
from noria.workflow.builder import Workflow
from noria.workflow.entries import LoopEntry
from noria.workflow.steps import Step


class Places:
    """The units of one workflow by the paths of a run's actors. `base`: path of the activation's own actor."""

    def __init__(self, workflow: Workflow, base: str) -> None:
        self.workflow, self.base = workflow, base
        self._units: dict[str, Unit] = {}

    def unit(self, path: str) -> Unit:
        """What an actor runs. Raises GraphMismatch when this version of the graph has no such place."""
        found = self._units.get(path)
        if found is None:
            found = self._units[path] = self.workflow if path == "" else self._find(path)
        return found

    def _find(self, path: str) -> Unit:
        above, name = self.unit(parent(path)), split(segment(path))[0]
        if isinstance(above, Step) or name not in above.units:
            raise GraphMismatch(f"workflow {self.workflow.id!r}, version {self.workflow.version!r}, has no place {path!r}")
        return above.units[name]

    def workflow_of(self, actor: Actor) -> Workflow:
        """The innermost workflow around an actor."""
        unit = self.unit(actor.path)
        if isinstance(unit, Step):
            unit = self.unit(parent(actor.path))
        assert isinstance(unit, Workflow)
        return unit

    def validates(self, path: str) -> bool:
        """Whether what stands at a path is held to its types: so it is unless a workflow around it, or it itself, says otherwise."""
        while True:
            unit = self.unit(path)
            if isinstance(unit, Workflow) and not unit.validate:
                return False
            if not path:
                return True
            path = parent(path)

    def scope(self, tree: Tree, actor: Actor) -> Actor | None:
        """The actor of the innermost workflow; None when it lives on another host."""
        if not isinstance(self.unit(actor.path), Step):
            return actor
        return tree.actor(parent(actor.path)) if actor.path != self.base else None

    def rounds(self, tree: Tree, actor: Actor, place: str, own: int) -> int:
        """Rounds completed of the innermost loop around a place of an actor; `own`: of the place itself, where it is looped."""
        path = actor.path if isinstance(self.unit(actor.path), Workflow) else parent(actor.path)
        if self._is_looped(path, place):
            return own
        while path:
            seg, path = segment(path), parent(path)
            unit, _, life = split(seg)
            if self._is_looped(path, unit):
                above = tree.actors.get(path)
                return above.rounds.get(unit, 1) - 1 if above is not None else life - 1  # it lives on another host
        return 0

    def _is_looped(self, path: str, unit: str) -> bool:
        workflow = self.unit(path)
        return isinstance(workflow, Workflow) and any(isinstance(entry, LoopEntry) and entry.id == unit for entry in workflow.entries)
