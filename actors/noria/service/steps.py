"""Step handlers as endpoints of a micro service: called by workers that lack them, and by hand."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING

from pydantic import BaseModel

from noria import runlog
from noria.actor.courier import Courier, opened
from noria.actor.handlers import call_here
from noria.contract import calls
from noria.contract.calls import StepCall
from noria.contract.subjects import Subjects
from noria.contract.values import error_info, plain
from noria.errors import BrokerUnavailable, InvalidInput, NonRetryable, NoriaError, Tripwire
from noria.limits import THREADS
from noria.machine.state import split
from noria.ports import Answer, Endpoint, RunKey
from noria.service.context import CallContext
from noria.workflow.builder import Workflow
from noria.workflow.context import AbortSignal, BailSignal, SuspendSignal
from noria.workflow.steps import Step

if TYPE_CHECKING:
    from noria.client.noria import Noria

log = logging.getLogger("noria.step")
NAME = "noria-steps"


class Handler:
    """A step that has a function here. Workflows may hold different ones under one name, since an id need only be one of a
    kind in the workflow around it: a call tells where it comes from."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, ...], tuple[Workflow, Step]] = {}

    def add(self, place: tuple[str, ...], workflow: Workflow, step: Step) -> None:
        """`place`: the root's id and those of the workflows on the way to the innermost one."""
        self._places.setdefault(place, (workflow, step))

    @property
    def first(self) -> tuple[Workflow, Step]:
        return next(iter(self._places.values()))

    def of(self, call: StepCall) -> tuple[Workflow, Step]:
        """What a call means. Raises InvalidInput when it does not tell which of several it means."""
        units = [split(segment)[0] for segment in call.path]
        for place in ((call.root, *units), (call.root, *units[:-1])):
            if place in self._places:
                return self._places[place]
        workflow, step = self.first
        if any(other is not step for _, other in self._places.values()):
            there = ", ".join(repr(".".join(place)) for place in self._places)
            raise InvalidInput(f"step {step.id!r}: there are different workflows {workflow.id!r} here, as {there}: a call needs its root and path")
        return workflow, step


def handlers(workflows: Iterable[Workflow]) -> dict[tuple[str, str], Handler]:
    """Every step that has a function here, by (innermost workflow, step)."""
    found: dict[tuple[str, str], Handler] = {}
    waiting: list[tuple[tuple[str, ...], Workflow]] = [((workflow.id,), workflow) for workflow in workflows]
    while waiting:
        place, workflow = waiting.pop(0)
        for name, unit in workflow.units.items():
            if isinstance(unit, Workflow):
                waiting.append(((*place, name), unit))
            elif not unit.remote:
                found.setdefault((workflow.id, name), Handler()).add(place, workflow, unit)
    return found


