"""Whether what a run recorded fits a definition, which may be a later one than the run began with.

Compatible: other code of a step, other conditions, entries added or removed behind where the run stands, new members of
a block. Incompatible: a recorded place is gone or became another kind, or an entry stands before one that already ran.
"""

from __future__ import annotations

from noria.machine.state import ENDED, Actor, Tree, join, segment, split
from noria.machine.tasks import Unit
from noria.workflow.builder import Workflow
from noria.workflow.entries import BranchEntry, Entry, ForeachEntry, LoopEntry, MapEntry, ParallelEntry, SleepEntry, ThenEntry
from noria.workflow.steps import Step


def misfit(tree: Tree, unit: Unit) -> str | None:
    """Why the run's recorded places do not fit `unit`, what its base runs; None when they do."""
    return _misfit(tree, tree.root, unit)


def _misfit(tree: Tree, actor: Actor, unit: Unit) -> str | None:
    if actor.status in ENDED:
        return None
    place = actor.path or "the workflow"
    if isinstance(unit, Step):
        others = [name for name in actor.order if name != unit.id]
        return f"{place} is a step now, but {others[0]!r} ran in it" if others else None
    if actor.leaf:
        return f"{place} is a workflow now, but ran as a step"
    return _order_misfit(actor, unit) or _children_misfit(tree, actor, unit)


def _order_misfit(actor: Actor, workflow: Workflow) -> str | None:
    places: dict[str, tuple[int, bool]] = {}  # recorded name -> (position, whether it has a record of its own)
    for n, entry in enumerate(workflow.entries):
        for name, own in _names(entry):
            places[name] = (n, own)
    last, behind = -1, ""
    for name in (*actor.steps, *actor.children, *actor.blocks):
        place = places.get(name)
        if place is None:
            return f"{name!r} ran, and is gone"
        if name in actor.steps and not place[1]:
            return f"{name!r} ran as a step of its own, and is something else now"
        if name in actor.children and place[1] and not isinstance(workflow.entries[place[0]], ForeachEntry):
            return f"{name!r} ran as a child, and is something else now"
        if place[0] > last:
            last, behind = place[0], name
    for entry in workflow.entries[: max(last, 0)]:
        if not _is_done(actor, entry):
            return f"{entry.id!r} stands before {behind!r}, which ran already"
    return None


def _names(entry: Entry) -> list[tuple[str, bool]]:
    """What an entry may be recorded as: (name, whether as a record of the workflow itself)."""
    match entry:
        case ThenEntry() | LoopEntry():
            return [(entry.id, isinstance(entry.unit, Step))]
        case ForeachEntry() | MapEntry() | SleepEntry():
            return [(entry.id, True)]
        case ParallelEntry() | BranchEntry():
            return [(entry.id, False), *((member.id, False) for member in entry.members)]


def _is_done(actor: Actor, entry: Entry) -> bool:
    record = actor.steps.get(entry.id)
    return entry.id in actor.blocks or (record is not None and record.status == "success")


def _children_misfit(tree: Tree, actor: Actor, workflow: Workflow) -> str | None:
    spread = {entry.id for entry in workflow.entries if isinstance(entry, ForeachEntry)}
    for name, paths in actor.children.items():
        for path in paths:
            child = tree.actors.get(path)
            if child is None or child.status in ENDED or path != join(actor.path, segment(path)):
                continue
            unit = workflow.units.get(name)
            if unit is None or (name in spread) != (split(segment(path))[1] is not None):
                return f"{path!r} runs, and is gone"
            reason = _misfit(tree, child, unit)
            if reason is not None:
                return reason
    return None
