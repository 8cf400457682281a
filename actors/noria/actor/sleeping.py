"""Sleeps and pauses: in place up to the linger, behind a timer beyond it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from noria.actor.activation import Activation
from noria.actor.context import LiveContext, call
from noria.actor.endings import arm_expiry
from noria.actor.outcomes import ENGINE, failure, with_end
from noria.clock import now
from noria.contract import commands
from noria.contract.envelopes import iso
from noria.contract.facts import Rested, StepEnded, StepWaiting, Writes
from noria.contract.typed import is_time
from noria.contract.values import plain
from noria.errors import InvalidInput
from noria.limits import LINGER_SECONDS
from noria.machine.decide import waits
from noria.machine.state import Actor
from noria.machine.tasks import Hold, RunSleep
from noria.workflow.functions import UserFunction


async def run_sleep(activation: Activation, actor: Actor, task: RunSleep) -> None:
    """Wait in place up to the linger, longer behind a timer; the output is the input."""
    entry, started_at, until, writes = task.entry, now(), task.until, None
    if until is None:
        try:
            until, writes = await _until(activation, actor, task, started_at)
            if not is_time(max(until, 0.0)):
                raise InvalidInput(f"a sleep until {until} (epoch seconds) would not end before the year 9999")
        except ENGINE:
            raise
        except Exception as error:
            why = failure(error, entry.id, f"sleep {entry.id!r}")
            fact = StepEnded(entry.id, started_at=started_at, ended_at=now(), counts=False, **why)
            return await activation.record(actor, with_end(fact, task.final))
        if until - started_at > LINGER_SECONDS:
            if not await set_timer(activation, actor, entry.id, until):
                return await activation.record(actor, [StepWaiting(entry.id, started_at, until, writes=writes)])
        else:
            waiting = {"status": "waiting", "until": iso(until)}
            activation.journal.live("workflow-step-waiting", actor, entry.id, waiting)
            await asyncio.sleep(max(0.0, until - now()))
    else:
        started_at = actor.steps[entry.id].started_at or started_at
    fact = StepEnded(entry.id, "success", started_at, now(), actor.prev, writes=writes, counts=task.counts)
    if activation.stretch is not None:
        activation.stretch.slept(entry.id, actor.path, started_at, fact.ended_at)
    return await activation.record(actor, with_end(fact, task.final))


async def _until(activation: Activation, actor: Actor, task: RunSleep, start: float) -> tuple[float, Writes | None]:
    """When a sleep ends, and what the function that says so did to the run."""
    duration = task.entry.duration
    if not isinstance(duration, UserFunction):
        return _end(duration, task, start), None
    context = LiveContext(activation, actor, entry=task.entry.id, value=actor.prev)
    end = _end(await call(duration, plain(actor.prev), context), task, start)
    return end, context.writes()


def _end(duration: Any, task: RunSleep, start: float) -> float:
    if isinstance(duration, datetime):
        if duration.tzinfo is None:
            raise InvalidInput("sleep_until needs an aware datetime: give it a time zone")
        return duration.timestamp()
    if isinstance(duration, timedelta):
        return start + duration.total_seconds()
    if isinstance(duration, (int, float)):
        return float(duration) if task.entry.until else start + duration
    raise InvalidInput(f"a sleep needs seconds, a timedelta or a datetime, not {type(duration).__name__}")


async def set_timer(activation: Activation, actor: Actor, step: str, until: float) -> bool:
    """Before the waiting fact: a timer that is set twice replaces itself, one that was not set would be lost.

    True when it came back before its answer: then wait no longer. A waiting fact would cover it, so that nothing woke the
    run any more if this host left it there.
    """
    await arm_expiry(activation, until)
    journal, seen = activation.journal, -1
    while seen != journal.in_seen:  # what came meanwhile may be a former host's timer, in the place of this one
        seen = journal.in_seen
        command = commands.TimerFired(journal.nonces.next(), now(), actor.path, step, until)
        await activation.broker.timers.set(journal.key_of(actor), step, until, commands.encode(command))
        if activation.tree.fired.get(actor.path, 0.0) >= until:
            return True
    return False


async def rearm(activation: Activation) -> None:
    """Before it rests again: a timer that came too early was set by a former host, in the place of the one waited for."""
    tree = activation.tree
    for actor in (tree.root, *tree.below(tree.base)):
        for name, until in waits(actor):
            if 0 < tree.fired.get(actor.path, 0.0) < until:
                await set_timer(activation, actor, name, until)


async def hold(activation: Activation, actor: Actor, task: Hold) -> None:
    """Wait before a nested workflow is tried again."""
    if task.until - now() <= LINGER_SECONDS:
        return await asyncio.sleep(max(0.0, task.until - now()))
    if await set_timer(activation, actor, "retry", task.until):
        return None
    await activation.journal.catch_up()  # a former host may have begun it by another clock
    if not actor.order and activation.tree.fired.get(actor.path, 0.0) < task.until:
        await activation.record(actor, [Rested("waiting", now())])
    return None
