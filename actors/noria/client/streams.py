"""The events of a run, from its log: stored entries in, RunEvents out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from noria.actor import parcels
from noria.actor.load import load
from noria.clock import aware
from noria.contract import commands, facts
from noria.contract.events import RunEvent
from noria.contract.facts import BlockEnded, Fact, Finished, Rested, StepEnded, StepSuspended, StepWaiting, iso
from noria.contract.results import RunResult
from noria.contract.values import loads
from noria.errors import NoriaError
from noria.machine.fold import fold_command, fold_message
from noria.machine.state import ENDED, Tree, split
from noria.ports import ActorKey, RunKey, Stored

if TYPE_CHECKING:
    from noria.client.noria import Noria


class RunStream:
    """Iterate it for events, await `result()` for the outcome; either alone works."""

    def __init__(
        self, noria: Noria, key: RunKey, as_result: Callable[[dict[str, Any]], RunResult], begin: Callable[[], Awaitable[int]] | None,
        close_on_suspend: bool, *, resumes: bool = False, timeout: float | None = None,
    ) -> None:  # fmt: skip
        self._noria, self._key, self._as_result, self._command = noria, key, as_result, begin
        self._close_on_suspend, self._resumes, self._timeout = close_on_suspend, resumes, timeout
        self._begun: asyncio.Task[int] | None = None

    async def _begin(self) -> int:
        if self._begun is None:
            command = self._command
            self._begun = asyncio.ensure_future(command() if command is not None else _nothing())
        return await asyncio.shield(self._begun)

    async def result(self) -> RunResult:
        """The outcome: of the stretch that ends the stream."""
        ended = not self._close_on_suspend
        return self._as_result(await self._noria.waiting.until_settled(self._key, self._begin, self._timeout, ended=ended))

    def __aiter__(self) -> AsyncGenerator[RunEvent, None]:
        return self._events()

    async def _events(self) -> AsyncGenerator[RunEvent, None]:
        await self._noria.broker.provision()
        sequence = await self._begin()
        for event in await self._aged_out() if self._command is None else ():
            yield event
            if event.type == "workflow-finish":
                return
        reader = _Reader(self._noria, self._key, sequence if self._resumes else 0)
        source = self._noria.broker.log.follow(self._key, 0 if self._resumes or not sequence else sequence - 1)
        try:
            async for entry in source:
                for event in await reader.read(entry):
                    yield event
                    if event.type == "workflow-finish" and self._is_last(event):
                        return
        finally:
            await source.aclose()

    async def _aged_out(self) -> list[RunEvent]:
        """Start and finish of an ended run whose facts are gone, made from its record; else nothing."""
        root_key = ActorKey(*self._key)
        if await self._noria.broker.log.last(root_key) is not None:
            return []
        tree = (await load(self._noria.broker, root_key)).tree
        root = tree.root
        if root.status not in ENDED:
            return []
        why = {k: v for k, v in (("error", root.error), ("tripwire", root.tripwire)) if v is not None}
        outcome = {"result": root.output} if root.status == "success" else why
        started: Any = {"input": root.input, "resource_id": tree.resource_id}
        finished: Any = {"status": root.status, "usage": {}, **outcome}
        return [
            self._made("workflow-start", root.started, tree.created_at, started),
            self._made("workflow-finish", root.last, root.ended_at, finished),
        ]

    def _made(self, type: str, sequence: int, at: float | None, data: Any) -> RunEvent:
        id = f"{sequence}.{type}"
        return RunEvent(type, self._key.run, self._key.workflow, (), None, None if at is None else aware(at), data, id, sequence)

    def _is_last(self, event: RunEvent) -> bool:
        return event.data["status"] in ENDED or self._close_on_suspend


class _Reader:
    """Folds what it reads, so that events can tell what facts leave out."""

    def __init__(self, noria: Noria, key: RunKey, after: int) -> None:
        self._noria, self._key, self._after = noria, key, after
        self._tree = Tree()

    async def read(self, entry: Stored) -> list[RunEvent]:
        """The events of one stored entry; none of those before the command that the stream began with."""
        try:
            body = await parcels.unpack(self._noria.broker, self._key, entry.body)
            events = self._read(entry, body)
        except NoriaError:
            return []
        return events if entry.sequence > self._after else []

    def _read(self, entry: Stored, body: bytes) -> list[RunEvent]:
        path = entry.actor.path
        if entry.kind == "live":
            return self._live(entry, loads(body))
        if entry.kind == "in":
            command = commands.decode(body)
            fold_command(self._tree, entry.sequence, path, command)
            if isinstance(command, commands.Start) and path == "":
                data = {"input": command.input, "resource_id": command.resource_id}
                return [self._event(entry, 0, "workflow-start", None, command.at, data)]
            return []
        message = facts.decode(body)
        fold_message(self._tree, entry.sequence, path, message)
        return [event for n, fact in enumerate(message.facts) for event in self._fact(entry, n, fact)]

    def _live(self, entry: Stored, event: dict[str, Any]) -> list[RunEvent]:
        type, step, data = event["type"][len("io.noria.") : -len(".v1")], event.get("step"), event.get("data")
        path = entry.actor.path
        of_item = step is None or path.rpartition(".")[2].startswith(f"{step}=")
        if self._is_item(path) and of_item and type in ("workflow-step-start", "workflow-step-waiting"):
            return []
        return [self._event(entry, 0, type, step, None, data, id=event["id"])]

    @staticmethod
    def _is_item(path: str) -> bool:
        return "=" in path.rpartition(".")[2]

    def _fact(self, entry: Stored, n: int, fact: Fact) -> list[RunEvent]:
        path, root = entry.actor.path, entry.actor.path == ""
        match fact:
            case StepEnded():
                if self._is_item(path) and fact.leaf:
                    return []
                data = _outcome(fact, fact.output)
                return [self._event(entry, n, "workflow-step-result", fact.step, fact.ended_at, data)]
            case StepSuspended():
                record = self._tree.actor(path).steps[fact.step]
                index = split(path.rpartition(".")[2])[1] if path else None
                data = {"input": record.input, "suspend_payload": fact.payload, "labels": fact.labels, "index": index}
                found = [self._event(entry, n, "workflow-step-suspended", fact.step, fact.suspended_at, data)]
                return [*found, *self._finish(entry, n, "suspended", fact.suspended_at)] if root else found
            case StepWaiting():
                record = self._tree.actor(path).steps[fact.step]
                data = {"input": record.input, "status": "waiting", "until": iso(fact.until)}
                return [self._event(entry, n, "workflow-step-waiting", fact.step, fact.started_at, data)]
            case BlockEnded(kind="foreach"):
                record = self._tree.actor(path).steps[fact.entry]
                data = _outcome(fact, record.output)
                return [self._event(entry, n, "workflow-step-result", fact.entry, fact.ended_at, data)]
            case Rested() if root and fact.status in ("suspended", "paused"):
                before = [self._event(entry, n, "workflow-paused", None, fact.at, {})] if fact.status == "paused" else []
                return [*before, *self._finish(entry, n, fact.status, fact.at)]
            case Finished() if root:
                before = [self._event(entry, n, "workflow-canceled", None, fact.ended_at, {})] if fact.status == "canceled" else []
                return [*before, *self._finish(entry, n, fact.status, fact.ended_at, fact)]
            case Finished() if not self._is_item(path):
                data = _outcome(fact, self._tree.actor(path).output)
                return [self._event(entry, n, "workflow-step-result", None, fact.ended_at, data)]
            case _:
                return []

    def _finish(self, entry: Stored, n: int, status: str, at: float, fact: Finished | None = None) -> list[RunEvent]:
        data: dict[str, Any] = {"status": status, "usage": {}}
        if status == "success":
            data["result"] = self._tree.root.output
        elif fact is not None:
            data.update({k: v for k, v in (("error", fact.error), ("tripwire", fact.tripwire)) if v is not None})
        return [self._event(entry, n, "workflow-finish", None, at, data, suffix="finish")]

    def _event(
        self, entry: Stored, n: int, type: str, step: str | None, at: float | None, data: Any, *, id: str = "", suffix: str = ""
    ) -> RunEvent:
        path = entry.actor.path
        segments = tuple(path.split(".")) if path else ()
        units = [split(s)[0] for s in segments]
        if type.startswith("workflow-step") and step != (units[-1] if units else None):
            units = [*units, step] if step is not None else units
        name = ".".join(units) if type.startswith("workflow-step") else step
        id = id or f"{entry.sequence}.{n}{'.' + suffix if suffix else ''}"
        return RunEvent(type, self._key.run, self._key.workflow, segments, name, aware(entry.time if at is None else at), data, id, entry.sequence)


def _outcome(fact: StepEnded | BlockEnded | Finished, output: Any) -> dict[str, Any]:
    """What a result event says: the output of a success, else why there is none."""
    data: dict[str, Any] = {"status": fact.status, "ended_at": iso(fact.ended_at)}
    if fact.status == "success":
        return {**data, "output": output}
    return {**data, **{k: v for k, v in (("error", fact.error), ("tripwire", fact.tripwire)) if v is not None}}


async def _nothing() -> int:
    return 0
