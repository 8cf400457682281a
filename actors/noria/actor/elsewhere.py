"""Calling the handler of a step that lives in another process, in whatever language, by request and reply."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from noria.actor.activation import Activation
from noria.actor.context import LiveContext
from noria.actor.courier import Courier
from noria.actor.handlers import in_time
from noria.clock import monotonic
from noria.contract import calls
from noria.contract.subjects import Subjects
from noria.contract.values import dumps, plain
from noria.errors import InvalidInput, LimitExceeded, NoriaError, Tripwire
from noria.ids import run_id as unique
from noria.limits import (
    CALL_BACKLOG,
    CALL_HEARTBEAT_SECONDS,
    HANDLER_DEATHS,
    HANDLER_PATIENCE_SECONDS,
    MAX_INLINE_BYTES,
    MAX_LABELS,
    MAX_RESULTS_BYTES,
)  # fmt: skip
from noria.ports import Answer
from noria.workflow.context import AbortSignal, BailSignal, SuspendSignal
from noria.workflow.steps import Step

log = logging.getLogger("noria.step")
SILENCE = 3  # heartbeats that may be missing before a handler counts as dead
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0


class NoHandler(NoriaError):
    """Nobody serves a step just now; or nobody who takes calls of this size, which may be how its handlers are made."""

    def __init__(self, text: str, is_large: bool = False) -> None:
        super().__init__(text)
        self.is_large = is_large


class _Gone(Exception):
    """The handler died or stops: another one is to be called."""


class _Heard(asyncio.Queue[Answer | None]):
    """What a handler said and nobody looked at yet; what is too much is not kept."""

    is_flooded = False

    def hear(self, answer: Answer | None) -> None:
        if self.full():
            self.is_flooded = True
        else:
            self.put_nowait(answer)


async def call_elsewhere(activation: Activation, step: Step, context: LiveContext) -> Any:
    """The output of a step handler elsewhere; what it signals is raised as if it had run here. Waits a while for somebody
    to serve it, then raises NoHandler; calls again when a handler dies."""
    subject = step.subject or Subjects(activation.broker.namespace).step(context.workflow_id, step.id)
    deaths, begun, pause = 0, monotonic(), FIRST_PAUSE_SECONDS
    while True:
        try:
            reply = await in_time(step, step.timeout, _call(activation, step, context, subject))
        except _Gone as gone:
            deaths, context.recovered, begun = deaths + 1, True, monotonic()
            log.warning("step %r of run %s is called again: %s", step.id, context.run_id, gone)
            if deaths > HANDLER_DEATHS:
                raise NoriaError(f"step {step.id!r}: {deaths} handlers in a row died of it or left it") from gone
        except NoHandler as nobody:
            if monotonic() - begun + pause > HANDLER_PATIENCE_SECONDS:
                if step.remote and nobody.is_large:
                    raise LimitExceeded(str(nobody)) from nobody
                raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        else:
            return _outcome(reply, context)


async def _call(activation: Activation, step: Step, context: LiveContext, subject: str) -> Any:
    """One call: hand on its progress, until there is a reply."""
    port, heard = activation.broker.calls, _Heard(CALL_BACKLOG)
    talk = port.open(heard.hear)
    request = _request(activation, step, context, talk.address)
    courier = Courier(activation.broker, activation.key.tree, request.call, request.reply_as)
    wanted = True
    try:
        body = calls.encode(request)
        parcel = await courier.close(body, calls.SHOWN_CALL)
        subject = subject if parcel is body else f"{subject}.{calls.PARCEL}"
        talk.send(subject, parcel)
        while True:
            try:
                async with asyncio.timeout(CALL_HEARTBEAT_SECONDS * SILENCE):
                    answer = await heard.get()
            except TimeoutError:
                raise _Gone(f"no sign of life from its handler on {subject}") from None
            if heard.is_flooded:
                raise NoriaError(f"step {step.id!r}: its handler says more than can be handed on: {CALL_BACKLOG} messages wait")
            if answer is None:
                raise _nobody(step, subject, len(body), port.max_bytes)
            if answer.error is not None:
                wanted = False
                return _refused(answer)
            match message := calls.decode(await courier.open(answer.body)):
                case calls.Heartbeat():
                    continue
                case calls.Output():
                    await context.write(message.data)
                case calls.Emitted():
                    await context.emit(message.name, message.data)
                case calls.HandedBack():
                    raise _Gone("its handler stops")
                case _:
                    wanted = False
                    return message
    finally:
        talk.close()
        courier.clear()
        if wanted and request.cancel is not None:
            port.tell(request.cancel, b"")


def _nobody(step: Step, subject: str, size: int, limit: int) -> NoHandler:
    if size <= limit:
        return NoHandler(f"step {step.id!r}: nobody serves {subject}")
    why = f"a call of {size} bytes exceeds the server's max_payload of {limit} bytes"
    return NoHandler(f"step {step.id!r}: {why}, and nobody serves {subject}, where such calls go by reference", is_large=True)


def _refused(answer: Answer) -> Any:
    """A handler's service error in place of a reply."""
    if answer.code == "503":
        raise _Gone(answer.error or "it stops")
    failure = calls.Failure(type="ServiceError", message=answer.error or "", attributes={"code": answer.code})
    return calls.Failed(error=failure, retryable=answer.code not in ("400", "413"))


