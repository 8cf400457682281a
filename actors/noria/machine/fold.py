"""What a log means: the only place that changes a state. Facts and commands may be folded in any order that keeps
each actor's chain in order."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, assert_never

from noria.contract.commands import Cancel, Command, Restart, Resume, Start, TimerFired, TimeTravel
from noria.contract.facts import (
    Answered,
    BlockEnded,
    Fact,
    FactMessage,
    Finished,
    HandedOver,
    Rested,
    Started,
    StepEnded,
    StepSuspended,
    StepWaiting,
    TakenOver,
    Writes,
)  # fmt: skip
from noria.contract.rewinds import Retried, Rewound
from noria.machine.lives import adopt, assume_arms, begin_round, retry, rewind, succeed, travelled
from noria.machine.state import ENDED, Actor, StepRecord, Tree, items, join, parent, place, remove, segment, split, suspension_of, write


def fold_command(tree: Tree, sequence: int, path: str, command: Command) -> None:
    """A command changes nothing but what is pending; a fact whose `in_seen` covers it makes it count."""
    if path not in tree.actors and tree.is_over(path):
        return
    actor = tree.actor(path)
    if sequence > actor.in_seen or (isinstance(command, Start) and path == tree.base):  # a consumed one's traces stay, they are compared by sequence
        _pend(tree, sequence, path)
    match command:
        case Start() if actor.started:
            pass  # it began: by this very one, read again behind a record, or another one came, which changes nothing
        case Start():
            if not actor.last:  # else it is of a child, read behind a record that knows what came of it
                actor.input = actor.prev = command.input
            actor.init, actor.started, actor.member = command.init, sequence, command.member
            at = sequence if path == tree.base != "" else 0  # to a child it is what is, and a record may be older
            write(tree.state, at, command.state)
            write(tree.context, at, command.context)
            if path == tree.base:
                _created(tree, command)
                if path:
                    _only(tree, sequence, command.context)
                    travelled(tree, command.travelled)
                if command.per_step:
                    tree.per_step = max(tree.per_step, sequence)
            elif not tree.is_over(path):
                link(tree, actor)
        case Resume():
            for target, step in command.targets:
                if target not in tree.actors and tree.is_over(target):
                    continue
                resumes = tree.actor(target).resumes
                if step not in resumes or resumes[step][0] < sequence:
                    resumes[step] = [sequence, command.data, path]
            if path == tree.base:  # one that was passed down repeats to a child what its parent's tree holds already
                write(tree.state, sequence, command.state)
                write(tree.context, sequence, command.context)
                tree.per_step = sequence if command.per_step else 0
                if path:
                    _only(tree, sequence, command.context)
        case Cancel():
            tree.cancel = max(tree.cancel, sequence)
            if path == tree.base:
                tree.cancels = [s for s in tree.cancels if actor.in_seen < s != sequence] + [sequence]
        case TimerFired():
            tree.fired[command.path] = max(tree.fired.get(command.path, 0.0), command.until)
        case Restart():
            pass
        case TimeTravel():
            if not actor.started:
                origin = None if command.origin is None else Tree.of(command.origin)
                actor.started = sequence
                _created(tree, command)
                if origin is not None:
                    adopt(tree, origin)
            if sequence > actor.in_seen:
                tree.travels[sequence] = command
            write(tree.state, sequence, command.state)
            write(tree.context, sequence, command.context)
            tree.per_step = sequence if command.per_step else 0
        case _:
            assert_never(command)


def _only(tree: Tree, sequence: int, context: dict[str, Any]) -> None:
    """The request context has no other keys."""
    remove(tree.context, sequence, [key for key in tree.context if key not in context])


def _created(tree: Tree, command: Start | TimeTravel) -> None:
    tree.resource_id, tree.version, tree.traceparent = command.resource_id, command.version, command.traceparent
    tree.created_at = tree.began_at = command.at


def _pend(tree: Tree, sequence: int, path: str) -> None:
    """Into the list, which stays in order: of a wide fan-out it is long."""
    command, at = (sequence, path), bisect_left(tree.pending, (sequence, path))
    if at == len(tree.pending) or tree.pending[at] != command:
        tree.commands += path == tree.base
        tree.pending.insert(at, command)


def _consume(tree: Tree, actor: Actor, seen: int) -> None:
    """Commands that a fact of the actor covers are pending no more; `seen`: the last one that an earlier fact covered.
    None is older than what started it."""
    first = 0 if actor is tree.root else bisect_left(tree.pending, (max(seen + 1, actor.started), ""))
    end = bisect_left(tree.pending, (actor.in_seen + 1, ""))
    if first < end:
        tree.pending[first:end] = [p for p in tree.pending[first:end] if p[1] != actor.path]


def fold_unreadable(tree: Tree, sequence: int, path: str, is_command: bool) -> None:
    """Something that nobody can read: a command is consumed like any that changes nothing, a fact keeps its place in the chain."""
    if not is_command:
        tree.actor(path).last = max(tree.actor(path).last, sequence)
    elif sequence > tree.actor(path).in_seen:
        _pend(tree, sequence, path)


def fold_message(tree: Tree, sequence: int, path: str, message: FactMessage) -> None:
    """One append of an actor. One that was folded before changes nothing."""
    if path not in tree.actors and tree.is_over(path):
        return
    actor = tree.actor(path)
    if sequence <= actor.last or (path != tree.base and tree.root.status in ENDED and tree.lives_elsewhere(path)):
        return  # of a run that ended, what goes on elsewhere is its own affair: whoever hosts it reads it (see Tree.at)
    first, seen = actor.last == 0, actor.in_seen
    actor.last, actor.door, actor.host = sequence, message.door, message.host
    actor.in_seen = max(actor.in_seen, message.in_seen)
    tree.facts += 1
    tree.misfit = None
    if tree.pending:
        _consume(tree, actor, seen)
    if path == tree.base and tree.travels:
        tree.travels = {s: c for s, c in tree.travels.items() if s > actor.in_seen}
    if tree.root.status in ENDED and not isinstance(message.facts[0], Rewound):
        return
    if first and path != tree.base:
        actor.member = message.member
        if actor.prev is None and not actor.started and not actor.order:
            tree.give(actor)  # a resume of it may have been read before what its parent had come to
        link(tree, actor)
    for fact in message.facts:
        _fold(tree, actor, sequence, fact)


def _fold(tree: Tree, actor: Actor, sequence: int, fact: Fact) -> None:
    if not isinstance(fact, (TakenOver, HandedOver)):
        tree.takeovers, tree.handed = 0, False
    match fact:
        case Started():
            actor.status, actor.started_at = "active", fact.at
            actor.input = actor.prev = fact.input
            tree.updated_at = fact.at
        case StepEnded():
            _step_ended(tree, actor, sequence, fact)
        case StepSuspended():
            record = _record(tree, actor, fact)
            record.status, record.suspended_at, record.suspend_payload = "suspended", fact.suspended_at, fact.payload
            record.labels, record.suspend_output, record.attempts = fact.labels, fact.output, fact.attempts
            _apply(tree, sequence, fact.writes)
            actor.status, actor.suspended_at, actor.leaf = "suspended", sequence, fact.leaf
            tree.leaf_done, tree.updated_at = sequence, fact.suspended_at
            if actor is tree.root:
                _park(tree, fact.suspended_at)
        case StepWaiting():
            record = _record(tree, actor, fact)
            record.status, record.until, record.attempts = "waiting", fact.until, fact.attempts
            _apply(tree, sequence, fact.writes)
            actor.status, actor.leaf = "waiting", fact.leaf
        case Answered():
            actor.answers[fact.entry] = fact.value
            _apply(tree, sequence, fact.writes)
            actor.status = "active"
            if fact.life:
                begin_round(tree, actor, fact)
            elif fact.entry in actor.aims:
                assume_arms(tree, actor, fact)
        case Retried():
            actor.status = "active"
            retry(tree, actor, fact)
        case Rewound():
            rewind(tree, fact)
        case BlockEnded():
            actor.status = "active"
            _block_ended(tree, actor, fact)
        case Rested():
            actor.status, tree.updated_at = fact.status, fact.at
            if actor is tree.root and fact.status == "suspended":
                _park(tree, fact.at)
        case TakenOver():
            actor.status = "active"
            if actor is tree.root:
                tree.takeovers, tree.handed = tree.takeovers + (not tree.handed), False
        case HandedOver():
            actor.status = "active"
            if actor is tree.root:
                tree.handed = True
        case Finished():
            actor.status, actor.ended_at, tree.updated_at = fact.status, fact.ended_at, fact.ended_at
            actor.error, actor.tripwire = fact.error, fact.tripwire
            if fact.status == "success":
                actor.output = fact.output if fact.has_output else actor.prev
        case _:
            assert_never(fact)


def _record(tree: Tree, actor: Actor, fact: StepEnded | StepSuspended | StepWaiting) -> StepRecord:
    """The step's record, begun anew for its first fact and for each round of a loop."""
    record = actor.steps.get(fact.step)
    if record is None or fact.round > record.iterations:
        if fact.step not in actor.order:
            actor.order.append(fact.step)
        given = fact.input if fact.has_input else actor.prev
        record = actor.steps[fact.step] = StepRecord("running", given, fact.started_at, iterations=fact.round)
        held = tree.held.pop(place(actor.path, fact.step), None) if tree.held else None
        if held is not None:
            record.suspend_payload, record.suspended_at = held.suspend_payload, held.suspended_at
    if actor.started_at is None:
        actor.started_at = fact.started_at
    if fact.has_resume:
        record.resumed, record.resume_payload, record.resumed_at = True, fact.resume_payload, fact.started_at
        if tree.parked_since:
            went_on = max(fact.started_at, tree.parked_since)
            tree.parked_until = min(tree.parked_until or went_on, went_on)
    return record


