"""Time travel and forks: what may be asked of a run, checked against its graph before anything is recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from noria import ids
from noria.actor import parcels
from noria.actor.load import load_newest
from noria.client.again import sent_before
from noria.client.catalogued import items_of, units_of
from noria.client.resuming import Resuming
from noria.clock import now
from noria.contract import commands
from noria.contract.values import as_dict, as_listing, dumps, loads, plain, plain_object
from noria.errors import GraphMismatch, InvalidInput, RunAlreadyStarted, RunNotFound, RunStillActive, StepNotFound, choices
from noria.machine.lives import adopt
from noria.machine.state import Tree, live
from noria.machine.time_travel import rewound
from noria.machine.view import is_active, status
from noria.ports import ActorKey, Refused, RunKey
from noria.workflow.builder import Workflow
from noria.workflow.entries import ForeachEntry
from noria.workflow.steps import Step

if TYPE_CHECKING:
    from noria.client.noria import Noria


class Journey:
    """One time travel of a run: `await journey()` sends it and gives the command's sequence, once however often it is
    awaited. With `origin` it is the first command of a fork of that run. `request_id`: of who may ask for the same again."""

    def __init__(
        self, noria: Noria, key: RunKey, known: Callable[[], Awaitable[Workflow | None]], step: Any, *, input: Any, resume: Any,
        state: dict[str, Any] | None, context: Mapping[Any, Any] | None, request_context: dict[str, Any] | None, per_step: bool,
        resource_id: str | None, origin: RunKey | None = None, request_id: str | None = None,
    ) -> None:  # fmt: skip
        self._noria, self._broker, self._key, self._known, self._origin = noria, noria.broker, key, known, origin
        if context is not None and not isinstance(cast(Any, context), Mapping):
            raise InvalidInput(f"context takes records by step, not {context!r}")
        self._target, self._context, self._input, self._resource_id = step_path(step), context or {}, plain(input), resource_id
        self._resume, self._per_step = plain(resume), per_step
        self._state, self._carried = plain_object("state", state), plain_object("request_context", request_context)
        self._sequence, self._of, self._request_id = 0, None, request_id
        self._workflow: Workflow | None = None
        self._from = Tree()  # of the run that it is a fork of

    async def __call__(self) -> int:
        if not self._sequence:
            self._sequence = await self._send(await self._command())
        return self._sequence

    async def _command(self) -> commands.TimeTravel:
        """The command. Raises WorkflowNotFound, WorkflowNotCommitted, StepNotFound or InvalidInput; RunNotFound of a fork."""
        await self._broker.provision()
        workflow = self._workflow = await self._known()
        graph = workflow.graph if workflow is not None else (await self._noria.workflows.get(self._key.workflow) or {})["graph"]
        check_target(graph, self._target)
        records = {".".join(path := step_path(step)): _record(path, given) for step, given in self._context.items()}
        for step in records:
            check_target(graph, tuple(step.split(".")))
        given = self._input
        if given is not None and workflow is not None:
            given = _checked(workflow, self._target, given)
        elif given is not None:
            await self._noria.workflows.catalogued.check_step_input(self._key.workflow, self._target, given)
        command = commands.TimeTravel(
            self._request_id or ids.run_id(), now(), list(self._target), given, self._resume, records, self._state, self._carried, self._per_step,
            self._resource_id, workflow.version if workflow is not None else str(graph["version"]),
        )  # fmt: skip
        if self._origin is not None:
            origin = await load_newest(self._broker, ActorKey(*self._origin))
            if not origin.tree.root.started:
                raise RunNotFound(f"there is no run {self._origin.run!r} of workflow {self._origin.workflow!r} to fork")
            command.origin, self._of, self._from = loads(dumps(origin.tree.dump())), origin.tree.traceparent, origin.tree
            command.resource_id = self._resource_id or origin.tree.resource_id
        return command

    async def _send(self, command: commands.TimeTravel) -> int:
        """Send it once the run may travel. Raises RunStillActive; RunAlreadyStarted of a fork."""
        key, verb, of = ActorKey(*self._key), "time-travel" if self._origin is None else "fork", self._of
        asked_again = self._request_id is not None
        while True:
            sent = await sent_before(self._broker, self._key, commands.TimeTravel, command.id) if asked_again else None
            if sent is not None:
                return sent
            asked_again = True  # a refusal may be of our own try, whose answer was lost
            last = await self._broker.commands.last(key)
            loaded = await load_newest(self._broker, key)
            if self._origin is not None and (last is not None or loaded.revision):
                raise RunAlreadyStarted(f"run {self._key.run!r} of workflow {self._key.workflow!r} exists already")
            if loaded.deleted:
                raise RunNotFound(f"run {self._key.run!r} was deleted: choose another id")
            if is_active(loaded.tree):
                if last is not None and await self._is_mine(last.body, command):
                    return last.sequence
                newest = await self._broker.commands.last(key)
                if newest is not None and (last is None or newest.sequence > last.sequence):
                    continue  # it came between the two readings, and may be the same as ours
                raise RunStillActive(f"run {self._key.run!r} is {status(loaded.tree)}: a run travels when it rests or ended; wait, or cancel it")
            if loaded.tree.root.started:
                of = loaded.tree.traceparent or ""
            self._check_resume(loaded.tree, command)
            await self._check_carried(loaded.tree, command)
            try:
                with self._noria.traced(verb, self._key, of=of) as command.traceparent:
                    body = await parcels.pack(self._broker, self._key, commands.encode(command))
                    sequence = await self._broker.commands.send(key, body, last.sequence if last is not None else 0)
            except Refused:
                continue
            self._broker.news.nudge(self._key, "client")
            return sequence

    def _check_resume(self, tree: Tree, command: commands.TimeTravel) -> None:
        """Raises InvalidInput for data that one of the steps that will get it cannot take. Of a workflow that is known by its id
        only, or of another version than the run's, its worker checks it: such a step then goes on without."""
        if self._resume is None or self._workflow is None:
            return
        if self._origin is not None:
            tree = Tree()
            adopt(tree, self._from)
        with suppress(GraphMismatch):
            held = rewound(self._workflow, tree, 0, command, command.at).held
            parts = [at.rpartition(".") for at in held]
            for step in Resuming.steps_at(self._workflow, [(path, id) for path, _, id in parts]):
                step.parse_resume(self._resume)

    async def _check_carried(self, tree: Tree, command: commands.TimeTravel) -> None:
        """Raises InvalidInput when the state or request context that the run would have is not as its workflow declares it."""
        before, catalogued, id = tree if self._origin is None else self._from, self._noria.workflows.catalogued, self._key.workflow
        state, context = {**live(before.state), **self._state}, {**live(before.context), **self._carried}
        if self._state and self._workflow is None:
            await catalogued.check_state(id, state, self._state)
        elif self._state and self._workflow is not None and self._workflow.validate:
            self._workflow.check_state(state, self._state)
        if self._carried and self._workflow is None:
            await catalogued.check_context(id, command.version, context)
        elif self._carried and self._workflow is not None and self._workflow.validate:
            self._workflow.parse_context(context)

    async def _is_mine(self, body: bytes, command: commands.TimeTravel) -> bool:
        """Whether the command under way is the same as ours: then its outcome is."""
        other = commands.decode(await parcels.unpack(self._broker, self._key, body))
        return isinstance(other, commands.TimeTravel) and replace(other, id=command.id, at=command.at, traceparent=command.traceparent) == command


