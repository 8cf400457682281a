"""Performing a step: its tries, the pauses between them, and the one append that tells how it ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

from noria.actor.activation import Activation
from noria.actor.context import LiveContext
from noria.actor.elsewhere import NoHandler, call_elsewhere
from noria.actor.handlers import call_here
from noria.actor.notices import Notice
from noria.actor.outcomes import ENGINE, failure
from noria.actor.sleeping import set_timer
from noria.chance import fraction
from noria.clock import now
from noria.contract.calls import HandlerFailed
from noria.contract.facts import Fact, Finished, StepEnded, StepSuspended, StepWaiting, Writes
from noria.contract.values import plain
from noria.errors import InvalidInput, LimitExceeded, NonRetryable, Tripwire
from noria.limits import LINGER_SECONDS, NO_HANDLER_PAUSES
from noria.machine.state import Actor, StepRecord, live, place
from noria.machine.tasks import RunStep
from noria.retry import Retry
from noria.workflow.context import BailSignal, SuspendSignal
from noria.workflow.steps import Step

log = logging.getLogger("noria.step")


async def run_step(activation: Activation, actor: Actor, task: RunStep) -> None:
    """Call a step, again as its Retry says, and record how it ended."""
    step, fact = task.step, _Attempts(task, now())
    while True:
        work = _try(activation, actor, task, fact)
        outcome = await (work if activation.stretch is None else activation.stretch.step(step.id, actor.path, fact.made, work))
        if activation.stopping:  # what was stopped and went on all the same
            if not isinstance(outcome, StepEnded):
                raise asyncio.CancelledError
            await activation.record(actor, [outcome])
            return
        if isinstance(outcome, NoHandler):
            outcome = await _wait_for_handler(activation, actor, fact, outcome)
        elif isinstance(outcome, Exception):
            retry = step.retry or activation.places.workflow_of(actor).retry
            pause = None if _final(outcome, retry, fact.made) else retry.pause(fact.made, fraction())
            if pause is None:
                name, outcome = type(outcome).__name__, fact.failed(outcome)
                why = outcome.tripwire["reason"] if outcome.tripwire is not None else (outcome.error or {}).get("message")
                log.error("step %r of run %s failed: %s: %s", step.id, activation.key.run, name, why)
            elif pause <= LINGER_SECONDS:
                fact.tell_beginning()
                await asyncio.sleep(pause)
                continue
            else:
                outcome = await _wait(activation, actor, fact, pause)
        if outcome is not None:
            break
    facts: list[Fact] = [outcome]
    if isinstance(outcome, StepEnded) and not task.leaf:
        if outcome.status != "success":
            facts.append(Finished(outcome.status, outcome.ended_at, error=outcome.error, tripwire=outcome.tripwire))
        elif task.final or outcome.bail:
            facts.append(Finished("success", outcome.ended_at))
    try:
        await activation.record(actor, facts)
    except LimitExceeded as error:
        log.error("step %r of run %s failed: %s", step.id, activation.key.run, error)
        ended = fact.failed(LimitExceeded(f"step {step.id!r}: {error}"))
        await activation.record(actor, [ended] if task.leaf else [ended, Finished("failed", ended.ended_at, error=ended.error)])


class _Attempts:
    """What the facts of one step call have in common."""

    def __init__(self, task: RunStep, started_at: float) -> None:
        self.task, self.started_at, self.made = task, started_at, task.attempts
        self.has_input, self.input = False, None
        self.resume_payload = task.resume[1] if task.resume is not None else None
        self.notice: Notice | None = None  # of the present try

    def forget_resume(self) -> None:
        """The try begins as one of a step that nobody resumes."""
        self.task, self.resume_payload, self.made = replace(self.task, resume=None), None, self.made - 1

    def tell_beginning(self) -> None:
        if self.notice is not None:
            self.notice.tell()

    def _common(self) -> dict[str, Any]:
        return {
            "step": self.task.step.id, "started_at": self.started_at, "round": self.task.round, "leaf": self.task.leaf,
            "has_input": self.has_input, "input": self.input, "attempts": self.made,
            "has_resume": self.task.resume is not None, "resume_payload": self.resume_payload,
            "untold": self.notice is not None and self.notice.left_to_fact(),
        }  # fmt: skip

    def succeeded(self, output: Any, writes: Writes | None, bail: bool = False) -> StepEnded:
        """By position: every step comes here."""
        task = self.task
        return StepEnded(
            task.step.id, "success", self.started_at, now(), output, None, None, self.made, task.round, self.has_input, self.input,
            task.resume is not None, self.resume_payload, writes, task.leaf, bail, True, False,
            self.notice is not None and self.notice.left_to_fact(),
        )  # fmt: skip

    def ended(self, status: str, **more: Any) -> StepEnded:
        return StepEnded(status=status, ended_at=now(), **self._common(), **more)

    def failed(self, error: Exception) -> StepEnded:
        return self.ended(**failure(error, self.task.step.id))

    def suspended(self, signal: SuspendSignal, context: LiveContext) -> StepSuspended:
        return StepSuspended(
            suspended_at=now(), payload=signal.payload, labels=signal.labels, output=signal.output,
            writes=context.writes(), **self._common(),
        )  # fmt: skip

    def still_suspended(self, record: StepRecord) -> StepSuspended:
        """A resume that could not be given to the step leaves it as it was."""
        assert record.started_at is not None and record.suspended_at is not None
        return StepSuspended(
            self.task.step.id, record.started_at, record.suspended_at, record.suspend_payload, record.labels, record.suspend_output,
            self.task.round, leaf=self.task.leaf, attempts=record.attempts,
        )  # fmt: skip

    def waiting(self, until: float) -> StepWaiting:
        return StepWaiting(until=until, **self._common())


async def _try(activation: Activation, actor: Actor, task: RunStep, fact: _Attempts) -> Fact | Exception:
    """One try: the fact that it gave, or what it raised."""
    step, record = task.step, None
    if task.resume is not None:
        record = actor.steps.get(step.id) or activation.tree.held.get(place(actor.path, step.id))
    context = LiveContext(activation, actor, step, attempt=fact.made, rounds=task.round - 1, record=record)
    fact.made += 1
    try:
        validates = activation.places.validates(actor.path)
        value, kept = step.parse_input(plain(task.input), validates)
        if step.context and validates:
            step.check_context(live(activation.tree.context))
        if kept != task.input:
            fact.has_input, fact.input = True, kept
        if task.resume is not None:
            try:
                context.resume_data, fact.resume_payload = step.parse_resume(task.resume[1])
            except InvalidInput as error:  # from a client that does not know the workflow's types
                waiting = actor.steps.get(step.id)
                if waiting is None or waiting.status != "suspended":  # a time travel came with it
                    log.error("step %r of run %s is not resumed: %s", step.id, activation.key.run, error)
                    fact.forget_resume()
                    return await _try(activation, actor, fact.task, fact)
                log.error("step %r of run %s stays suspended: %s", step.id, activation.key.run, error)
                return fact.still_suspended(waiting)
        context.input = value
        started: dict[str, Any] = {"attempt": context.attempt, "status": "running"}
        if fact.has_input or task.input is not actor.prev:  # else readers know it
            started["input"] = kept if fact.has_input else task.input
        if task.resume is not None:
            started["resume_payload"] = fact.resume_payload
        fact.notice = context.notice = Notice(activation.journal, activation.host.notices, actor, step.id, started)
        if actor.path and actor.path == activation.key.path and ("c" in step.fn.order or step.remote):
            await context.look_around()
        output = plain(await _called(activation, step, value, context))
        return fact.succeeded(output, context.writes())
    except SuspendSignal as signal:
        try:
            signal.payload = step.parse_suspend(signal.payload)
        except InvalidInput as error:
            return error
        return fact.suspended(signal, context)
    except BailSignal as signal:
        return fact.succeeded(signal.result, context.writes(), bail=True)
    except asyncio.CancelledError as error:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            fact.tell_beginning()
            raise
        failure = RuntimeError(f"step {step.id!r} awaited something that was cancelled")
        failure.__cause__ = error
        return failure
    except ENGINE:
        fact.tell_beginning()
        raise
    except Exception as error:
        return error


def _called(activation: Activation, step: Step, value: Any, context: LiveContext) -> Awaitable[Any]:
    """What the step's handler gives, here or elsewhere. Raises StepTimeout past its timeout."""
    if step.remote or not activation.host.steps:
        return call_elsewhere(activation, step, context)
    return call_here(step, value, context, activation.host.threads, step.timeout)


