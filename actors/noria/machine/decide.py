"""What to do next: from an actor's state and its definition to one task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_never

from noria.contract.facts import BlockEnded, Fact, Finished
from noria.contract.rewinds import Retried
from noria.contract.values import as_list
from noria.limits import MAX_CHILDREN
from noria.machine.state import ENDED, Actor, StepRecord, Tree, join, place, segment, split
from noria.machine.tasks import Ask, Hold, Record, Rest, RunChildren, RunMapping, RunSleep, RunStep, Task, Unit
from noria.workflow.builder import Workflow
from noria.workflow.entries import BranchEntry, Entry, ForeachEntry, LoopEntry, MapEntry, ParallelEntry, SleepEntry, ThenEntry
from noria.workflow.steps import Step

UNLIMITED = 1_000_000_000


def decide(tree: Tree, actor: Actor, unit: Unit, now: float, rested: dict[str, str] | None = None) -> Task:
    """The next task of an actor. `rested`: status by segment of the current entry's children, once all of them rest."""
    if actor.status in ENDED:
        return Rest(actor.status)
    if actor.until > now and tree.fired.get(actor.path, 0.0) < actor.until and not actor.order:  # else it began, by another clock
        return Rest("waiting") if actor.status == "waiting" else Hold(actor.until)
    if isinstance(unit, Step):
        return _step(tree, actor, unit, leaf=True) or Rest(actor.status)
    while actor.position < len(unit.entries):
        entry = unit.entries[actor.position]
        if actor.bailed:
            break
        task = _entry(tree, actor, unit, entry, now, rested)
        if task is not None:
            return task
        actor.position += 1
        rested = None
    return Rest("paused") if is_paused(tree) and not actor.bailed else Record([Finished("success", now)])


def _entry(tree: Tree, actor: Actor, workflow: Workflow, entry: Entry, now: float, rested: dict[str, str] | None) -> Task | None:
    """The task of the entry at the actor's position; None when it is complete."""
    if entry.id in actor.blocks:
        return None
    final = actor.position == len(workflow.entries) - 1 and not tree.per_step
    match entry:
        case ThenEntry(unit=Step() as step):
            return _step(tree, actor, step, final=final)
        case MapEntry() | SleepEntry():
            return _plain(tree, actor, entry, final)
        case LoopEntry(unit=Step() as step):
            return _step_loop(tree, actor, entry, step)
        case ThenEntry():
            return _block(tree, actor, workflow, entry, "nested", [actor.seg(entry.id)], 1, final, now, rested)
        case LoopEntry():
            return _workflow_loop(tree, actor, workflow, entry, final, now, rested)
        case ParallelEntry():
            segments = [actor.seg(m.id) for m in entry.members]
            return _block(tree, actor, workflow, entry, "parallel", segments, UNLIMITED, final, now, rested)
        case BranchEntry():
            if entry.id not in actor.answers:
                return _ask(tree, actor, entry)
            segments = [actor.seg(arm) for arm in actor.answers[entry.id]]
            return _block(tree, actor, workflow, entry, "branch", segments, UNLIMITED, final, now, rested)
        case ForeachEntry():
            return _foreach(tree, actor, workflow, entry, final, now, rested)
        case _:
            assert_never(entry)


def _ask(tree: Tree, actor: Actor, entry: BranchEntry | ForeachEntry) -> Task:
    """What an entry begins with, once it is its turn: whoever goes on may change what its conditions look at."""
    return Rest("paused") if is_paused(tree) else Ask(entry, entry.id, actor.prev)


def is_paused(tree: Tree) -> bool:
    """Whether the one step that was asked for is done."""
    return bool(tree.per_step) and tree.leaf_done > tree.per_step


def resumed(actor: Actor, step: str) -> list[Any] | None:
    """The resume that a suspended step waits for, if it came: [sequence, data, path of the actor it was sent to]."""
    resume = actor.resumes.get(step)
    return resume if resume is not None and resume[0] > actor.suspended_at else None