class StepService:
    """Serves the steps of these workflows until it is closed, at most `concurrency` calls at once."""

    def __init__(self, noria: Noria, workflows: Iterable[Workflow], concurrency: int) -> None:
        self._noria, self._handlers, self._subjects = noria, handlers(workflows), Subjects(noria.namespace)
        self._places, self._threads = asyncio.Semaphore(concurrency), ThreadPoolExecutor(THREADS, "noria-call")
        self._running: dict[str, tuple[asyncio.Task[BaseModel], CallContext]] = {}  # by the call's cancel subject
        self._stops: list[Callable[[float], Awaitable[None]]] = []

    async def open(self) -> None:
        if not self._handlers:
            return
        endpoints = [self._endpoint(found, more) for found in self._handlers.values() for more in ((), (calls.PARCEL,))]
        heard = await self._noria.broker.calls.listen(self._subjects.cancel("*", "*"), self._cancelled)
        self._stops.append(lambda _: heard())
        stop = await self._noria.broker.services.serve(NAME, "step handlers", {"namespace": self._noria.namespace}, endpoints)
        self._stops.append(stop)

    async def close(self, grace: float) -> None:
        """What runs gets `grace` seconds; its callers then call somebody else."""
        for stop in reversed(self._stops):
            await stop(grace)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _endpoint(self, found: Handler, more: tuple[str, ...]) -> Endpoint:
        async def handler(body: bytes) -> Answer:
            try:
                call = calls.decode_call(await opened(self._noria.broker, body))
                workflow, step = found.of(call)
            except InvalidInput as error:
                from noria.contract.control import error_body  # a worker's runs go on before the control API is defined

                return Answer(error_body(error), str(error), "400")
            except NoriaError as error:  # without the key, or the blobs: perhaps another handler has them
                return Answer(b"", str(error), "503")
            courier = Courier.of(self._noria.broker, call)
            reply = await self._attend(workflow, step, call, courier)
            try:
                return Answer(await courier.close(calls.encode(reply), calls.SHOWN_TOLD))
            except BrokerUnavailable as error:
                return Answer(b"", str(error), "503")
            except NoriaError as error:
                return Answer(await courier.close(calls.encode(_failed(error, retryable=False)), calls.SHOWN_TOLD))

        workflow, step = found.first
        about = {
            "workflow": workflow.id, "step": step.id, "description": step.description or "", "input": json.dumps(step.input_schema()),
            "output": json.dumps(step.output.schema()),
        }  # fmt: skip
        return Endpoint("-".join((workflow.id, step.id, *more)), ".".join((self._subjects.step(workflow.id, step.id), *more)), handler, about)

    async def _attend(self, workflow: Workflow, step: Step, call: StepCall, courier: Courier) -> BaseModel:
        """The reply to one call, with signs of life until then."""
        context = CallContext(self._noria, workflow, step, call, courier)
        runlog.current.set(RunKey(context.workflow_id, call.run_id))
        work = asyncio.create_task(self._reply(workflow, step, call, context))
        beats = asyncio.create_task(self._beat(call)) if call.progress is not None else None
        if call.cancel is not None:
            self._running[call.cancel] = (work, context)
        try:
            return await work
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():  # this worker stops
                work.cancel()
                raise
            return calls.Aborted()  # nobody waits for it any more
        finally:
            if beats is not None:
                beats.cancel()
            if call.cancel is not None:
                self._running.pop(call.cancel, None)

    async def _beat(self, call: StepCall) -> None:
        assert call.progress is not None
        while True:
            await asyncio.sleep(call.heartbeat)
            self._noria.broker.calls.tell(call.progress, calls.encode(calls.Heartbeat()))

    def _cancelled(self, subject: str, _: bytes) -> None:
        found = self._running.get(subject)
        if found is not None:
            work, context = found
            context.cancelled.set()
            work.cancel()

    async def _reply(self, workflow: Workflow, step: Step, call: StepCall, context: CallContext) -> BaseModel:
        try:
            context.input, _ = step.parse_input(call.input, context.checks)
            if call.resume_data is not None:
                context.resume_data, _ = step.parse_resume(call.resume_data)
            async with self._places:
                output = plain(await self._run(step, call, context))
            return calls.Success(output=output, **context.changes())
        except SuspendSignal as signal:
            return calls.Suspended(payload=signal.payload, labels=signal.labels, output=signal.output, **context.changes())
        except BailSignal as signal:
            return calls.Bailed(result=signal.result, **context.changes())
        except AbortSignal:
            return calls.Aborted()
        except Tripwire as error:
            return calls.Tripped(reason=error.reason, retry=error.retry, metadata=plain(error.metadata))
        except Exception as error:
            retry = step.retry or workflow.retry
            final = isinstance(error, (NonRetryable, InvalidInput, *retry.non_retryable))
            log.debug("step %r of run %s failed here", step.id, call.run_id, exc_info=True)
            return _failed(error, retryable=not final)

    async def _run(self, step: Step, call: StepCall, context: CallContext) -> object:
        observer, run = self._noria.observer, RunKey(context.workflow_id, call.run_id)
        with nullcontext() if observer is None else observer.serves(step.id, run, call.traceparent):
            return await call_here(step, context.input, context, self._threads, call.timeout)


def _failed(error: Exception, *, retryable: bool) -> calls.Failed:
    return calls.Failed(error=calls.Failure.model_validate(error_info(error)), retryable=retryable)