def _final(error: Exception, retry: Retry, made: int) -> bool:
    hopeless = (NonRetryable, InvalidInput, Tripwire, *retry.non_retryable)
    return isinstance(error, hopeless) or made > retry.attempts or (isinstance(error, HandlerFailed) and not error.retryable)


async def _wait(activation: Activation, actor: Actor, fact: _Attempts, pause: float) -> StepWaiting | None:
    """None: the pause is over already."""
    until = now() + pause
    if await set_timer(activation, actor, fact.task.step.id, until):
        fact.tell_beginning()
        activation.check_lease()  # the next try comes at once, without a word that a successor would refuse
        return None
    return fact.waiting(until)


async def _wait_for_handler(activation: Activation, actor: Actor, fact: _Attempts, why: NoHandler) -> StepWaiting | None:
    """Nobody serves the step: that is no try. The run waits behind a timer, longer and longer, and holds nothing."""
    fact.made -= 1
    before = actor.steps.get(fact.task.step.id)
    if before is not None and before.status == "waiting" and before.started_at is not None:
        fact.started_at = before.started_at
    waited = (now() - fact.started_at) / 4
    pause = min(max(waited, NO_HANDLER_PAUSES[0]), NO_HANDLER_PAUSES[1])
    log.warning("run %s waits %.0f s: %s", activation.key.run, pause, why)
    return await _wait(activation, actor, fact, pause)
