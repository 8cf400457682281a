"""The log of an actor: its facts, past tense. A closed union, matched once in `machine/fold.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from noria.contract.rewinds import Retried, Rewound

JSON: TypeAlias = Any


@dataclass(slots=True)
class Writes:
    """What a call of the user's did to the run beside its output: top-level keys of state and request context, tokens that it used."""

    state: dict[str, JSON] | None = None
    context: dict[str, JSON] | None = None
    context_removed: list[str] | None = None
    usage: dict[str, int] | None = None


@dataclass(slots=True)
class Started:
    """The run began. Packed with the root's first fact."""

    input: JSON
    resource_id: str | None
    at: float


@dataclass(slots=True)
class StepEnded:
    """A step, mapping or sleep came to its end; with `leaf` it is all that its actor does.

    `status` is success, failed, tripwire or canceled. `input` only when it differs from the previous output.
    """

    step: str
    status: str
    started_at: float
    ended_at: float
    output: JSON = None
    error: dict[str, JSON] | None = None
    tripwire: dict[str, JSON] | None = None
    attempts: int = 1
    round: int = 1
    has_input: bool = False
    input: JSON = None
    has_resume: bool = False
    resume_payload: JSON = None
    writes: Writes | None = None
    leaf: bool = False
    bail: bool = False
    counts: bool = True  # for step-wise runs: of mappings and sleeps only one that was travelled to
    forced: bool = False  # an assumed record of a time travel
    untold: bool = False  # no live event said that it began: this fact does


@dataclass(slots=True)
class StepSuspended:
    """A step waits for a resume."""

    step: str
    started_at: float
    suspended_at: float
    payload: JSON = None
    labels: list[str] = field(default_factory=list[str])
    output: JSON = None
    round: int = 1
    has_input: bool = False
    input: JSON = None
    has_resume: bool = False
    resume_payload: JSON = None
    writes: Writes | None = None
    leaf: bool = False
    attempts: int = 1
    untold: bool = False


@dataclass(slots=True)
class StepWaiting:
    """A sleep or a retry's pause waits for a timer that was set before this fact."""

    step: str
    started_at: float
    until: float
    attempts: int = 0
    round: int = 1
    has_input: bool = False
    input: JSON = None
    has_resume: bool = False
    resume_payload: JSON = None
    leaf: bool = False
    untold: bool = False
    writes: Writes | None = None


@dataclass(slots=True)
class Answered:
    """What the conditions of a branch (ids of the arms taken) or of a loop round (bool) said, or the concurrency of a foreach."""

    entry: str
    value: JSON
    life: int = 0  # the loop's nested workflow begins this life for its next round
    at: float = 0.0  # 0: in a log from before it was told
    writes: Writes | None = None


@dataclass(slots=True)
class BlockEnded:
    """All children of an entry ended; what it gave is folded from them. A foreach has a record, so its result is an event."""

    entry: str
    kind: str  # parallel, branch, foreach, loop, nested
    status: str
    ended_at: float
    segments: list[str] = field(default_factory=list[str])
    total: int = 0
    segment: str = ""
    error: dict[str, JSON] | None = None
    tripwire: dict[str, JSON] | None = None


@dataclass(slots=True)
class Rested:
    """The actor rests though its last fact did not say so: a child suspended, or a step-wise run paused."""

    status: str
    at: float


@dataclass(slots=True)
class TakenOver:
    """A successor hosts the actor now; whoever did before is fenced."""

    at: float


@dataclass(slots=True)
class HandedOver:
    """The host leaves the actor in order, alive: the next take-over is from nobody who died."""

    at: float


@dataclass(slots=True)
class Finished:
    """The actor ended. A success's result is the previous output unless `has_output`."""

    status: str
    ended_at: float
    has_output: bool = False
    output: JSON = None
    error: dict[str, JSON] | None = None
    tripwire: dict[str, JSON] | None = None


Fact: TypeAlias = (
    Started | StepEnded | StepSuspended | StepWaiting | Answered | Retried | Rewound | BlockEnded | Rested | TakenOver | HandedOver | Finished
)


@dataclass(slots=True)
class FactMessage:
    """One append to an actor's chain: facts that were ready together, and by whom.

    `in_seen`: sequence of the last command its host had folded. `door`: sequence of the command whose delivery is
    the host's lease. `host`: nonce of the activation. `member`: place of a child among its siblings.
    """

    facts: list[Fact]
    in_seen: int
    door: int
    host: str
    id: str
    member: int = 0
