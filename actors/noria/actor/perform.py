"""Doing what one task asks for: steps, mappings, sleeps. Each ends in one append."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from noria.actor.elsewhere import NoHandler
from noria.actor.endings import arm_expiry
from noria.actor.failures import failure
from noria.actor.handlers import LiveContext, call, call_step
from noria.actor.journal import Fenced
from noria.actor.notices import Notice
from noria.chance import fraction
from noria.clock import now
from noria.contract import commands
from noria.contract.calls import HandlerFailed
from noria.contract.envelopes import iso
from noria.contract.facts import Fact, Finished, Rested, StepEnded, StepSuspended, StepWaiting, Writes
from noria.contract.typed import is_time
from noria.contract.values import plain
from noria.errors import BrokerUnavailable, InvalidInput, LimitExceeded, NonRetryable, Tripwire
from noria.limits import LINGER_SECONDS, NO_HANDLER_PAUSES
from noria.machine.decide import waits
from noria.machine.state import Actor, live, place
from noria.machine.state import Step as StepRecord
from noria.machine.tasks import Hold, RunMapping, RunSleep, RunStep
from noria.ports import Refused
from noria.retry import Retry
from noria.workflow.context import AbortSignal, BailSignal, Heard, SuspendSignal
from noria.workflow.entries import MapEntry
from noria.workflow.functions import UserFunction
from noria.workflow.mapping import resolve

if TYPE_CHECKING:
    from noria.actor.activation import Activation

log = logging.getLogger("noria.step")
ENGINE = (Fenced, Refused, BrokerUnavailable, AbortSignal)  # not the user's failures


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
                if waiting is None or waiting.status != "suspended":
                    raise
                log.error("step %r of run %s stays suspended: %s", step.id, activation.key.run, error)
                return fact.still_suspended(waiting)
        context.input = value
        started: dict[str, Any] = {"attempt": context.attempt, "status": "running"}
        if fact.has_input or task.input is not actor.prev:  # else readers know it
            started["input"] = kept
        if task.resume is not None:
            started["resume_payload"] = fact.resume_payload
        fact.notice = context.notice = Notice(activation.journal, activation.host.notices, actor, step.id, started)
        if actor.path and actor.path == activation.key.path and ("c" in step.fn.order or step.remote):
            await context.look_above()
        output = plain(await call_step(activation, step, value, context))
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
        await asyncio.sleep(max(0.0, task.until - now()))
    else:
        await set_timer(activation, actor, "retry", task.until)
        await activation.record(actor, [Rested("waiting", now())])


async def run_mapping(activation: Activation, actor: Actor, task: RunMapping) -> None:
    """Evaluate a mapping: sources one by one, or the function."""
    entry, started_at = task.entry, now()
    context = LiveContext(activation, actor, entry=entry.id, value=actor.prev, may_bail=True)
    notice = context.notice = Notice(activation.journal, activation.host.notices, actor, entry.id, {"attempt": 0, "status": "running"})
    try:
        if isinstance(entry.mapping, dict):
            work = _resolve_all(entry.mapping, actor.prev, context)
        else:
            work = call(activation, entry.mapping, plain(actor.prev), context)
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
        await activation.record(actor, _with_end(fact, task.final))
    except LimitExceeded as error:
        failed = _failed_mapping(entry, started_at, error)
        failed.untold = notice.left_to_fact()
        await activation.record(actor, _with_end(failed, task.final))


def _failed_mapping(entry: MapEntry, started_at: float, error: Exception) -> StepEnded:
    return StepEnded(entry.id, started_at=started_at, ended_at=now(), counts=False, **failure(error, entry.id, f"mapping {entry.id!r}"))


def _with_end(fact: StepEnded, final: bool) -> list[Fact]:
    if fact.status != "success":
        return [fact, Finished(fact.status, fact.ended_at, error=fact.error, tripwire=fact.tripwire)]
    return [fact, Finished("success", fact.ended_at)] if final or fact.bail else [fact]


async def _resolve_all(mapping: dict[str, Any], prev: Any, context: LiveContext) -> dict[str, Any]:
    with Heard(context):
        return {key: await _resolve(source, prev, context) for key, source in mapping.items()}


async def _resolve(source: Any, prev: Any, context: LiveContext) -> Any:
    value = resolve(source, prev, context)
    return await value if asyncio.iscoroutine(value) or asyncio.isfuture(value) else value


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
            return await activation.record(actor, _with_end(fact, task.final))
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
    return await activation.record(actor, _with_end(fact, task.final))


async def _until(activation: Activation, actor: Actor, task: RunSleep, start: float) -> tuple[float, Writes | None]:
    """When a sleep ends, and what the function that says so did to the run."""
    duration = task.entry.duration
    if not isinstance(duration, UserFunction):
        return _end(duration, task, start), None
    context = LiveContext(activation, actor, entry=task.entry.id, value=actor.prev)
    end = _end(await call(activation, duration, plain(actor.prev), context), task, start)
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
