"""The places of a workflow: one frozen class per kind of entry. A closed union, matched in `machine/decide.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from noria.workflow.builder import Workflow
    from noria.workflow.functions import UserFunction
    from noria.workflow.mapping import Source
    from noria.workflow.steps import Step

Unit: TypeAlias = "Step | Workflow"
Placement: TypeAlias = Literal["auto", "local", "spread"]


@dataclass(frozen=True, slots=True)
class ThenEntry:
    """One step, or one nested workflow as a child actor."""

    unit: Unit

    @property
    def id(self) -> str:
        return self.unit.id


@dataclass(frozen=True, slots=True)
class ParallelEntry:
    """All members at once, each a child actor."""

    id: str
    members: tuple[Unit, ...]
    allow_failure: bool = False
    placement: Placement = "auto"


@dataclass(frozen=True, slots=True)
class BranchEntry:
    """Every arm whose condition is true, at once, each a child actor."""

    id: str
    conditions: tuple[UserFunction, ...]
    members: tuple[Unit, ...]


@dataclass(frozen=True, slots=True)
class ForeachEntry:
    """The unit once per item of the previous output, each item a child actor."""

    unit: Unit
    concurrency: int | UserFunction = 1
    placement: Placement = "auto"

    @property
    def id(self) -> str:
        return self.unit.id


@dataclass(frozen=True, slots=True)
class LoopEntry:
    """The unit again and again: while the condition holds, or until it does. At least once."""

    unit: Unit
    condition: UserFunction
    until: bool

    @property
    def id(self) -> str:
        return self.unit.id


@dataclass(frozen=True, slots=True)
class MapEntry:
    """New data from sources or from a function."""

    id: str
    mapping: UserFunction | dict[str, Source]


@dataclass(frozen=True, slots=True)
class SleepEntry:
    """Waits; its output is its input. `duration`: seconds or a timedelta, or with `until` an aware datetime, or a function of these."""

    id: str
    duration: float | timedelta | datetime | UserFunction
    until: bool = False


Entry: TypeAlias = ThenEntry | ParallelEntry | BranchEntry | ForeachEntry | LoopEntry | MapEntry | SleepEntry
