"""Asking the workflow's own functions: its mappings, and its conditions (which arms of a branch, another round of a loop, how
many items at once)."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import Any

from noria.actor import owned
from noria.actor.activation import Activation
from noria.actor.context import LiveContext, call
from noria.actor.notices import Notice
from noria.actor.outcomes import ENGINE, failure, with_end
from noria.clock import now
from noria.contract.facts import Answered, Finished, StepEnded
from noria.contract.values import plain
from noria.errors import LimitExceeded
from noria.machine.state import Actor
from noria.machine.tasks import Ask, RunMapping
from noria.workflow.builder import Workflow
from noria.workflow.context import BailSignal, Heard
from noria.workflow.entries import BranchEntry, ForeachEntry, LoopEntry, MapEntry, SleepEntry, ThenEntry
from noria.workflow.functions import UserFunction
from noria.workflow.mapping import resolve
from noria.workflow.steps import Step

log = logging.getLogger("noria.step")


async def ask(activation: Activation, actor: Actor, task: Ask) -> None:
    """Evaluate conditions. The answer waits for the next fact of the actor where it may: a loop round costs one append."""
    entry = task.entry
    context = LiveContext(activation, actor, entry=entry.id, value=task.value, rounds=task.round)
    try:
        work = _answer(activation, actor, entry, context, task.value)
        value = await (work if activation.stretch is None else activation.stretch.evaluation("condition", entry.id, actor.path, work))
    except ENGINE:
        raise
    except Exception as error:
        await activation.record(actor, [Finished(ended_at=now(), **failure(error, entry.id, f"condition of {entry.id!r}"))])
    else:
        again = isinstance(entry, LoopEntry) and not isinstance(entry.unit, Step) and value != entry.until
        await _keep(activation, actor, Answered(task.key, value, actor.life(entry.id) + 1 if again else 0, now(), context.writes()))


async def _keep(activation: Activation, actor: Actor, fact: Answered) -> None:
    """A loop's answer is packed with the next fact where that is on the same chain. Others are stored at once, so that no
    successor can come to another answer than the children that began by it; so is one that comes with writes, which the
    next step has to see."""
    unit = activation.places.unit(actor.path)
    assert isinstance(unit, Workflow)
    if fact.writes is None and _goes_on_here(unit, actor, fact) and actor.path not in activation.journal.adopted:
        actor.answers[fact.entry] = fact.value
        activation.journal.opening.setdefault(actor.path, []).append(fact)
    else:
        await activation.record(actor, [fact])


async def store_answers(activation: Activation, actor: Actor) -> None:
    """Those that no fact followed, since the actor rests step by step: whoever goes on would ask anew, behind what the next
    entry has given by then. The root's are packed with its resting fact."""
    opening = activation.journal.opening.get(actor.path) if actor.path else None
    if opening is not None and any(isinstance(fact, Answered) for fact in opening):
        await activation.record(actor, [])


def _goes_on_here(unit: Workflow, actor: Actor, fact: Answered) -> bool:
    """Whether the fact after this answer is the actor's own, not a child's."""
    entry = unit.entries[actor.position]
    if not isinstance(entry, LoopEntry) or not isinstance(entry.unit, Step):
        return False
    if bool(fact.value) != entry.until or actor.position + 1 == len(unit.entries):
        return True
    following = unit.entries[actor.position + 1]
    return isinstance(following, (MapEntry, SleepEntry)) or (
        isinstance(following, (ThenEntry, LoopEntry)) and isinstance(following.unit, Step)
    )


async def _answer(
    activation: Activation, actor: Actor, entry: BranchEntry | LoopEntry | ForeachEntry, context: LiveContext, value: Any
) -> Any:
    match entry:
        case BranchEntry():
            answers = await owned.together(call(c, plain(value), context) for c in entry.conditions)
            wanted = actor.aims.get(entry.id, [])[:1]  # a time travel to an arm runs it whatever its condition says
            return [member.id for member, yes in zip(entry.members, answers, strict=True) if yes or member.id in wanted]
        case LoopEntry():
            return bool(await call(entry.condition, plain(value), context))
        case ForeachEntry():
            assert isinstance(entry.concurrency, UserFunction)
            limit = await call(entry.concurrency, plain(value), context)
            if isinstance(limit, (int, float)) and 1 <= limit < inf:
                return int(limit)
            log.warning("foreach %r of run %s takes one item at a time: its concurrency should be 1 or more, not %r", entry.id, context.run_id, limit)
            return 1


async def run_mapping(activation: Activation, actor: Actor, task: RunMapping) -> None:
    """Evaluate a mapping: sources one by one, or the function."""
    entry, started_at = task.entry, now()
    context = LiveContext(activation, actor, entry=entry.id, value=actor.prev, may_bail=True)
    notice = context.notice = Notice(activation.journal, activation.host.notices, actor, entry.id, {"attempt": 0, "status": "running"})
    try:
        if isinstance(entry.mapping, dict):
            work = _resolve_all(entry.mapping, actor.prev, context)
        else:
            work = call(entry.mapping, plain(actor.prev), context)
        output = await (work if activation.stretch is None else activation.stretch.evaluation("mapping", entry.id, actor.path, work))
        fact = StepEnded(entry.id, "success", started_at, now(), plain(output), writes=context.writes(), counts=task.counts)
    except BailSignal as signal:
        fact = StepEnded(entry.id, "success", started_at, now(), signal.result, writes=context.writes(), bail=True, counts=task.counts)
    except (asyncio.CancelledError, *ENGINE):
        notice.tell()
        raise
    except Exception as error:
        fact = _failed_mapping(entry, started_at, error)
    fact.untold = notice.left_to_fact()
    try:
        await activation.record(actor, with_end(fact, task.final))
    except LimitExceeded as error:
        failed = _failed_mapping(entry, started_at, error)
        failed.untold = notice.left_to_fact()
        await activation.record(actor, with_end(failed, task.final))


def _failed_mapping(entry: MapEntry, started_at: float, error: Exception) -> StepEnded:
    return StepEnded(entry.id, started_at=started_at, ended_at=now(), counts=False, **failure(error, entry.id, f"mapping {entry.id!r}"))


async def _resolve_all(mapping: dict[str, Any], prev: Any, context: LiveContext) -> dict[str, Any]:
    with Heard(context):
        return {key: await _resolve(source, prev, context) for key, source in mapping.items()}


async def _resolve(source: Any, prev: Any, context: LiveContext) -> Any:
    value = resolve(source, prev, context)
    return await value if asyncio.iscoroutine(value) or asyncio.isfuture(value) else value