def _park(tree: Tree, at: float) -> None:
    """The run rests suspended from now on. Whole milliseconds: in which order they are summed up makes no difference."""
    if tree.parked_until:
        tree.parked_ms += round(1000 * (tree.parked_until - tree.parked_since))
    if tree.parked_until or not tree.parked_since:
        tree.parked_since, tree.parked_until = at, 0.0


def _step_ended(tree: Tree, actor: Actor, sequence: int, fact: StepEnded) -> None:
    record = _record(tree, actor, fact)
    record.status, record.ended_at, record.attempts = fact.status, fact.ended_at, fact.attempts
    record.output, record.error, record.tripwire = fact.output, fact.error, fact.tripwire
    _apply(tree, sequence, fact.writes)
    actor.status, tree.updated_at = "active", fact.ended_at
    if fact.status == "success":
        actor.prev, actor.bailed = fact.output, fact.bail
    if fact.leaf:
        actor.leaf, actor.status, actor.ended_at = True, fact.status, fact.ended_at
        actor.output, actor.error, actor.tripwire = fact.output, fact.error, fact.tripwire
    if fact.counts:
        tree.leaf_done = sequence


def _apply(tree: Tree, sequence: int, writes: Writes | None) -> None:
    if writes is not None:
        write(tree.state, sequence, writes.state)
        write(tree.context, sequence, writes.context)
        remove(tree.context, sequence, writes.context_removed)
        for kind, tokens in (writes.usage or {}).items():
            tree.usage[kind] = tree.usage.get(kind, 0) + tokens


