"""What the machine asks the actor to do. A closed union, matched once in `actor/drive.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from noria.contract.facts import Fact
from noria.workflow.builder import Workflow
from noria.workflow.entries import BranchEntry, ForeachEntry, LoopEntry, MapEntry, ParallelEntry, SleepEntry, ThenEntry
from noria.workflow.steps import Step


@dataclass(slots=True)
class RunStep:
    """Call a step and record how it went. `resume` is [sequence, data] when it goes on after a suspension.

    `leaf`: it is all that its actor does. `final`: its success ends the workflow.
    """

    step: Step
    input: Any
    round: int = 1
    attempts: int = 0
    resume: list[Any] | None = None
    leaf: bool = False
    final: bool = False


@dataclass(slots=True)
class RunMapping:
    """Evaluate a mapping and record its result. `counts`: it is the one step that was asked for."""

    entry: MapEntry
    final: bool = False
    counts: bool = False


@dataclass(slots=True)
class RunSleep:
    """Wait until `until` (None: not determined yet), in place or behind a timer. `counts`: see RunMapping."""

    entry: SleepEntry
    until: float | None = None
    final: bool = False
    counts: bool = False


@dataclass(slots=True)
class Ask:
    """Evaluate the conditions of a branch, of a loop round, or a foreach's concurrency, and record the answer."""

    entry: BranchEntry | LoopEntry | ForeachEntry
    key: str
    value: Any
    round: int = 1


@dataclass(slots=True)
class RunChildren:
    """Run the children of an entry, at most `limit` at once, until each of them rests."""

    entry: ThenEntry | ParallelEntry | BranchEntry | ForeachEntry | LoopEntry
    segments: list[str]
    limit: int


@dataclass(slots=True)
class Hold:
    """Do not go on before `until`: in place, or behind a timer."""

    until: float


@dataclass(slots=True)
class Record:
    """Append these facts."""

    facts: list[Fact]


@dataclass(slots=True)
class Rest:
    """Nothing to do until somebody says so."""

    status: str


Unit: TypeAlias = Step | Workflow
Task: TypeAlias = RunStep | RunMapping | RunSleep | Ask | RunChildren | Hold | Record | Rest