def waits(actor: Actor) -> Iterator[tuple[str, float]]:
    """The timers that an actor waits for, (name, when it is due): those of its steps, and before it is tried again its own."""
    if actor.status == "waiting" and actor.until and not actor.order:
        yield "retry", actor.until
    for step, record in list(actor.steps.items()):
        if record.status == "waiting":
            yield step, record.until


def _step(tree: Tree, actor: Actor, step: Step, *, round: int = 1, leaf: bool = False, final: bool = False) -> Task | None:
    """The task of a step by its record; None when it succeeded."""
    record = actor.steps.get(step.id)
    if record is None:
        if is_paused(tree):
            return Rest("paused")
        resume = tree.held_data if tree.held and place(actor.path, step.id) in tree.held else None
        return RunStep(step, actor.prev, round, resume=resume, leaf=leaf, final=final)
    match record.status:
        case "success":
            return None
        case "suspended":
            resume = resumed(actor, step.id)
            if resume is None:
                return Rest("suspended")
            return RunStep(step, record.input, record.iterations, 0, resume, leaf, final)
        case "waiting":
            if tree.fired.get(actor.path, 0.0) < record.until:
                return Rest("waiting")
            resume = [0, record.resume_payload] if record.resumed else None
            return RunStep(step, record.input, record.iterations, record.attempts, resume, leaf, final)
        case _:
            return Record([_as_ended(record)])


def _as_ended(record: StepRecord) -> Finished:
    return Finished(record.status, record.ended_at or 0.0, error=record.error, tripwire=record.tripwire)


def _plain(tree: Tree, actor: Actor, entry: MapEntry | SleepEntry, final: bool) -> Task | None:
    record = actor.steps.get(entry.id)
    counts = bool(tree.per_step) and entry.id in actor.aims
    if record is None:
        if is_paused(tree):
            return Rest("paused")
        return RunMapping(entry, final, counts) if isinstance(entry, MapEntry) else RunSleep(entry, None, final, counts)
    if record.status == "success":
        return None
    if record.status == "waiting" and isinstance(entry, SleepEntry):
        return RunSleep(entry, record.until, final, counts) if tree.fired.get(actor.path, 0.0) >= record.until else Rest("waiting")
    return Record([_as_ended(record)])


def _step_loop(tree: Tree, actor: Actor, entry: LoopEntry, step: Step) -> Task | None:
    record = actor.steps.get(step.id)
    round = record.iterations if record is not None else 1
    task = _step(tree, actor, step, round=round)
    if task is not None:
        return task
    key = f"{entry.id}.{round}"
    if key not in actor.answers:
        return Ask(entry, key, actor.prev, round)
    if bool(actor.answers[key]) == entry.until:
        return None
    return Rest("paused") if is_paused(tree) else RunStep(step, actor.prev, round + 1)


def _workflow_loop(
    tree: Tree, actor: Actor, workflow: Workflow, entry: LoopEntry, final: bool, now: float, rested: dict[str, str] | None
) -> Task | None:
    round, seg = actor.rounds.get(entry.id, 1), actor.seg(entry.id)
    task = _block(tree, actor, workflow, entry, "loop", [seg], 1, final, now, rested)
    key = f"{entry.id}.{round}"
    if isinstance(task, Record) and isinstance(task.facts[0], BlockEnded) and key not in actor.answers:
        return Ask(entry, key, tree.actor(join(actor.path, seg)).output, round)
    return task


