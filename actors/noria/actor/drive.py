"""Decide, perform, append, again, until the actor rests."""

from __future__ import annotations

import asyncio
from typing import assert_never

from noria.actor import endings
from noria.actor.activation import Activation
from noria.actor.asking import ask, run_mapping, store_answers
from noria.actor.children import run_children
from noria.actor.perform import run_step
from noria.actor.sleeping import hold, run_sleep
from noria.clock import now
from noria.contract.facts import Finished, Started
from noria.contract.values import error_info
from noria.errors import InvalidInput
from noria.machine.decide import decide
from noria.machine.state import Actor, live, parent, segment
from noria.machine.tasks import Ask, Hold, Record, Rest, RunChildren, RunMapping, RunSleep, RunStep, Unit
from noria.workflow.builder import Workflow
from noria.workflow.context import AbortSignal


async def drive(activation: Activation, actor: Actor) -> str:
    """Run an actor until it rests; its status then."""
    unit = activation.places.unit(actor.path)
    if isinstance(unit, Workflow) and actor.path and actor.last == 0:
        await _begin_nested(activation, actor, unit)
    rested: dict[str, str] | None = None
    while True:
        activation.check_lease()
        if activation.stopping:
            raise asyncio.CancelledError
        activation.journal.adopted.discard(actor.path)
        began = now()
        task = decide(activation.tree, actor, unit, began, rested)
        rested = None
        try:
            match task:
                case RunStep():
                    await run_step(activation, actor, task)
                case Rest():
                    await store_answers(activation, actor)
                    return task.status
                case Record():
                    await activation.record(actor, task.facts)
                case RunMapping():
                    await run_mapping(activation, actor, task)
                case RunSleep():
                    await run_sleep(activation, actor, task)
                case Ask():
                    await ask(activation, actor, task)
                case Hold():
                    await hold(activation, actor, task)
                case RunChildren():
                    rested = await run_children(activation, actor, task, drive)
                case _:
                    assert_never(task)
            if actor is activation.tree.root and actor.status == "waiting" and isinstance(task, (RunStep, RunSleep)):
                return "waiting"
        except (asyncio.CancelledError, AbortSignal):
            if isinstance(task, (RunStep, RunMapping, RunSleep)):
                activation.interrupted[actor.path] = endings.interrupted(task, began)
            raise


async def _begin_nested(activation: Activation, actor: Actor, workflow: Unit) -> None:
    """A nested workflow's input is validated like a step's: a misfit fails the nested run, it does not raise."""
    assert isinstance(workflow, Workflow)
    tries = activation.tree.actor(parent(actor.path)).retries.get(segment(actor.path).partition("@")[0], 0)
    activation.journal.live("workflow-step-start", actor, None, {"input": actor.input, "attempt": tries, "status": "running"})
    goes_on = actor.blocks or actor.prev != actor.input  # a time travel begins it elsewhere
    if goes_on or not activation.places.validates(actor.path):
        return
    try:
        given = workflow.parse_input(actor.input)
        if workflow.context:
            workflow.parse_context(live(activation.tree.context))
    except InvalidInput as error:
        info = error_info(error)
        info["message"] = info["message"].replace("Invalid input data", f"Step input validation failed: step {workflow.id!r}", 1)
        await activation.record(actor, [Finished("failed", now(), error=info)])
        return
    if given != actor.input:
        actor.input = actor.prev = given
        activation.journal.opening[actor.path] = [Started(given, None, now())]
