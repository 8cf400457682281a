"""One run by the control API: the same verbs, exceptions and events, without touching a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

from noria import ids
from noria.client.noria import Noria
from noria.client.run import Run
from noria.client.streams import RunStream
from noria.client.travel import step_path
from noria.clock import monotonic
from noria.contract import control
from noria.contract.control import Begun, read
from noria.contract.events import RunEvent
from noria.contract.results import RunResult, typed
from noria.contract.subjects import Subjects
from noria.contract.values import loads
from noria.errors import BrokerUnavailable, NoriaError, NoWorker, RunNotFound
from noria.limits import ANSWER_SECONDS, API_WAIT_SECONDS, PATIENCE_SECONDS
from noria.ports import Answer, Broker, Nobody
from noria.workflow.builder import Workflow

PAUSE_SECONDS = 0.25
NOBODY_SECONDS = 3.0  # how long a restart of the only worker may take


class Api:
    """Requests to the control API, asked again while nobody answers."""

    def __init__(self, broker: Broker) -> None:
        self._broker, self._subjects = broker, Subjects(broker.namespace)

    async def ask(self, verb: str, *, within: float = ANSWER_SECONDS, **fields: Any) -> Any:
        """The answer of a verb that may take so many seconds. It does once what it does, however often it is asked until an
        answer comes. Raises what the verb raised there, NoWorker when no worker serves the API."""
        if issubclass(control.VERBS[verb], control.Once):
            fields["request_id"] = fields.get("request_id") or ids.run_id()
        body = control.asked(**fields)
        begun, again = monotonic(), False
        while True:
            try:
                return self._read(await self._broker.calls.ask(self._subjects.api(verb), body, within + ANSWER_SECONDS))
            except Nobody:
                if monotonic() - begun > NOBODY_SECONDS:
                    raise NoWorker(f"no worker serves the control API of namespace {self._broker.namespace!r}: noria worker MODULE:ATTR") from None
            except BrokerUnavailable:
                if monotonic() - begun > within + PATIENCE_SECONDS:
                    raise
                again = True
            except RunNotFound:
                if again and verb == "delete":  # by a try whose answer was lost
                    return None
                raise
            await asyncio.sleep(PAUSE_SECONDS)

    @staticmethod
    def _read(answer: Answer) -> Any:
        if answer.error is not None:
            raise control.error_of(answer.body, answer.error, answer.code)
        return loads(answer.body)


class RemoteRun(Run):
    """A run by the control API."""

    def __init__(self, noria: Noria, api: Api, workflow: Workflow | str, run_id: str | None, resource_id: str | None) -> None:
        super().__init__(noria, workflow, run_id, resource_id)
        self._api = api

    def _of(self, verb: str, close_on_suspend: bool, timeout: float | None = None, **fields: Any) -> RemoteStream:
        return RemoteStream(self, self._api, verb, fields, close_on_suspend, timeout)

    @property
    def parse_output(self) -> Callable[[Any], Any] | None:
        return self._workflow.parse_output if self._workflow is not None else None

    def stream(
        self, input: Any = None, *, state: dict[str, Any] | None = None, request_context: dict[str, Any] | None = None,
        per_step: bool = False, timeout: float | None = None, close_on_suspend: bool = True,
    ) -> RemoteStream:  # fmt: skip
        return self._of(
            "start", close_on_suspend, timeout, input=input, state=state, request_context=request_context, per_step=per_step,
            resource_id=self.resource_id,
        )  # fmt: skip

    async def start(self, input: Any = None, **options: Any) -> RunResult:
        return await self.stream(input, **options).result()

    async def start_async(self, input: Any = None, **options: Any) -> str:
        await self.stream(input, **options).begin()
        return self.id

    def observe(self, *, close_on_suspend: bool = False) -> RemoteStream:
        return self._of("", close_on_suspend)

    async def outcome(self, after: int, timeout: float | None = None, *, ended: bool = False) -> RunResult:
        end = None if timeout is None else monotonic() + timeout
        while True:
            left = API_WAIT_SECONDS if end is None else max(0.0, min(API_WAIT_SECONDS, end - monotonic()))
            answer = await self._api.ask(
                "outcome", within=left, run_id=self.id, workflow=self.workflow_id, after=after, seconds=left, ended=ended
            )
            if answer["settled"]:
                return typed(read(RunResult, answer["result"]), self.parse_output)
            if end is not None and monotonic() >= end:
                if not answer["hosted"]:
                    raise NoWorker(f"no worker hosts workflow {self.workflow_id!r}; run {self.id!r} stays durable and waits for one")
                raise TimeoutError(f"run {self.id!r} did not come to rest in time; it goes on")

    async def result(self, timeout: float | None = None) -> RunResult:
        return await self.outcome(0, timeout)

    def resume_stream(
        self, data: Any = None, *, step: Any = None, label: str | None = None, index: int | None = None,
        request_context: dict[str, Any] | None = None, per_step: bool = False, close_on_suspend: bool = True,
    ) -> RemoteStream:  # fmt: skip
        path = None if step is None else [*step_path(step)]
        return self._of(
            "resume", close_on_suspend, data=data, step=path, label=label, index=index, request_context=request_context, per_step=per_step
        )

    async def resume(self, data: Any = None, **options: Any) -> RunResult:
        return await self.resume_stream(data, **options).result()

    async def cancel(self, *, timeout: float | None = 30.0) -> None:
        while True:
            try:
                await self._waited("cancel", API_WAIT_SECONDS if timeout is None else timeout)
                break
            except (TimeoutError, NoWorker):
                if timeout is not None:
                    raise

    async def restart(self, *, timeout: float | None = 30.0) -> RunResult:
        try:
            answer = await self._waited("restart", API_WAIT_SECONDS if timeout is None else timeout)
        except (TimeoutError, NoWorker):
            if timeout is not None:
                raise
            return await self.result()
        return typed(read(RunResult, answer), self.parse_output)

    async def _waited(self, verb: str, seconds: float) -> Any:
        return await self._api.ask(verb, within=seconds, run_id=self.id, workflow=self.workflow_id, timeout=seconds)

    def time_travel_stream(self, step: Any, *, close_on_suspend: bool = True, **options: Any) -> RemoteStream:
        return self._of("time-travel", close_on_suspend, step=[*step_path(step)], **options)

    async def time_travel(self, step: Any, **options: Any) -> RunResult:
        return await self.time_travel_stream(step, **options).result()

    def fork(self, step: Any, *, run_id: str | None = None, **options: Any) -> Any:  # a RemoteFork
        id = ids.run_id() if run_id is None else run_id
        begin = self._of("fork", True, step=[*step_path(step)], fork_id=id, **options).begin
        return RemoteFork(self._noria, self._api, self._given or self.workflow_id, id, begin)


class RemoteStream(RunStream):
    """The events of a run and its outcome, by the control API."""

    def __init__(
        self, run: RemoteRun, api: Api, verb: str, fields: dict[str, Any], close_on_suspend: bool, timeout: float | None,
        begin: Callable[[], Awaitable[int]] | None = None,
    ) -> None:  # fmt: skip
        """`verb` and `fields` are the command that begins it, unless `begin` does."""
        self._run, self._api, self._verb, self._fields, self._given = run, api, verb, fields, begin
        self._until_ended, self._limit = not close_on_suspend, timeout
        self._sent: asyncio.Future[int] | None = None
        self._settled: RunResult | None = None  # told with the last event

    async def begin(self) -> int:
        if self._sent is None:
            self._sent = asyncio.ensure_future(self._send())
        return await asyncio.shield(self._sent)

    async def _send(self) -> int:
        if not self._verb:
            return await self._given() if self._given is not None else 0
        answer = await self._api.ask(self._verb, run_id=self._run.id, workflow=self._run.workflow_id, **self._fields)
        return read(Begun, answer).sequence

    @property
    def was_read(self) -> bool:
        return self._settled is not None

    async def result(self) -> RunResult:
        if self._settled is not None:  # whatever became of the run since
            return self._settled
        end = None if self._limit is None else monotonic() + self._limit
        after = await self.begin()
        return await self._run.outcome(after, None if end is None else max(0.0, end - monotonic()), ended=self._until_ended)

    def __aiter__(self) -> AsyncGenerator[RunEvent, None]:
        return self._received()

    async def _received(self) -> AsyncGenerator[RunEvent, None]:
        try:
            begun = await self.begin()
        except NoriaError:
            return
        after = begun - 1 if self._verb == "start" or self._given is not None else begun
        last, seen = after, set[str]()
        while True:
            answer = await self._api.ask(
                "events", within=API_WAIT_SECONDS, run_id=self._run.id, workflow=self._run.workflow_id, after=after, command=begun,
                seconds=API_WAIT_SECONDS, close_on_suspend=not self._until_ended,
            )  # fmt: skip
            if answer.get("result") is not None:
                self._settled = typed(read(RunResult, answer["result"]), self._run.parse_output)
            for event in (read(RunEvent, found) for found in answer["events"]):
                if event.id not in seen:
                    seen = {event.id} if event.sequence > last else {*seen, event.id}
                    last = event.sequence
                    yield event
            if answer["over"]:
                return
            after = max(after, last - 1)  # one stored message may give several events: the last one's are asked for again


class RemoteFork(RemoteRun):
    """A run that begins where another one was: when it is awaited, or by `start()`, `stream()` or `result()`."""

    def __init__(self, noria: Noria, api: Api, workflow: Workflow | str, run_id: str, begin: Callable[[], Awaitable[int]]) -> None:
        super().__init__(noria, api, workflow, run_id, None)
        self._begin = begin

    def __await__(self) -> Generator[Any, None, Run]:
        yield from self._begin().__await__()
        return self

    def stream(self, input: Any = None, *, timeout: float | None = None, close_on_suspend: bool = True, **options: Any) -> RemoteStream:
        return RemoteStream(self, self._api, "", {}, close_on_suspend, timeout, self._begin)

    async def outcome(self, after: int, timeout: float | None = None, *, ended: bool = False) -> RunResult:
        return await super().outcome(after or await self._begin(), timeout, ended=ended)
