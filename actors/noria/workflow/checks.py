"""What commit() makes sure of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from noria.errors import DefinitionError, DuplicateStep, EmptyWorkflow, choices
from noria.limits import MAX_NESTING
from noria.workflow.entries import BranchEntry, ForeachEntry, LoopEntry, MapEntry, ParallelEntry, SleepEntry, ThenEntry, Unit
from noria.workflow.functions import UserFunction
from noria.workflow.mapping import FromStep
from noria.workflow.steps import Step
from noria.workflow.typeflow import ANYTHING, NOTHING, Shape, accepted, clash, either, item_of, listed, members, offered, returned
from noria.workflow.types import Declared

if TYPE_CHECKING:
    from noria.workflow.builder import Workflow


class TypeFlowWarning(UserWarning):
    """A step's declared input type cannot accept what comes before it."""


class UnusedSettingWarning(UserWarning):
    """A nested workflow has a setting that counts for a run of its own only."""


def unused(workflow: Workflow) -> Iterator[str]:
    """What nested workflows set in vain: these are settings of the run, and so of the outermost workflow."""
    for unit in workflow.units.values():
        if not isinstance(unit, Step):
            given = {"timeout": unit.timeout_seconds, "on_finish": unit.on_finish, "on_error": unit.on_error}
            if names := [name for name, value in given.items() if value is not None]:
                yield (
                    f"workflow {workflow.id!r}: {' and '.join(names)} of the nested workflow {unit.id!r} say nothing here: only those of "
                    f"the outermost workflow count, as settings of the run; a step may have a timeout of its own"
                )


def units_of(workflow: Workflow) -> dict[str, Unit]:
    """The steps and nested workflows by id. Raises EmptyWorkflow or DuplicateStep."""
    if not workflow.entries:
        raise EmptyWorkflow(f"workflow {workflow.id!r} has no entry: add a step with .then(…)")
    units: dict[str, Unit] = {}
    names: set[str] = set()
    for entry in workflow.entries:
        match entry:
            case ParallelEntry() | BranchEntry():
                found = [(entry.id, None), *((m.id, m) for m in entry.members)]
            case ThenEntry() | ForeachEntry() | LoopEntry():
                found = [(entry.id, entry.unit)]
            case MapEntry() | SleepEntry():
                found = [(entry.id, None)]
        for name, unit in found:
            if name in names:
                raise DuplicateStep(f"workflow {workflow.id!r} has two steps with the id {name!r}: clone one with another id{_called(name)}")
            names.add(name)
            if unit is not None:
                units[name] = unit
    return units


def _called(name: str) -> str:
    kind, _, place = name.partition("-")
    unnamed = kind in ("parallel", "branch", "mapping", "sleep") and place.isdigit()
    return f" ({name!r} is what the {kind} in that place is called)" if unnamed else ""


def depth(workflow: Workflow) -> int:
    """How many workflows are nested, itself included."""
    return 1 + max((depth(unit) for unit in workflow.units.values() if not isinstance(unit, Step)), default=0)


def check(workflow: Workflow) -> None:
    """Mappings name steps that exist; it is not nested too deeply. Raises DefinitionError."""
    if depth(workflow) > MAX_NESTING:
        raise DefinitionError(f"workflow {workflow.id!r} is nested {depth(workflow)} deep, at most {MAX_NESTING}")
    known = [*workflow.units, *(e.id for e in workflow.entries if isinstance(e, (MapEntry, SleepEntry)))]
    for entry in workflow.entries:
        if isinstance(entry, MapEntry) and isinstance(entry.mapping, dict):
            for key, source in entry.mapping.items():
                for step in source.steps if isinstance(source, FromStep) else ():
                    if step not in known:
                        raise DefinitionError(f"mapping {entry.id!r}, key {key!r}: there is no step {step!r}; there are {choices(known)}")


def misfits(workflow: Workflow) -> Iterator[str]:
    """Where types cannot flow. Rule: what an entry hands over must not be plainly unable to become what the next one takes, by
    the JSON Schemas of the declared types: it is another kind of value, an object that lacks a required field, or one of its items
    or fields is. A loop's unit takes its own output, too. A workflow that validates nothing is not looked at. In doubt silent."""
    before: Declared | Shape = workflow.input
    for entry in workflow.entries if workflow.validate else ():
        match entry:
            case ThenEntry(unit=unit):
                found = [(unit, _misfit(before, unit))]
                before = unit.output
            case LoopEntry(unit=unit):
                found = [(unit, _misfit(before, unit) or _misfit(unit.output, unit, "in its next round "))]
                before = unit.output
            case ForeachEntry(unit=unit):
                before = offered(before)
                none = clash(before, listed(ANYTHING))
                found = [(unit, f"a foreach needs a list; {none}" if none else _misfit(item_of(before), unit, "for an item "))]
                before = listed(offered(unit.output))
            case ParallelEntry() | BranchEntry():
                found = [(unit, _misfit(before, unit)) for unit in entry.members]
                tolerant = isinstance(entry, ParallelEntry) and entry.allow_failure
                outputs = {unit.id: offered(unit.output) for unit in entry.members}
                before = members({id: either([output, NOTHING]) for id, output in outputs.items()} if tolerant else outputs)
            case MapEntry(mapping=mapping):
                found = []
                before = returned(mapping) if isinstance(mapping, UserFunction) else members(dict.fromkeys(mapping, ANYTHING))
            case SleepEntry():
                found = []
        yield from (f"workflow {workflow.id!r}, step {unit.id!r}: {why}" for unit, why in found if why)


def _misfit(given: Declared | Shape, unit: Unit, when: str = "") -> str | None:
    wanted = unit.annotation if isinstance(unit, Step) and not unit.input else unit.input
    if not wanted or (isinstance(given, Declared) and given.type == wanted.type):
        return None
    why = clash(offered(given), accepted(wanted))
    return why and when + why
