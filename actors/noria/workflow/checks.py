"""What commit() makes sure of."""

from __future__ import annotations

import types
import typing
import warnings
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, RootModel

from noria.errors import DefinitionError, DuplicateStep, EmptyWorkflow, choices
from noria.limits import MAX_NESTING
from noria.workflow.entries import BranchEntry, ForeachEntry, LoopEntry, MapEntry, ParallelEntry, SleepEntry, ThenEntry, Unit
from noria.workflow.mapping import FromStep
from noria.workflow.steps import Step

if TYPE_CHECKING:
    from noria.workflow.builder import Workflow


class TypeFlowWarning(UserWarning):
    """A step's declared input type cannot accept what comes before it."""


def units_of(workflow: Workflow) -> dict[str, Unit]:
    """The steps and nested workflows by id. Raises EmptyWorkflow or DuplicateStep."""
    if not workflow.entries:
        raise EmptyWorkflow(f"workflow {workflow.id!r} has no entry: add a step with .then(…)")
    units: dict[str, Unit] = {}
    names: set[str] = set()
    for entry in workflow.entries:
        match entry:
            case ParallelEntry() | BranchEntry():
                found = [(m.id, m) for m in entry.members]
            case ThenEntry() | ForeachEntry() | LoopEntry():
                found = [(entry.id, entry.unit)]
            case MapEntry() | SleepEntry():
                found = [(entry.id, None)]
        for name, unit in found:
            if name in names:
                raise DuplicateStep(f"workflow {workflow.id!r} has two steps with the id {name!r}: clone one with another id")
            names.add(name)
            if unit is not None:
                units[name] = unit
    return units


def depth(workflow: Workflow) -> int:
    """How many workflows are nested, itself included."""
    return 1 + max((depth(unit) for unit in workflow.units.values() if not isinstance(unit, Step)), default=0)


def check(workflow: Workflow) -> None:
    """Mappings name steps that exist; types can flow; it is not nested too deeply."""
    if depth(workflow) > MAX_NESTING:
        raise DefinitionError(f"workflow {workflow.id!r} is nested {depth(workflow)} deep, at most {MAX_NESTING}")
    known = [*workflow.units, *(e.id for e in workflow.entries if isinstance(e, (MapEntry, SleepEntry)))]
    for entry in workflow.entries:
        if isinstance(entry, MapEntry) and isinstance(entry.mapping, dict):
            for key, source in entry.mapping.items():
                for step in source.steps if isinstance(source, FromStep) else ():
                    if step not in known:
                        raise DefinitionError(f"mapping {entry.id!r}, key {key!r}: there is no step {step!r}; there are {choices(known)}")
    _check_types(workflow)


def _check_types(workflow: Workflow) -> None:
    """Rule: between two entries that each hand over one value (then, do_while, do_until, foreach) the output type must
    not be plainly unable to become the input type: a model with required fields takes no scalar and no model that lacks
    them, a scalar takes no model, a foreach takes a list. In doubt silent."""
    before: Any = workflow.input.type
    for entry in workflow.entries:
        match entry:
            case ThenEntry(unit=unit) | LoopEntry(unit=unit):
                if clash := _clash(before, _input_type(unit)):
                    _warn(workflow, entry.id, clash)
                before = unit.output.type
            case ForeachEntry(unit=unit):
                item = typing.get_args(before)[0] if typing.get_origin(before) is list else Any
                if isinstance(before, type) and issubclass(before, (BaseModel, str, int, float)):
                    _warn(workflow, entry.id, f"a foreach needs a list, not {before.__name__}")
                elif clash := _clash(item, _input_type(unit)):
                    _warn(workflow, entry.id, clash)
                before = Any
            case SleepEntry():
                pass
            case _:
                before = Any


def _warn(workflow: Workflow, entry: str, clash: str) -> None:
    warnings.warn(f"workflow {workflow.id!r}, step {entry!r}: {clash}", TypeFlowWarning, stacklevel=4)


def _input_type(unit: Unit) -> Any:
    if isinstance(unit, Step):
        return unit.input.type if unit.input else unit.annotation.type
    return unit.input.type


def _clash(given: Any, wanted: Any) -> str | None:
    if not isinstance(given, type) or not isinstance(wanted, type) or isinstance(given, types.GenericAlias) or isinstance(wanted, types.GenericAlias):
        return None
    scalars = (int, float, bool)
    if issubclass(given, RootModel) or issubclass(wanted, RootModel):
        return None  # on the wire it is its root, not an object
    if issubclass(wanted, BaseModel):
        required = {n for n, f in wanted.model_fields.items() if f.is_required()}
        if issubclass(given, BaseModel):
            missing = _missing(given, wanted, required)
            return f"{wanted.__name__} needs {choices(sorted(missing))}, which {given.__name__} does not have" if missing else None
        return f"{wanted.__name__} cannot be made of {given.__name__}" if issubclass(given, (*scalars, str)) and required else None
    if wanted in (*scalars, str) and issubclass(given, BaseModel):
        return f"{wanted.__name__} cannot be made of {given.__name__}"
    return None


def _missing(given: type[BaseModel], wanted: type[BaseModel], required: set[str]) -> set[str]:
    """The required fields that nothing in `given` can fill: neither a field, nor an alias, nor a computed one."""
    if given.model_config.get("extra") == "allow":
        return set()
    names = {*given.model_fields, *given.model_computed_fields}
    aliased = {f.alias for f in given.model_fields.values()} | {f.serialization_alias for f in given.model_fields.values()}
    fields = wanted.model_fields
    known = {name for name in required if fields[name].validation_alias in (None, fields[name].alias)}
    return {name for name in known if not {name, fields[name].alias or name} & (names | aliased)}
