"""One run: start it, wait for it, resume it, watch it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from noria import ids
from noria.actor import parcels
from noria.actor.load import load_newest
from noria.client.again import sent_before
from noria.client.cancelling import Cancelling
from noria.client.resuming import Resuming
from noria.client.streams import RunStream
from noria.client.travel import Journey, step_path
from noria.clock import now
from noria.contract import commands
from noria.contract.names import checked_run, checked_workflow
from noria.contract.results import RunRecord, RunResult, run_result
from noria.contract.values import plain, plain_object
from noria.errors import (
    InvalidInput,
    RunAlreadyStarted,
    RunNotActive,
    WorkflowNotCommitted,
)  # fmt: skip
from noria.limits import MAX_RESOURCE_ID
from noria.machine.resume import Wanted
from noria.machine.view import is_active, status
from noria.ports import ActorKey, Refused, RunKey
from noria.workflow.builder import Workflow

if TYPE_CHECKING:
    from noria.client.noria import Noria

INSTEAD = {  # of a restart
    "unknown": "start() it",
    "suspended": "resume() goes on with it",
    "paused": "resume() without data goes on with it",
    "ended": "time_travel() goes back to a step of it, fork() begins a new run there",
}


class Run:
    """A handle of a run, by its `id` and `workflow_id`: nothing is read or written before one of its methods is called."""

    def __init__(self, noria: Noria, workflow: Workflow | str, run_id: str | None = None, resource_id: str | None = None) -> None:
        self._noria, self._broker = noria, noria.broker
        self.workflow_id = checked_workflow(workflow.id if isinstance(workflow, Workflow) else workflow)
        self._given = workflow if isinstance(workflow, Workflow) else None
        self._own_id = run_id is None
        self.id, self.resource_id = ids.run_id() if run_id is None else checked_run(run_id), resource_id
        if resource_id is not None and len(resource_id) > MAX_RESOURCE_ID:
            raise InvalidInput(f"resource_id: at most {MAX_RESOURCE_ID} characters, not {len(resource_id)}")
        self._key = RunKey(self.workflow_id, self.id)
        self._begin: Callable[[], Awaitable[int]] = _nothing  # before its result is waited for
        self._starts: set[asyncio.Future[None]] = set()
        self.request_id: str | None = None  # given by who may ask for the same again: no command is sent twice under one

    def __repr__(self) -> str:
        return f"Run({self.workflow_id!r}, {self.id!r})"

    @property
    def _workflow(self) -> Workflow | None:
        registered = self._noria.registry.get(self.workflow_id)
        if self._given is None or (registered is not None and not self._given.committed):
            return registered
        return self._given

    def _result(self, view: dict[str, Any]) -> RunResult:
        return run_result(view, self._workflow.parse_output if self._workflow is not None else None)

    # Start ------------------------------------------------------------------------------------------------------

    async def start(
        self, input: Any = None, *, state: dict[str, Any] | None = None, request_context: dict[str, Any] | None = None,
        per_step: bool = False, timeout: float | None = None,
    ) -> RunResult:  # fmt: skip
        """Start and wait until it is suspended, paused or ended. Raises RunAlreadyStarted, InvalidInput (nothing is
        recorded then), NoWorker or TimeoutError past `timeout` seconds (the run goes on)."""
        with self._sending(self._starter(input, state, request_context, per_step)) as begin:
            return self._result(await self._noria.waiting.until_settled(self._key, begin, timeout))

    async def start_async(
        self, input: Any = None, *, state: dict[str, Any] | None = None, request_context: dict[str, Any] | None = None,
        per_step: bool = False, timeout: float | None = None,
    ) -> str:  # fmt: skip
        """Start; the run id, once the start is durable. Raises as `start` does, TimeoutError when NATS has not stored it by then."""
        with self._sending(self._starter(input, state, request_context, per_step)) as begin:
            async with self._noria.waiting.within(self._key, timeout):
                await begin()
        return self.id

    async def start_from_event(self, input: Any, traceparent: str | None = None) -> str:
        """Start from a CloudEvent, whose trace goes on."""
        await self._starter(input, None, None, False, traceparent)()
        return self.id

    def stream(
        self, input: Any = None, *, state: dict[str, Any] | None = None, request_context: dict[str, Any] | None = None,
        per_step: bool = False, timeout: float | None = None, close_on_suspend: bool = True,
    ) -> RunStream:  # fmt: skip
        """Start, and see its events; it starts at the first iteration or `result()`."""
        begin = self._starter(input, state, request_context, per_step)
        return RunStream(self._noria, self._key, self._result, begin, close_on_suspend, timeout=timeout)

    def observe(self, *, close_on_suspend: bool = False) -> RunStream:
        """The run's events from its first on, live or finished or not yet begun."""
        return RunStream(self._noria, self._key, self._result, None, close_on_suspend)

    def attend(self, command: int, *, close_on_suspend: bool, resumes: bool) -> RunStream:
        """The events of the stretch that the command with this sequence began; `resumes`: those after the command only."""
        return RunStream(self._noria, self._key, self._result, _sent(command), close_on_suspend, resumes=resumes)

    def _starter(
        self, input: Any, state: dict[str, Any] | None, context: dict[str, Any] | None, per_step: bool, traceparent: str | None = None
    ) -> Callable[[], Awaitable[int]]:
        async def begin() -> int:
            workflow = await self._known()
            data, given, carried = plain(input), plain_object("state", state), plain_object("request_context", context)
            if workflow is not None:
                data = workflow.parse_input(data)
                if workflow.validate:
                    if state is not None:
                        given = {**given, **plain(workflow.parse_state(given))}
                    carried = workflow.parse_context(carried)
            else:
                await self._noria.workflows.catalogued.check_start(self.workflow_id, data, None if state is None else given, carried)
            version = workflow.version if workflow is not None else "1"
            with self._noria.traced("start", self._key, traceparent) as traced:
                start = commands.Start(self.request_id or ids.run_id(), now(), data, self.resource_id, given, carried, per_step, version, traced)
                return await self._send_start(start)

        return begin

    @contextmanager
    def _sending(self, begin: Callable[[], Awaitable[int]]) -> Generator[Callable[[], Awaitable[int]], None, None]:
        """`begin`, made known to a cancel of this handle, which comes after a start that is under way."""
        sent = asyncio.get_running_loop().create_future()
        self._starts.add(sent)

        async def begun() -> int:
            try:
                return await begin()
            finally:
                sent.set_result(None)

        try:
            yield begun
        finally:
            self._starts.discard(sent)
            sent.cancel()

    async def _known(self) -> Workflow | None:
        workflow = self._workflow
        if workflow is None:
            await self._noria.workflows.catalogued.known(self.workflow_id)
            return None
        if not workflow.entries:
            workflow.commit()  # raises EmptyWorkflow
        if not workflow.committed:
            raise WorkflowNotCommitted(f"workflow {workflow.id!r} is not committed: call .commit(), or register it with a worker")
        return workflow

    async def _send_start(self, start: commands.Start) -> int:
        await self._broker.provision()
        body = await parcels.pack_command(self._broker, self._key, start)
        if self._own_id or await self._broker.records.get(self._key) is None:
            with suppress(Refused):
                return await self._broker.commands.send(ActorKey(*self._key), body, 0)
        sequence = await sent_before(self._broker, self._key, commands.Start, start.id)  # by us, and the answer was lost
        if sequence is None:
            raise RunAlreadyStarted(f"run {self.id!r} of workflow {self.workflow_id!r} exists already")
        return sequence

    # Wait -------------------------------------------------------------------------------------------------------

    async def result(self, timeout: float | None = None) -> RunResult:
        """Wait until the run is suspended, paused or ended."""
        return self._result(await self._noria.waiting.until_settled(self._key, self._begin, timeout))

    async def outcome(self, after: int, timeout: float | None = None, *, ended: bool = False) -> RunResult:
        """`result` of the stretch that the command with the sequence `after` began, with `ended` of the whole run."""
        return self._result(await self._noria.waiting.until_settled(self._key, _sent(after), timeout, ended=ended, look=True))

    async def get(self) -> RunRecord | None:
        """The run as it is now; None when it is unknown."""
        return await self._noria.runs.get(self.id, self._workflow or self.workflow_id)

    # Resume, cancel, restart ------------------------------------------------------------------------------------

    async def resume(
        self, data: Any = None, *, step: Any = None, label: str | None = None, index: int | None = None,
        request_context: dict[str, Any] | None = None, per_step: bool = False,
    ) -> RunResult:  # fmt: skip
        """Hand data to what is suspended and wait as `start` does. Raises, recording nothing, RunNotSuspended,
        StepNotSuspended, AmbiguousResume or InvalidInput."""
        begin = self._resumer(data, step, label, index, request_context, per_step)
        return self._result(await self._noria.waiting.until_settled(self._key, begin))

    def resume_stream(
        self, data: Any = None, *, step: Any = None, label: str | None = None, index: int | None = None,
        request_context: dict[str, Any] | None = None, per_step: bool = False, close_on_suspend: bool = True,
    ) -> RunStream:  # fmt: skip
        """`resume`, with the events from it on."""
        begin = self._resumer(data, step, label, index, request_context, per_step)
        return RunStream(self._noria, self._key, self._result, begin, close_on_suspend, resumes=True)

    def _resumer(
        self, data: Any, step: Any, label: str | None, index: int | None, context: dict[str, Any] | None, per_step: bool
    ) -> Callable[[], Awaitable[int]]:
        wanted = Wanted(None if step is None else step_path(step), label, index, data is not None)
        return Resuming(self._noria, self._key, self._workflow, wanted, data, context, per_step, self.request_id).begin

    async def cancel(self, *, timeout: float | None = 30.0) -> None:
        """End the run as canceled; afterwards it is. One that ended stays as it is. Raises RunNotFound, and NoWorker or
        TimeoutError past `timeout` seconds; the command stays."""
        async with self._noria.waiting.within(self._key, timeout):
            await self._broker.provision()
            await asyncio.sleep(0)  # a task that was just made to start this run begins
            if self._starts:
                await asyncio.wait(set(self._starts))
            await Cancelling(self._noria, self._key).cancel(timeout)

    async def restart(self, *, timeout: float | None = 30.0) -> RunResult:
        """Make sure that an active run has a host, and wait for it. Raises RunNotActive, and NoWorker or TimeoutError past
        `timeout` seconds; the command stays."""
        async with self._noria.waiting.within(self._key, timeout):
            await self._broker.provision()
            if self.request_id is not None:
                sent = await sent_before(self._broker, self._key, commands.Restart, self.request_id)
                if sent is not None:
                    return await self.outcome(sent, timeout)
            tree = (await load_newest(self._broker, ActorKey(*self._key))).tree
            if not is_active(tree):
                state = status(tree) if tree.root.started else "unknown"
                raise RunNotActive(f"run {self.id!r} is not active: it is {state}; {INSTEAD.get(state, INSTEAD['ended'])}")
            send = partial(self.send_restart, tree.traceparent or "")
            return self._result(await self._noria.waiting.until_settled(self._key, send, timeout))

    async def send_restart(self, of: str | None = None) -> int:
        """Have a worker look at the run; the command's sequence. `of`: see Observer.sends."""
        with self._noria.traced("restart", self._key, of=of) as traced:
            command = commands.encode(commands.Restart(self.request_id or ids.run_id(), now(), traced))
            sequence = await self._broker.commands.send(ActorKey(*self._key), command)
        self._broker.news.nudge(self._key, "client")
        return sequence

    # Time travel ------------------------------------------------------------------------------------------------

    async def time_travel(
        self, step: Any, *, input: Any = None, resume: Any = None, state: dict[str, Any] | None = None,
        context: Mapping[Any, Any] | None = None, request_context: dict[str, Any] | None = None, per_step: bool = False,
    ) -> RunResult:  # fmt: skip
        """Go on from a step, of a run that rests or ended, or never ran; wait as `start` does. `input`: what the step gets;
        `context`: records to assume, by step id or dotted path; `resume`: data for what was suspended, once it is reached.
        Raises, recording nothing, StepNotFound, RunStillActive or InvalidInput."""
        begin = self._journey(self._key, step, input, resume, state, context, request_context, per_step)
        return self._result(await self._noria.waiting.until_settled(self._key, begin))

    def time_travel_stream(
        self, step: Any, *, input: Any = None, resume: Any = None, state: dict[str, Any] | None = None,
        context: Mapping[Any, Any] | None = None, request_context: dict[str, Any] | None = None, per_step: bool = False,
        close_on_suspend: bool = True,
    ) -> RunStream:  # fmt: skip
        """Travel, and see the events from then on."""
        begin = self._journey(self._key, step, input, resume, state, context, request_context, per_step)
        return RunStream(self._noria, self._key, self._result, begin, close_on_suspend, resumes=True)

    def fork(
        self, step: Any, *, input: Any = None, run_id: str | None = None, resume: Any = None, state: dict[str, Any] | None = None,
        context: Mapping[Any, Any] | None = None, request_context: dict[str, Any] | None = None, per_step: bool = False,
    ) -> Fork:  # fmt: skip
        """A new run that begins at a step of this one, with copies of what was before; this one stays as it is. It begins
        when it is awaited (`run = await run.fork(step)`), or by `start()`, `stream()` or `result()`."""
        key = RunKey(self.workflow_id, ids.run_id() if run_id is None else run_id)
        begin = self._journey(key, step, input, resume, state, context, request_context, per_step, self._key)
        return Fork(self._noria, self._given or self.workflow_id, key.run, self.resource_id, begin)

    def _journey(
        self, key: RunKey, step: Any, input: Any, resume: Any, state: dict[str, Any] | None, context: Mapping[Any, Any] | None,
        request_context: dict[str, Any] | None, per_step: bool, origin: RunKey | None = None,
    ) -> Journey:  # fmt: skip
        return Journey(
            self._noria, key, self._known, step, input=input, resume=resume, state=state, context=context,
            request_context=request_context, per_step=per_step, resource_id=self.resource_id, origin=origin, request_id=self.request_id,
        )  # fmt: skip


class Fork(Run):
    """A run that begins where another one was."""

    def __init__(
        self, noria: Noria, workflow: Workflow | str, run_id: str, resource_id: str | None, journey: Callable[[], Awaitable[int]]
    ) -> None:
        super().__init__(noria, workflow, run_id, resource_id)
        self._begin = journey

    def __await__(self) -> Generator[Any, None, Run]:
        yield from self._begin().__await__()
        return self

    def _starter(
        self, input: Any, state: dict[str, Any] | None, context: dict[str, Any] | None, per_step: bool, traceparent: str | None = None
    ) -> Callable[[], Awaitable[int]]:
        if input is not None or state or context or per_step:
            raise InvalidInput(f"run {self.id!r} is a fork: give input, state, request_context and per_step to fork()")
        return self._begin


def _sent(sequence: int) -> Callable[[], Awaitable[int]]:
    async def begin() -> int:
        return sequence

    return begin


async def _nothing() -> int:
    return 0


