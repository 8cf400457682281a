"""What runs right now: no fact says so, only what observers were told."""

from __future__ import annotations

from typing import Any

from noria.machine.fold import link
from noria.machine.state import Actor, StepRecord, Tree, segment, split

STATUSES = {"workflow-step-start": "running", "workflow-step-waiting": "waiting"}


def show_running(tree: Tree, sequence: int, path: str, type: str, step: str | None, at: float, data: dict[str, Any]) -> None:
    """A live event shown in a tree that is only looked at. It counts until a fact of its actor says more."""
    if path not in tree.actors and tree.is_over(path):
        return
    actor = tree.actor(path)
    if type not in STATUSES or sequence <= actor.last:
        return
    tree.hosted = True
    if path:
        if step == split(segment(path))[0] and actor.started_at is None:  # a nested workflow told before that it began
            actor.leaf = True
        link(tree, actor)
    actor.started_at = at if actor.started_at is None else actor.started_at
    if step is not None and step not in actor.children:  # of a foreach that is under way its items tell
        _show(actor, step, STATUSES[type], at, data)


def _show(actor: Actor, step: str, status: str, at: float, data: dict[str, Any]) -> None:
    record = actor.steps.get(step)
    if record is None or record.status == "success":  # the first time, or a further round of a loop
        round = 1 if record is None else record.iterations + 1
        record = actor.steps[step] = StepRecord(status, data.get("input", actor.prev), at, iterations=round)
    record.status = status
    if "attempt" in data:
        record.attempts = data["attempt"] + 1
    if "resume_payload" in data:
        record.resumed, record.resume_payload, record.resumed_at = True, data["resume_payload"], at
    if step not in actor.order:
        actor.order.append(step)