def _foreach(
    tree: Tree, actor: Actor, workflow: Workflow, entry: ForeachEntry, final: bool, now: float, rested: dict[str, str] | None
) -> Task | None:
    items = as_list(actor.prev)
    if items is None:
        return _refused(entry, now, "InvalidInput", f"needs a list as its input, not {type(actor.prev).__name__}")
    if len(items) > MAX_CHILDREN:
        return _refused(entry, now, "LimitExceeded", f"got {len(items)} items, at most {MAX_CHILDREN}: group them")
    limit = entry.concurrency
    if not isinstance(limit, int):
        if entry.id not in actor.answers:
            return _ask(tree, actor, entry)
        limit = int(actor.answers[entry.id])
    segments = [actor.seg(f"{entry.id}={n}") for n in range(len(items))]
    return _block(tree, actor, workflow, entry, "foreach", segments, limit, final, now, rested)


def _refused(entry: ForeachEntry, now: float, type: str, why: str) -> Record:
    error: dict[str, Any] = {"type": type, "message": f"foreach {entry.id!r} {why}", "attributes": {}, "cause": None}
    return Record([BlockEnded(entry.id, "foreach", "failed", now, error=error), Finished("failed", now, error=error)])


def _block(
    tree: Tree, actor: Actor, workflow: Workflow, entry: ThenEntry | ParallelEntry | BranchEntry | ForeachEntry | LoopEntry,
    kind: str, segments: list[str], limit: int, final: bool, now: float, rested: dict[str, str] | None,
) -> Task | None:  # fmt: skip
    """An entry whose work is done by children. Outcome: failed > suspended > waiting > paused > canceled > success."""
    found = [tree.actors.get(join(actor.path, seg)) for seg in segments]
    if again := [r for c in found if c is not None and c.status == "failed" and (r := retried(actor, workflow, c, now))]:
        return Record([*again])
    pending = [s for s, c in zip(segments, found, strict=True) if c is None or c.status not in ENDED]
    if pending and rested is None:
        return RunChildren(entry, segments, limit)
    children = [c for c in found if c is not None]
    tolerant = isinstance(entry, ParallelEntry) and entry.allow_failure
    bad = next((c for c in children if c.status == "tripwire" or (c.status == "failed" and not tolerant)), None)
    bail = next((c for c in children if c.leaf and c.bailed), None)
    resting = {status for seg, status in (rested or {}).items() if seg in pending}
    if (bad is None and bail is None) or "waiting" in resting:
        for status in ("suspended", "waiting", "paused"):
            if status in resting:
                return Rest(status)
    block = BlockEnded(entry.id, kind, "success", now)
    if kind in ("parallel", "branch"):
        block.segments = segments
    elif kind == "foreach":
        block.total = len(segments)
    else:
        block.segment = segments[0]
    facts: list[Fact] = [block]
    if bad is not None:
        block.status, block.error, block.tripwire = bad.status, bad.error, bad.tripwire
        ending = Finished(bad.status, now, error=bad.error, tripwire=bad.tripwire)
        return Record([block, ending] if kind == "foreach" else [ending])
    if any(c.status == "canceled" for c in children):
        return Record([Finished("canceled", now)])
    if bail is not None:
        return Record([*facts, Finished("success", now, has_output=True, output=bail.output)])
    if final and kind != "loop":
        facts.append(Finished("success", now))
    return Record(facts)


def retried(actor: Actor, workflow: Workflow, child: Actor, now: float) -> Retried | None:
    """Another life for a nested workflow that failed, as the Retry of the workflow around it says; None: it stays failed."""
    stem, retry, error = segment(child.path).partition("@")[0], workflow.retry, child.error or {}
    made, kinds = actor.retries.get(stem, 0) + 1, [error.get("type"), *(as_list(error.get("bases")) or ()), "Exception", "BaseException"]
    hopeless = error.get("non_retryable") or any(c.__name__ in kinds for c in retry.non_retryable)
    if made > retry.attempts or hopeless or not isinstance(workflow.units.get(split(stem)[0]), Workflow):
        return None
    chance = now % 1.0  # as good as any, and the same for whoever decides at this time
    return Retried(stem, actor.life(stem) + 1, made, now + retry.pause(made, chance), now)
