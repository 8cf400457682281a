"""What callers get: results, records, summaries. Plain values; built from the machine's view of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from noria.clock import aware
from noria.contract.typed import made
from noria.errors import RunCancelled, RunFailed, RunSuspended, RunTripped

Result = TypeVar("Result", bound="RunResult")


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception that crossed the wire: bare class name, text, public attributes, cause."""

    type: str
    message: str
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    cause: ErrorInfo | None = None
    stack: str | None = None

    @classmethod
    def of(cls, data: dict[str, Any] | None) -> ErrorInfo | None:
        """From its JSON form."""
        if data is None:
            return None
        return cls(data["type"], data["message"], data.get("attributes") or {}, cls.of(data.get("cause")))


@dataclass(frozen=True, slots=True)
class TripwireInfo:
    """Why a run tripped, and in which step."""

    reason: str
    retry: bool = False
    metadata: Any = None
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Suspension:
    """A step that waits for a resume: ids from the outermost workflow down, its payload, labels and foreach index."""

    path: tuple[str, ...]
    payload: Any = None
    labels: tuple[str, ...] = ()
    index: int | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """The record of a step. Data is plain JSON, times are aware, what does not apply is None. `attempts`: tries made; `iterations`:
    rounds of a looped step."""

    status: str
    input: Any = None
    output: Any = None
    error: ErrorInfo | None = None
    tripwire: TripwireInfo | None = None
    suspend_payload: Any = None
    resume_payload: Any = None
    suspend_output: Any = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    suspended_at: datetime | None = None
    resumed_at: datetime | None = None
    attempts: int = 1
    iterations: int = 1


class _Typed:
    """What makes a result the workflow's declared type. No field: it is code of this process, and no data."""

    __slots__ = ("_parse_output",)


@dataclass(frozen=True, slots=True)
class RunResult(_Typed):
    """What a run came to so far. `input`, `result`, `state` and what is in the records of `steps` (by id, in order of their
    first execution) are plain JSON data, times are aware; what does not apply is None. `status`: pending, running, waiting,
    suspended, paused, success, failed, canceled or tripwire."""

    run_id: str
    workflow_id: str
    status: str
    input: Any = None
    result: Any = None
    error: ErrorInfo | None = None
    steps: dict[str, StepResult] = field(default_factory=dict[str, StepResult])
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    suspended: list[Suspension] = field(default_factory=list[Suspension])
    tripwire: TripwireInfo | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    def unwrap(self) -> Any:
        """The result, as the workflow's declared output type where the workflow is known; raises RunFailed,
        RunSuspended, RunCancelled or RunTripped when there is none."""
        if self.status == "success":
            parse_output: Callable[[Any], Any] | None = getattr(self, "_parse_output", None)
            return self.result if parse_output is None else parse_output(self.result)
        if self.status == "failed":
            raise RunFailed(f"run {self.run_id!r} failed: {self.error.type}: {self.error.message}" if self.error else self.run_id)
        if self.status == "tripwire":
            raise RunTripped(f"run {self.run_id!r} tripped: {self.tripwire.reason}" if self.tripwire else self.run_id)
        if self.status == "canceled":
            raise RunCancelled(f"run {self.run_id!r} was canceled")
        raise RunSuspended(f"run {self.run_id!r} has no result yet: it is {self.status}")


@dataclass(frozen=True, slots=True)
class RunRecord(RunResult):
    """A run as stored: a result that also tells whose it is, its request context, and the version of the workflow that it began
    with. Its `steps` hold nested ones too, as "ship.pack"."""

    resource_id: str | None = None
    request_context: dict[str, Any] = field(default_factory=dict[str, Any])
    created_at: datetime | None = None
    updated_at: datetime | None = None
    version: str = "1"


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A line of a list of runs. Times are aware."""

    run_id: str
    workflow_id: str
    status: str
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    resource_id: str | None = None


@dataclass(frozen=True, slots=True)
class RunPage:
    """A page of a list of runs; `total` counts all that match."""

    runs: list[RunSummary]
    total: int


def when(seconds: float | None) -> datetime | None:
    """Epoch seconds as an aware datetime."""
    return None if seconds is None else aware(seconds)


def step_result(data: dict[str, Any]) -> StepResult:
    """From the machine's record of a step."""
    get = data.get
    return StepResult(
        data["status"], get("input"), get("output"), ErrorInfo.of(get("error")), tripwire(get("tripwire")), get("suspend_payload"),
        get("resume_payload"), get("suspend_output"), when(get("started_at")), when(get("ended_at")), when(get("suspended_at")),
        when(get("resumed_at")), get("attempts", 1), get("iterations", 1),
    )  # fmt: skip


def tripwire(data: dict[str, Any] | None) -> TripwireInfo | None:
    """From its JSON form."""
    return None if data is None else made(TripwireInfo, data)


def _fields(view: dict[str, Any]) -> dict[str, Any]:
    return {
        "run_id": view["run_id"],
        "workflow_id": view["workflow_id"],
        "status": view["status"],
        "input": view["input"],
        "result": view["result"],
        "error": ErrorInfo.of(view["error"]),
        "steps": {k: step_result(v) for k, v in view["steps"].items()},
        "state": view["state"],
        "suspended": [Suspension(tuple(s["path"]), s["payload"], tuple(s["labels"]), s["index"]) for s in view["suspended"]],
        "tripwire": tripwire(view["tripwire"]),
        "started_at": when(view["started_at"]),
        "ended_at": when(view["ended_at"]),
    }


def typed(result: Result, parse_output: Callable[[Any], Any] | None) -> Result:
    """The result itself, which `unwrap` gives by `parse_output` from now on: the workflow's, where that is known."""
    object.__setattr__(result, "_parse_output", parse_output)
    return result


def run_result(view: dict[str, Any], parse_output: Callable[[Any], Any] | None = None) -> RunResult:
    """From the machine's view of a run."""
    return typed(RunResult(**_fields(view)), parse_output)


def run_record(view: dict[str, Any], parse_output: Callable[[Any], Any] | None = None) -> RunRecord:
    """From the machine's view of a run, with what only the record tells."""
    record = RunRecord(
        **_fields(view),
        resource_id=view["resource_id"],
        request_context=view["request_context"],
        created_at=when(view["created_at"]),
        updated_at=when(view["updated_at"]),
        version=view["version"],
    )
    return typed(record, parse_output)