def step_path(step: Any) -> tuple[str, ...]:
    """A step, id, dotted path, or a list of steps and ids, as ids from the outermost workflow down."""
    if isinstance(step, str):
        return tuple(step.split("."))
    if steps := as_listing(step):
        return tuple(part for s in steps for part in step_path(s))
    if isinstance(step, (Step, Workflow)):
        return (step.id,)
    raise InvalidInput(f"step {step!r}: give a step, an id, a dotted path, or a list of steps and ids")


def check_target(graph: dict[str, Any], target: tuple[str, ...]) -> None:
    """Raises StepNotFound with the steps that the graph has."""
    units = units_of(graph)
    for name in target or ("",):
        if name not in units:
            there = choices(sorted(_paths(graph)))
            raise StepNotFound(f"workflow {graph['id']!r} has no step {'.'.join(target)!r}; there are {there}")
        units = units_of(units[name][0])


def _paths(graph: dict[str, Any], prefix: str = "") -> list[str]:
    units = units_of(graph)
    return [p for name, (unit, _) in units.items() for p in (prefix + name, *_paths(unit, f"{prefix}{name}."))]


def _checked(workflow: Workflow, target: tuple[str, ...], given: Any) -> Any:
    """The input as the target's step keeps it. Raises InvalidInput."""
    validates = workflow.validate
    for name in target[:-1]:
        inner = workflow.units[name]
        assert isinstance(inner, Workflow)
        workflow, validates = inner, validates and inner.validate
    unit = workflow.units.get(target[-1])
    if unit is None or not validates:
        return given
    if any(isinstance(entry, ForeachEntry) and entry.id == unit.id for entry in workflow.entries):
        return [_parsed(unit, item) for item in items_of(unit.id, given)]
    return _parsed(unit, given)


def _parsed(unit: Step | Workflow, given: Any) -> Any:
    return unit.parse_input(given)[1] if isinstance(unit, Step) else unit.parse_input(given)


def _record(path: tuple[str, ...], given: Any) -> dict[str, Any]:
    """A record to assume, as the command holds it: a StepResult or a dict with any of input, output and times."""
    record = as_dict(loads(dumps(given)))
    if record is None:
        raise InvalidInput(f"context of step {'.'.join(path)!r}: a record with input and output, not {type(given).__name__}")
    found = {key: record[key] for key in ("input", "output") if key in record}
    if record.get("status", "success") != "success" and found.get("output") is None:
        found.pop("output", None)  # a StepResult that has none: what it gave is made up
    for key in ("started_at", "ended_at"):
        try:
            if (at := record.get(key)) is not None:
                found[key] = datetime.fromisoformat(at).timestamp() if isinstance(at, str) else float(at)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"context of step {'.'.join(path)!r}: {key} is no time: {error}") from error
    return found


