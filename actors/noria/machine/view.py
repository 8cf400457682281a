"""What a tree looks like from outside: statuses, step records, suspensions. JSON-able."""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from typing import Any

from noria.contract.values import as_list
from noria.machine.decide import resumed
from noria.machine.state import ENDED, RESTING, Actor, StepRecord, Tree, items, live, segment, split, suspension_of

OPEN = ("suspended", "waiting", "running", "paused")
USAGE = ("input_tokens", "output_tokens", "total_tokens")
SHOWN = tuple(f.name for f in fields(StepRecord) if f.name not in ("resumed", "labels", "until"))
_shown = attrgetter(*SHOWN)


def status(tree: Tree) -> str:
    """The run's status."""
    root = tree.root
    if tree.travels:
        return "running" if root.last else "pending"
    if root.status in ENDED:
        return root.status
    waits_for_host = any(path == tree.base and s > root.in_seen for s, path in tree.pending)
    if root.status in ("new", "active"):
        return "running" if tree.facts or tree.hosted else "pending"
    if canceled_at_rest(tree):
        return "canceled"
    return "running" if waits_for_host else root.status


def is_active(tree: Tree) -> bool:
    """Whether the run has something to do now, or once a timer is due."""
    return bool(tree.root.started) and status(tree) in ("running", "pending", "waiting")


def canceled_at_rest(tree: Tree) -> bool:
    """Whether the run rests and its oldest unconsumed command is a cancel: then nothing can come before it."""
    oldest = next((sequence for sequence, path in tree.pending if path == tree.base), 0)
    return tree.root.status in RESTING and oldest in tree.cancels


def settled(tree: Tree, after: int = 0) -> bool:
    """Whether the run ended, or rests for good having seen the command at `after`."""
    root = tree.root
    if tree.travels:
        return False
    if root.status in ENDED:
        return True
    if root.status not in ("suspended", "paused"):
        return canceled_at_rest(tree)
    return (root.in_seen >= after and not any(path == tree.base for _, path in tree.pending)) or canceled_at_rest(tree)


def view(tree: Tree, workflow: str, run: str, *, stored: bool = False, nested: bool = False) -> dict[str, Any]:
    """Everything that a RunResult is made of; with `stored` a RunRecord, which tells of suspensions only while the run
    is suspended, with `nested` the steps of nested workflows too."""
    root = tree.root
    state = status(tree)
    steps = _steps(tree, root, "", nested, root.status in ENDED or state == "canceled")
    for record in steps.values() if stored and state != "suspended" else ():
        record["suspend_payload"] = record["suspended_at"] = None
    return {
        "run_id": run,
        "workflow_id": workflow,
        "status": state,
        "input": root.input,
        "result": root.output if root.status == "success" else None,
        "error": root.error if root.error is not None or tree.misfit is None else _mismatch(tree.misfit),
        "tripwire": root.tripwire,
        "steps": steps,
        "state": live(tree.state),
        "suspended": [] if state in ENDED else [s for _, s in suspensions(tree)],
        "started_at": root.started_at,
        "ended_at": root.ended_at,
        "resource_id": tree.resource_id,
        "request_context": live(tree.context),
        "created_at": tree.created_at,
        "updated_at": tree.updated_at or tree.created_at,
        "version": tree.version,
    }


def usage(tree: Tree) -> dict[str, int]:
    """The tokens that the run's steps said they used."""
    return {kind: tree.usage.get(kind, 0) for kind in USAGE}


def result(tree: Tree, workflow: Actor, step: str) -> tuple[Any] | None:
    """The output of a step that succeeded in a workflow, in a tuple; None when there is none. One item's is not its foreach's."""
    record = workflow.steps.get(step)
    if record is not None:
        return (record.output,) if record.status == "success" else None
    for path in reversed(workflow.children.get(step, [])):
        child = tree.actors.get(path)
        if child is not None and child.status == "success" and split(segment(path))[1] is None:
            return (child.output,)
    return None


def results(tree: Tree, workflow: Actor) -> dict[str, Any]:
    """The outputs of all steps that succeeded in a workflow."""
    found = {name: result(tree, workflow, name) for name in (*workflow.steps, *workflow.children)}
    return {name: output[0] for name, output in found.items() if output is not None}


def summary(tree: Tree) -> dict[str, Any]:
    """One line for lists."""
    root = tree.root
    line: dict[str, Any] = {
        "status": status(tree),
        "created_at": tree.created_at,
        "started_at": root.started_at,
        "ended_at": root.ended_at,
        "resource_id": tree.resource_id,
        "commands": tree.commands,
        "expires_at": tree.expires_at,
    }
    return line if tree.misfit is None else {**line, "misfit": tree.misfit}