def link(tree: Tree, child: Actor) -> None:
    """A child is seen from its first fact on; its ancestors with it, which may have no fact of their own."""
    above, unit = tree.actor(parent(child.path)), split(segment(child.path))[0]
    known = above.children.setdefault(unit, [])
    members = tree.members(known)
    if child.path in members:
        return
    succeed(tree, known, child.path)
    if isinstance(members, set):
        members.add(child.path)
    if unit not in above.order:
        above.order.append(unit)
    if above.path != tree.base:
        link(tree, above)


def _block_ended(tree: Tree, actor: Actor, block: BlockEnded) -> None:
    if block.entry not in actor.blocks:
        actor.blocks.append(block.entry)
    tree.updated_at = block.ended_at
    members = [tree.actors.get(join(actor.path, seg)) for seg in block.segments]
    match block.kind:
        case "parallel" | "branch":
            actor.prev = {
                split(seg)[0]: member.output if member.status == "success" else None
                for seg, member in zip(block.segments, members, strict=True)
                if member is not None and (member.status == "success" or block.kind == "parallel")
            }
        case "foreach":
            _foreach_ended(tree, actor, block)
        case _:
            child = tree.actors.get(join(actor.path, block.segment))
            actor.prev = child.output if child is not None else None


def _foreach_ended(tree: Tree, actor: Actor, block: BlockEnded) -> None:
    paths = [join(actor.path, actor.seg(f"{block.entry}={n}")) for n in range(block.total)]
    found = [tree.actors[p] for p in paths if p in tree.actors]
    outputs = [tree.actors[p].output if p in tree.actors else None for p in paths]
    inside = items(tree, actor, block.entry)
    record = actor.steps[block.entry] = StepRecord(block.status, actor.prev, ended_at=block.ended_at, error=block.error, tripwire=block.tripwire)
    record.started_at = min((i.started_at for i in inside if i.started_at is not None), default=block.ended_at)
    for name, value in suspension_of(inside).items():
        setattr(record, name, value)
    record.resumed = record.resumed_at is not None
    if block.entry not in actor.order:
        actor.order.append(block.entry)
    if block.status == "success":
        record.output = actor.prev = outputs
        for item in found:
            if item.leaf:  # all that it did is in the record now
                del tree.actors[item.path]
        actor.children.pop(block.entry, None) if all(i.leaf for i in found) else None
