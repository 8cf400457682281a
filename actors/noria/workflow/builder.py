"""Workflows: immutable graphs of entries."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast, get_args

from noria.contract.values import as_dict, as_list, as_listing, dumps, plain
from noria.errors import DefinitionError, choices
from noria.retry import Retry
from noria.workflow import checks, diagram
from noria.workflow.cron import Cron, named
from noria.workflow.entries import (
    BranchEntry,
    Entry,
    ForeachEntry,
    LoopEntry,
    MapEntry,
    ParallelEntry,
    Placement,
    SleepEntry,
    ThenEntry,
    Unit,
)  # fmt: skip
from noria.workflow.functions import UserFunction
from noria.workflow.mapping import SOURCES, Source, value
from noria.workflow.settings import checked_name, checked_retry, checked_seconds
from noria.workflow.steps import Step
from noria.workflow.triggers import checked_triggers
from noria.workflow.types import Declared, is_emptied


class Workflow:
    """A graph of steps. Every combinator returns a new Workflow; `commit()` validates and freezes it.

    `input`, `output`, `state`, `context`: declared types of what starts it, of its result, of the run's state and request context.
    `retry`: of its steps that have none of their own, and of nested workflows as a whole. `timeout`: of the run, in seconds or as a
    timedelta, suspensions excluded. `retention`: the same, how long the record of an ended run is kept; None: for ever. `on_finish`
    is called at the end of each stretch of execution, `on_error` besides when the run failed or tripped: `fn()`, `fn(result)` or
    `fn(result, ctx)`, at least once. `triggers`: `on_event(…)`s; `schedule`: a `Cron` or a list of them. `version` is told by records,
    and by the error when a run does not fit. Raises DefinitionError for what cannot be meant.

    `timeout`, `on_finish`, `on_error`, `retention`, `triggers` and `schedule` are the run's: those of a workflow that is nested in
    the run's own say nothing. `validate=False` holds for the workflow and all that is in it, nested ones too.
    """

    def __init__(
        self, id: str, *, input: Any = Any, output: Any = Any, state: Any = None, context: Any = None,
        retry: Retry = Retry(), validate: bool = True, timeout: float | timedelta | None = None, version: str = "1",
        on_finish: Callable[..., Any] | None = None, on_error: Callable[..., Any] | None = None, triggers: Sequence[Any] = (),
        schedule: Any = None, retention: float | timedelta | None = timedelta(days=30), description: str | None = None,
    ) -> None:  # fmt: skip
        where = f"workflow {id!r}"
        if not isinstance(cast(Any, version), str):
            raise DefinitionError(f"{where}: version needs text, not {version!r}")
        self.id, self.version, self.description = checked_name(id, "workflow"), version, description
        self.input, self.output = Declared(input, where), Declared(output, where)
        self.state, self.context = Declared(state, where), Declared(context, where)
        self.retry, self.validate = checked_retry(retry, where), validate
        self.timeout_seconds = checked_seconds(timeout, f"{where}: timeout")
        self.retention_seconds = checked_seconds(retention, f"{where}: retention")
        self.on_finish = None if on_finish is None else _callback(on_finish)
        self.on_error = None if on_error is None else _callback(on_error)
        self.triggers = checked_triggers(id, triggers)
        one_or_none = [] if schedule is None else [schedule]
        self.schedules = tuple(named(id, one_or_none if (given := as_listing(schedule)) is None else given).values())
        self.entries: tuple[Entry, ...] = ()
        self.units: dict[str, Unit] = {}
        self.committed = False

    def __repr__(self) -> str:
        return f"Workflow({self.id!r}, {len(self.entries)} entries)"

    def _with(self, entry: Entry) -> Workflow:
        grown = copy.copy(self)
        grown.entries, grown.units, grown.committed = (*self.entries, entry), {}, False
        return grown

    def _name(self, kind: str) -> str:
        return f"{kind}-{len(self.entries)}"

    def then(self, unit: Unit | Callable[..., Any]) -> Workflow:
        """The next step, or a nested workflow."""
        return self._with(ThenEntry(as_unit(unit)))

    def parallel(self, *units: Any, allow_failure: bool = False, placement: Placement = "auto") -> Workflow:
        """All at once on the same input; gives {id: output}. `allow_failure`: one that fails gives None; a tripwire ends the run all the same."""
        members = (as_listing(units[0]) if len(units) == 1 else None) or list(units)
        if not members:
            raise DefinitionError(f"workflow {self.id!r}: parallel() needs at least one step")
        self._check_placement(placement)
        return self._with(ParallelEntry(self._name("parallel"), tuple(as_unit(u) for u in members), allow_failure, placement))

    def branch(self, *arms: Any) -> Workflow:
        """Arms of (condition, step): every one whose condition is true runs, concurrently; gives {id: output}."""
        given: list[Any] = arms[0] if len(arms) == 1 and as_list(arms[0]) is not None else list(arms)
        pairs = [as_listing(arm) or [] for arm in given]
        if not pairs or not all(len(pair) == 2 and not isinstance(pair[0], (Step, Workflow)) for pair in pairs):
            raise DefinitionError(f"workflow {self.id!r}: branch() takes (condition, step) pairs")
        conditions = tuple(UserFunction.of(condition) for condition, _ in pairs)
        return self._with(BranchEntry(self._name("branch"), conditions, tuple(as_unit(u) for _, u in pairs)))

    def foreach(self, unit: Any, *, concurrency: int | Callable[..., Any] = 1, placement: Placement = "auto") -> Workflow:
        """The unit for each item of the previous output, `concurrency` at once; gives the outputs in input order."""
        if concurrency < 1 if isinstance(concurrency, int) else not callable(concurrency):
            raise DefinitionError(f"foreach concurrency must be at least 1, or a function, not {concurrency!r}")
        limit = concurrency if isinstance(concurrency, int) else UserFunction.of(concurrency)
        self._check_placement(placement)
        return self._with(ForeachEntry(as_unit(unit), limit, placement))

    def _check_placement(self, placement: str) -> None:
        if placement not in get_args(Placement):
            raise DefinitionError(f"workflow {self.id!r}: placement {placement!r}: choose one of {choices(get_args(Placement))}")

    def do_while(self, unit: Any, condition: Callable[..., Any]) -> Workflow:
        """The unit, again as long as the condition on its output holds."""
        return self._with(LoopEntry(as_unit(unit), UserFunction.of(condition), until=False))

    def do_until(self, unit: Any, condition: Callable[..., Any]) -> Workflow:
        """The unit, again until the condition on its output holds."""
        return self._with(LoopEntry(as_unit(unit), UserFunction.of(condition), until=True))

    def map(self, mapping: Mapping[str, Any] | Callable[..., Any], *, id: str | None = None) -> Workflow:
        """New data from sources, or from fn(prev, ctx)."""
        name = self._name("mapping") if id is None else checked_name(id, "mapping")
        given = as_dict(mapping)
        if given is not None:
            sources = {key: self._source(name, key, s) for key, s in given.items()}
            return self._with(MapEntry(name, sources))
        return self._with(MapEntry(name, UserFunction.of(cast(Callable[..., Any], mapping))))

    def _source(self, mapping: str, key: str, source: Any) -> Source:
        if isinstance(source, SOURCES):
            return source
        if isinstance(source, (Step, Workflow)) or callable(source):
            hint = f"from_step({source.id!r})" if isinstance(source, (Step, Workflow)) else "computed(…)"
            raise DefinitionError(f"workflow {self.id!r}, mapping {mapping!r}, key {key!r}: write {hint} instead of {source!r}")
        return value(source)

    def sleep(self, duration: float | timedelta | Callable[..., Any]) -> Workflow:
        """Wait; the output is the input."""
        if not callable(duration) and not isinstance(cast(Any, duration), (int, float, timedelta)):
            raise DefinitionError(f"sleep needs seconds, a timedelta or a function, not {duration!r}")
        given = UserFunction.of(duration) if callable(duration) else duration
        return self._with(SleepEntry(self._name("sleep"), given))

    def sleep_until(self, at: datetime | Callable[..., Any]) -> Workflow:
        """Wait until an aware datetime; the output is the input."""
        if not callable(at) and (not isinstance(cast(Any, at), datetime) or at.tzinfo is None):
            raise DefinitionError(f"sleep_until needs an aware datetime (give it a time zone) or a function, not {at!r}")
        return self._with(SleepEntry(self._name("sleep"), UserFunction.of(at) if callable(at) else at, until=True))

    def commit(self) -> Workflow:
        """Validate the graph and freeze it; warns (TypeFlowWarning) where no output of a step can be the input of the next one,
        by their declared types, and (UnusedSettingWarning) where a nested one sets what is the run's. Raises EmptyWorkflow,
        DuplicateStep or DefinitionError."""
        if not self.committed:
            self.units = checks.units_of(self)
            for unit in self.units.values():
                if isinstance(unit, Workflow):
                    unit.commit()
            checks.check(self)
            for misfit in checks.misfits(self):
                warnings.warn(misfit, checks.TypeFlowWarning, stacklevel=2)
            for idle in checks.unused(self):
                warnings.warn(idle, checks.UnusedSettingWarning, stacklevel=2)
            self.committed = True
        return self

    def clone(self, *, id: str) -> Workflow:
        """The same flow under another id."""
        twin = copy.copy(self)
        twin.id = checked_name(id, "workflow")
        return twin

    @property
    def schedules_by_id(self) -> dict[str, Cron]:
        """The schedules by the ids under which they are stored."""
        return named(self.id, self.schedules)

    @property
    def graph(self) -> dict[str, Any]:
        """The graph as JSON data."""
        return diagram.describe(self)

    @property
    def graph_hash(self) -> str:
        """A short name of the graph's structure, code not included."""
        return hashlib.sha256(dumps(self.graph)).hexdigest()[:16]

    @property
    def declaration(self) -> str:
        """A short name of what a worker declares by it: version, graph and schedules."""
        schedules = {id: [c.expression, c.timezone, c.input, c.overlap] for id, c in self.schedules_by_id.items()}
        return hashlib.sha256(dumps([self.version, self.graph, schedules])).hexdigest()[:16]

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        return diagram.mermaid(self.graph)

    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the declared input; `{}` accepts everything."""
        return self.input.schema()

    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of the declared output."""
        return self.output.schema()

    def state_schema(self) -> dict[str, Any]:
        """JSON Schema of the declared state."""
        return self.state.schema()

    def parse_input(self, data: Any) -> Any:
        """Plain validated input. Raises InvalidInput."""
        if not self.validate:
            return data
        parsed = plain(self.input.parse(f"Invalid input data: workflow {self.id!r}", data))
        return data if is_emptied(data, parsed) else parsed

    def parse_state(self, data: Any) -> Any:
        """The state as its declared type. Raises InvalidInput."""
        return self.state.parse(f"Invalid state: workflow {self.id!r}", data)

    def check_state(self, values: dict[str, Any], changed: Collection[str]) -> None:
        """Raises InvalidInput when `changed` keys of the state are not as declared."""
        self.state.check_changes(f"Invalid state: workflow {self.id!r}", values, changed)

    def parse_context(self, data: Any) -> Any:
        """Plain validated request context. Raises InvalidInput."""
        parsed = plain(self.context.parse(f"Request context validation failed: workflow {self.id!r}", data))
        return {**(as_dict(data) or {}), **(as_dict(parsed) or {})}

    def parse_output(self, data: Any) -> Any:
        """The result as its declared type. Raises InvalidInput."""
        return self.output.parse(f"Invalid output data: workflow {self.id!r}", data)


def id_of(workflow: Workflow | str | None) -> str | None:
    """The id of a workflow that is given by itself or by its id; None is none."""
    return workflow.id if isinstance(workflow, Workflow) else workflow


def as_unit(unit: Any) -> Unit:
    """A step or workflow as it is, a plain function as a step."""
    if isinstance(unit, (Step, Workflow)):
        return unit
    if callable(unit):
        return Step(unit)
    raise DefinitionError(f"{unit!r} is neither a step nor a workflow nor a function")


def _callback(fn: Callable[..., Any]) -> UserFunction:
    return UserFunction.of(fn)