def _mismatch(reason: str) -> dict[str, Any]:
    return {"type": "GraphMismatch", "message": reason, "attributes": {}, "cause": None}


def _steps(tree: Tree, actor: Actor, prefix: str, nested: bool, over: bool) -> dict[str, Any]:
    """Records by step id, in order of first execution; with `nested` those of nested workflows too, dotted."""
    out: dict[str, Any] = {}
    for unit in _by_start(tree, actor):
        members = [tree.actors[p] for p in actor.children.get(unit, ()) if p in tree.actors]
        if unit in actor.steps:
            record = _record(tree, actor, unit)
        elif not members:
            continue
        elif any(split(segment(m.path))[1] is not None for m in members):
            record = _foreach_record(tree, actor, unit, members)
        elif members[-1].leaf:
            record = _record(tree, members[-1], unit)
        else:
            record = _nested_record(tree, actor, unit, members[-1])
        if over and record["status"] in OPEN:
            record["status"] = "canceled"
        out[prefix + unit] = record
        inside = [m for m in members if not m.leaf and (m.steps or m.children)] if nested else []
        if not inside:
            continue
        if record["status"] == "suspended":  # the step inside is: of one suspension one record tells
            record["status"] = "running"
        below = f"{prefix}{unit}."
        if split(segment(inside[-1].path))[1] is not None:
            out.update(_item_steps(tree, inside, below, over, len(as_list(record["input"]) or ())))
        else:
            ended = over or inside[-1].status in ENDED  # by a bail, say, while another step was suspended
            out.update(_steps(tree, inside[-1], below, True, ended))
    return out


def _item_steps(tree: Tree, members: list[Actor], prefix: str, over: bool, size: int) -> dict[str, Any]:
    """Of the steps of nested workflows that are the items of a foreach: one record of each step, as the foreach has one."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for member in sorted(members, key=_place):
        for name, record in _steps(tree, member, prefix, True, over or member.status in ENDED).items():
            found.setdefault(name, {})[_place(member)] = record
    return {name: _together(records, size) for name, records in found.items()}


def _together(records: dict[int, dict[str, Any]], size: int) -> dict[str, Any]:
    """The records of one step in several items as one: lists by index, None for items that did not come to it."""
    known = list(records.values())
    statuses = {record["status"] for record in known}
    state = next((s for s in (*OPEN, "failed", "tripwire", "canceled") if s in statuses), "success")
    together = max(known, key=lambda r: (r.get("resumed_at") or 0.0, r.get("suspended_at") or 0.0))  # the last resume counts
    waiting = next((r for r in known if r["status"] == "suspended"), together)
    ended = [r["ended_at"] for r in known if r.get("ended_at") is not None]
    return {
        **together,
        "status": state,
        "input": [records[n]["input"] if n in records else None for n in range(size)],
        "output": [records[n].get("output") if n in records else None for n in range(size)] if state == "success" else None,
        "error": next((r["error"] for r in known if r.get("error") is not None), None),
        "tripwire": next((r["tripwire"] for r in known if r.get("tripwire") is not None), None),
        "suspend_payload": waiting.get("suspend_payload"),
        "suspended_at": waiting.get("suspended_at"),
        "started_at": min((r["started_at"] for r in known if r.get("started_at") is not None), default=None),
        "ended_at": max(ended, default=None) if state in ENDED else None,
        "attempts": max(r.get("attempts", 1) for r in known),
        "iterations": max(r.get("iterations", 1) for r in known),
    }


def _by_start(tree: Tree, actor: Actor) -> list[str]:
    """Unit ids by first execution: of members that ran side by side the log tells in the order of their ends."""
    order: list[str] = []
    first: list[tuple[float, int]] = []  # (start, place among its siblings) of each
    for unit in actor.order:
        paths = actor.children.get(unit)
        child = tree.actors.get(paths[-1]) if paths and unit not in actor.steps else None
        began = (0.0, -1) if child is None else (_began(tree, child) or 0.0, child.member)
        at = len(order)
        while at and first[at - 1][0] >= began[0] and first[at - 1][1] > began[1] >= 0:
            at -= 1
        order.insert(at, unit)
        first.insert(at, began)
    return order


def _record(tree: Tree, actor: Actor, unit: str) -> dict[str, Any]:
    record: dict[str, Any] = dict(zip(SHOWN, _shown(actor.steps[unit]), strict=True))
    if record["status"] == "suspended" and resumed(actor, unit) is not None:
        record["status"] = _going(tree)
    return record


def _going(tree: Tree) -> str:
    """The status of what has to go on: in a paused run it waits for the word."""
    return "paused" if tree.root.status == "paused" else "running"


def _nested_record(tree: Tree, above: Actor, unit: str, last: Actor) -> dict[str, Any]:
    record: dict[str, Any] = {
        "status": child_status(tree, last),
        "input": last.input,
        "output": last.output,
        "error": last.error,
        "tripwire": last.tripwire,
        "started_at": _began(tree, last),
        "ended_at": last.ended_at,
        "iterations": above.rounds.get(unit, 1),
        "attempts": above.retries.get(unit, 0) + 1,
    }
    return _with_suspension(tree, record, [last], [last, *tree.below(last.path)])


def _began(tree: Tree, actor: Actor) -> float | None:
    """When an actor started, or the first of those below it that did: it may have no fact of its own yet."""
    times = [a.started_at for a in (actor, *tree.below(actor.path)) if a.started_at is not None]
    return min(times, default=None)


def _foreach_record(tree: Tree, parent: Actor, unit: str, members: list[Actor]) -> dict[str, Any]:
    statuses = {child_status(tree, m) for m in members}
    order = ("suspended", "waiting", "paused", "running")
    state = next((s for s in order if s in statuses), _going(tree))
    if tree.root.status in ENDED and statuses & {"failed", "tripwire"}:
        state = "failed"
    inside = items(tree, parent, unit)
    started = [a.started_at for a in inside if a.started_at is not None]
    record: dict[str, Any] = {"status": state, "input": parent.prev, "started_at": min(started, default=None)}
    return _with_suspension(tree, record, sorted(members, key=_place), inside)


def _place(child: Actor) -> int:
    """Its place among its siblings; an item's is in its path, known before it has a fact of its own."""
    index = split(segment(child.path))[1]
    return child.member if index is None else index


