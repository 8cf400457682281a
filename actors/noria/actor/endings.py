"""Ends that no step brings about: a time-out, a cancel, a run that is given up."""

from __future__ import annotations

import asyncio
from typing import Any

from noria.actor import owned
from noria.actor.activation import Activation
from noria.clock import now
from noria.contract import commands
from noria.contract.facts import Fact, Finished, StepEnded
from noria.contract.values import error_info
from noria.errors import NoriaError, StepTimeout
from noria.limits import POISON_TAKEOVERS
from noria.machine.state import ENDED, Actor
from noria.machine.tasks import RunMapping, RunSleep, RunStep
from noria.ports import ActorKey

EXPIRY = "timeout="  # its timer's name, which no step can have


def deadline(activation: Activation) -> float | None:
    """When the workflow's timeout is over, epoch seconds: wall time since the start, suspensions excluded.
    A time travel starts it anew."""
    tree, timeout = activation.tree, activation.workflow.timeout_seconds
    began = tree.began_at or tree.created_at
    if timeout is None or began is None or activation.key.path:
        return None
    since = tree.parked_since or (tree.root.status == "suspended" and tree.updated_at) or 0.0  # the latter in a record of 0.1.0
    last = (tree.parked_until or now()) - since if since else 0.0
    return began + timeout + tree.parked_ms / 1000 + max(0.0, last)


def expiry(activation: Activation) -> asyncio.TimerHandle | None:
    """Ends the run at its deadline, while it is hosted here; at once when that is over."""
    at, workflow = deadline(activation), activation.workflow
    if at is None:
        return None
    error = StepTimeout(f"workflow {workflow.id!r} took longer than {workflow.timeout_seconds} s")
    if at <= now():
        activation.fail_soon(error)
    return asyncio.get_running_loop().call_later(max(0.0, at - now()), activation.fail_soon, error)


async def arm_expiry(activation: Activation, until: float) -> None:
    """Before the run rests until then, with nobody to look at the clock: a timer for its deadline, if that comes first."""
    at = deadline(activation)
    if at is not None and at < until:
        command = commands.TimerFired(activation.journal.nonces.next(), now(), "", EXPIRY, at)
        await activation.broker.timers.set(activation.key, EXPIRY, at, commands.encode(command))


async def fail(activation: Activation, error: NoriaError) -> None:
    """The run took longer, or more, than it may: it fails."""
    await activation.stop()
    await _stop_elsewhere(activation)
    await _end(activation, Finished("failed", now(), error=error_info(error)))


def interrupted(task: RunStep | RunMapping | RunSleep, began: float) -> StepEnded:
    """The record of what was stopped in the middle."""
    if not isinstance(task, RunStep):
        return StepEnded(task.entry.id, "canceled", began, now(), counts=False)
    resumed, data = task.resume is not None, task.resume[1] if task.resume is not None else None
    return StepEnded(
        task.step.id, "canceled", began, now(), attempts=task.attempts + 1, round=task.round, has_resume=resumed, resume_payload=data,
        leaf=task.leaf,
    )  # fmt: skip


async def _end(activation: Activation, finished: Finished) -> None:
    """The end, behind the records of what was stopped. A step whose append was under way when it was stopped has ended, not been stopped."""
    tree = activation.tree
    if tree.root.status in ENDED:
        return
    stopped = [(tree.actor(path), fact) for path, fact in activation.interrupted.items()]
    stopped = [(actor, fact) for actor, fact in stopped if actor.status not in ENDED and not _is_recorded(actor, fact)]
    await owned.together(activation.journal.append(actor, [fact]) for actor, fact in stopped if actor is not tree.root)
    own: list[Fact] = [fact for actor, fact in stopped if actor is tree.root]
    await activation.record(tree.root, [*own, finished])


def _is_recorded(actor: Actor, fact: StepEnded) -> bool:
    record = actor.steps.get(fact.step)
    return record is not None and record.iterations >= fact.round and record.ended_at is not None


async def cancel(activation: Activation) -> None:
    """Stop what runs here, tell the children that live elsewhere, and end as canceled."""
    tree, key, journal = activation.tree, activation.key, activation.journal
    activation.cancelled.set()
    await activation.stop()
    command = await _stop_elsewhere(activation)
    if key.path and not tree.cancel:  # ctx.abort() in a spread child: the run as a whole is meant
        await activation.broker.commands.send(ActorKey(*key.tree), command)
        activation.broker.news.nudge(key.tree, journal.nonce)
    await _end(activation, Finished("canceled", now()))


async def _stop_elsewhere(activation: Activation) -> bytes:
    """Cancel the children that live elsewhere; the command."""
    tree, key, journal = activation.tree, activation.key, activation.journal
    command = commands.encode(commands.Cancel(journal.nonces.next(), now()))
    for actor in tree.below(key.path):
        if actor.started and actor.status not in ENDED:
            await activation.broker.commands.send(journal.key_of(actor), command)
            activation.broker.news.nudge(key.tree, journal.nonce)
    return command


async def give_up(activation: Activation) -> None:
    """The run took its worker down again and again: it fails, with a dead letter that can start it anew.

    The letter goes first: a death in between buries twice, never not at all. Callbacks get one chance: it may be they
    that take the worker down.
    """
    key, tree, broker = activation.key, activation.tree, activation.broker
    message = f"the run took its worker down {tree.takeovers} times in a row without progress"
    error: dict[str, Any] = {"type": "Poisoned", "message": message, "attributes": {}, "cause": None}
    began = (await broker.commands.read(ActorKey(*key.tree)))[:1]  # none: it aged out, so there is nothing to start anew
    body = began[0].body if began else b""
    where = {"noria-run": key.run} | ({"noria-path": key.path} if key.path else {})
    await broker.triggers.bury("poison", key.workflow, body, where, message)
    facts: list[Fact] = [Finished("failed", now(), error=error)]
    if tree.takeovers == POISON_TAKEOVERS + 1:
        await activation.record(tree.root, facts)
    else:
        await activation.journal.append(tree.root, facts)
