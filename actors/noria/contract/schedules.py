"""Schedules as stored: the definition, and what became of its ticks. Also what callers see of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from noria.contract.values import as_dict, dumps, loads, too_new
from noria.errors import InvalidInput, NoriaError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Definition:
    """What a workflow declared. `build` names the workflow's version and graph: a tick is for workers that have them."""

    cron: str
    timezone: str = "UTC"
    input: Any = None
    overlap: str = "skip"
    build: str = ""
    paused: bool = False


@dataclass(slots=True)
class Past:
    """The latest tick that started a run, and how many in a row did not and why."""

    last_run: str | None = None
    last_at: float | None = None
    skipped: int = 0
    misses: int = 0


@dataclass(slots=True)
class Declarations:
    """What workers ever declared a workflow to be (`Workflow.declaration`), the first one first."""

    known: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A schedule as `noria.schedules.list()` shows it; `next` is None while it is paused."""

    id: str
    workflow_id: str
    cron: str
    timezone: str
    input: Any
    overlap: str
    paused: bool
    next: datetime | None
    last_run: str | None
    last_at: datetime | None
    skipped: int


def encode(value: Definition | Past | Declarations) -> bytes:
    """As JSON."""
    return dumps({"v": FORMAT, **asdict(value)})


def definition(body: bytes) -> Definition:
    """Raises InvalidInput for what is none, NoriaError for a newer format."""
    try:
        return Definition(**_known(body, Definition))
    except TypeError as error:
        raise InvalidInput(f"not a schedule: {error}") from error


def past(body: bytes) -> Past:
    """Raises InvalidInput for what is none, NoriaError for a newer format."""
    return Past(**_known(body, Past))


def declarations(body: bytes) -> Declarations:
    """Raises InvalidInput for what is none, NoriaError for a newer format."""
    return Declarations(**_known(body, Declarations))


def _known(body: bytes, kind: type[Definition | Past | Declarations]) -> dict[str, Any]:
    try:
        data = as_dict(loads(body))
    except ValueError as error:
        raise InvalidInput(f"not a schedule: {error}") from error
    if data is None:
        raise InvalidInput("not a schedule: a JSON object is expected")
    if data.get("v", FORMAT) > FORMAT:
        raise NoriaError(too_new("a schedule", data["v"], FORMAT))
    return {f.name: data[f.name] for f in fields(kind) if f.name in data}