def _with_suspension(tree: Tree, record: dict[str, Any], members: list[Actor], inside: list[Actor]) -> dict[str, Any]:
    """A record that stands for several actors tells the first suspension that is open in them, else the last one."""
    record.update(suspension_of(inside))
    waits = next((s for m in members for _, s in suspensions(tree, m)), None)
    if waits is not None:
        record["suspend_payload"], record["suspended_at"] = waits["payload"], waits["suspended_at"]
    elif record["status"] == "suspended":
        record["status"] = _going(tree)
    return record


def child_status(tree: Tree, actor: Actor) -> str:
    """The status of an actor that may have no fact of its own: then it follows from its children."""
    if actor.status in RESTING:
        return actor.status
    if tree.root.status in ENDED:
        return "canceled"
    inner = [child_status(tree, tree.actors[p]) for paths in actor.children.values() for p in paths if p in tree.actors]
    inner += [s.status for s in actor.steps.values()]
    for state in ("suspended", "waiting", "paused"):
        if state in inner:
            return state
    return _going(tree)


def suspensions(tree: Tree, actor: Actor | None = None) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Everything that waits for a resume at and below an actor, in declaration order: (sort key, suspension), with
    the suspended actor's path under `actor`, its own step id under `step`, the outermost foreach around it under `each`
    and the path of that one's item under `item`."""
    actor = tree.root if actor is None else actor
    return sorted(_suspensions(tree, actor, ()), key=lambda s: s[0])


def _suspensions(tree: Tree, actor: Actor, above: tuple[str, ...]) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for unit in actor.order:
        record = actor.steps.get(unit)
        if record is not None and record.status == "suspended" and resumed(actor, unit) is None:
            path = above if actor.leaf and above else (*above, unit)
            suspension = {
                "path": list(path), "payload": record.suspend_payload, "labels": record.labels, "index": None,
                "actor": actor.path, "step": unit, "suspended_at": record.suspended_at, "each": None, "item": "",
            }  # fmt: skip
            found.append(((), suspension))
        for child_path in actor.children.get(unit, ()):
            child = tree.actors.get(child_path)
            if child is None or child.status in ENDED:
                continue
            index = split(segment(child_path))[1]
            for key, suspension in _suspensions(tree, child, (*above, unit)):
                if index is not None:
                    suspension["index"] = index if suspension["index"] is None else suspension["index"]
                    suspension["each"], suspension["item"] = [*above, unit], child_path
                found.append(((_place(child), child_path, *key), suspension))  # of one that has no fact yet its place is not known
    return found