def _request(activation: Activation, step: Step, context: LiveContext, progress: str) -> calls.StepCall:
    observer = activation.host.observer
    call, results = unique(), context.results() if "c" in step.fn.order or step.remote else {}
    # a handler in another language may take no parcels: it gets what leaves room for the rest
    if results and len(dumps(results)) > (MAX_INLINE_BYTES if step.remote else MAX_RESULTS_BYTES):
        results = None
    seals = activation.broker.calls.seals
    return calls.StepCall(
        call=call, root=activation.key.workflow, workflow=context.workflow_id, step=step.id, run_id=context.run_id, path=list(context.path),
        resource_id=context.resource_id,
        input=plain(context.input), init_data=context.init_data, attempt=context.attempt, recovered=context.recovered,
        iteration=context.iteration, index=context.index, state=context.values(), request_context=dict(context.request_context), results=results,
        resume_data=plain(context.resume_data), suspend_data=plain(context.suspend_data), idempotency_key=context.idempotency_key,
        checks=activation.places.validates(".".join(context.path)), timeout=step.timeout, heartbeat=CALL_HEARTBEAT_SECONDS, progress=progress,
        traceparent=observer.traceparent() if observer is not None else None,
        cancel=Subjects(activation.broker.namespace).cancel(context.workflow_id, step.id, call),
        reply_as="parcel" if not seals else "sealed" if step.sealed else "plain",
    )  # fmt: skip


def _outcome(reply: Any, context: LiveContext) -> Any:
    if isinstance(reply, (calls.Success, calls.Suspended, calls.Bailed)):
        if reply.state:
            context.set_state(reply.state)
        context.request_context.update(reply.request_context)
        for key in reply.request_context_removed:
            context.request_context.pop(key, None)
    match reply:
        case calls.Success():
            return reply.output
        case calls.Suspended():
            if len(reply.labels) > MAX_LABELS:
                raise InvalidInput(f"a suspension has at most {MAX_LABELS} labels, not {len(reply.labels)}")
            raise SuspendSignal(reply.payload, reply.labels, reply.output)
        case calls.Bailed():
            raise BailSignal(reply.result)
        case calls.Tripped():
            raise Tripwire(reply.reason, reply.retry, reply.metadata)
        case calls.Aborted():
            raise AbortSignal
        case calls.Failed():
            raise calls.HandlerFailed(reply.error, reply.retryable)
        case _:
            raise NoriaError(f"a reply of an unknown kind: {reply!r}")
