"""The control API's documents: one request per verb, JSON in and out, and errors that come back as what they were."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from noria import errors
from noria.contract import builds
from noria.contract.builds import Release, known_of, of_newer_build
from noria.contract.problems import validation_error
from noria.contract.results import RunPage, RunRecord, RunResult
from noria.contract.values import as_dict, as_listing, dumps, loads, plain
from noria.errors import BrokerUnavailable, InvalidInput, LimitExceeded, NoriaError

T = TypeVar("T")
ANSWER = ConfigDict(json_schema_extra={"additionalProperties": False})  # complete as it is sent; a reader leaves out what it does not know


class Document(BaseModel):
    """What crosses the wire of the control API. Its validators are built when the first one comes: a worker starts without them."""

    model_config = ConfigDict(defer_build=True)


class Control(Document):
    """A request. Names that it does not know are refused, so that a typing error is no silent default; those of a client of a
    newer build, which says so, are left out."""

    model_config = ConfigDict(extra="forbid")
    v: Release = 1


class Once(Control):
    """`request_id`: whoever asks again with the same one, since the answer got lost, gets what the first one did."""

    request_id: str | None = Field(None, pattern="^[A-Za-z0-9_-]{1,128}$")


class Wait(Once):
    """`wait`: seconds to wait for the run to be suspended, paused or ended; without it the answer comes as soon as the
    command is durable."""

    wait: float | None = Field(None, ge=0)


class OfRun(Control):
    """Which run; the workflow may be left out where its id is unique."""

    run_id: str
    workflow: str | None = None


class Start(Wait):
    """Start a run; without `run_id` the `request_id` is its id, else one is made up. Answer: `Begun`, or the run's result
    with `wait`."""

    workflow: str
    input: Any = None
    run_id: str | None = None
    resource_id: str | None = None
    state: dict[str, Any] | None = None
    request_context: dict[str, Any] | None = None
    per_step: bool = False


class Get(OfRun):
    """A run's record, with the steps of nested workflows. Answer: the record, or error RunNotFound."""

    nested: bool = True


class List(Control):
    """A page of runs, newest first. Answer: `runs` and `total`."""

    workflow: str | None = None
    status: str | None = None
    resource_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = Field(100, ge=0)
    offset: int = Field(0, ge=0)


class Resume(Wait, OfRun):
    """Hand data to what is suspended. Answer: `Begun`, or the run's result with `wait`."""

    data: Any = None
    step: str | list[str] | None = None
    label: str | None = None
    index: int | None = None
    request_context: dict[str, Any] | None = None
    per_step: bool = False


class Cancel(OfRun):
    """End a run as canceled. Answer: its id and status once it is, or error NoWorker or TimeoutError."""

    timeout: float = Field(30.0, ge=0)


class Restart(Once, OfRun):
    """Make sure that an active run has a host, and wait for it. Answer: its result, or error NoWorker or TimeoutError."""

    timeout: float = Field(30.0, ge=0)


class Travel(OfRun):
    """From which step on to run again, and what to assume."""

    step: str | list[str]
    input: Any = None
    resume: Any = None
    state: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    request_context: dict[str, Any] | None = None
    per_step: bool = False


class TimeTravel(Wait, Travel):
    """Run again from a step on. Answer: `Begun`, or the run's result with `wait`."""


class Fork(Wait, Travel):
    """A new run that begins at a step of this one. Answer: `Begun`, or the new run's result with `wait`."""

    fork_id: str | None = None


class Delete(OfRun):
    """Remove a run that ended, or with `force` any. Answer: its id."""

    force: bool = False


class Workflows(Control):
    """Every workflow ever registered, or the one with this id. Answer: a list, or its description or null."""

    id: str | None = None


class Dead(Once):
    """Dead letters, or with `replay` another chance for one. Answer: a list, or the id of the run that began if any."""

    kind: str | None = None
    workflow: str | None = None
    after: int = Field(0, ge=0)
    limit: int = Field(100, ge=1)
    replay: int | None = None


class Schedules(Once):
    """Schedules: list them, pause or resume one, or run it now. Answer: a list, or the id of the run that began if any."""

    action: Literal["list", "pause", "resume", "run"] = "list"
    id: str | None = None
    workflow: str | None = None


class Outcome(Control):
    """Wait until the run rests having seen the command with this sequence. Answer: `settled` and the `result`, or whether
    a worker hosts the workflow."""

    run_id: str
    workflow: str
    after: int = 0
    seconds: float = Field(20.0, ge=0, le=60)
    ended: bool = False


class Events(Control):
    """The events of a run after a sequence, as soon as there is one, at the latest after `seconds`; with `command` those of
    the stretch that the command with this sequence began. Answer: `events`, and whether the stream is `over`, then with the
    `result` of that stretch if there is room for it; else ask again after the last one's sequence."""

    run_id: str
    workflow: str
    after: int = 0
    command: int = Field(0, ge=0)
    seconds: float = Field(20.0, ge=0, le=60)
    close_on_suspend: bool = False


class Begun(Document):
    """A command is durable: whose, and its sequence."""

    model_config = ANSWER
    run_id: str
    workflow_id: str
    sequence: int


class Settled(Document):
    """Answer of `outcome`: the run's result, or, not settled, whether a worker hosts its workflow."""

    model_config = ANSWER
    settled: bool
    result: dict[str, Any] | None = None
    hosted: bool | None = None


class EventPage(Document):
    """Answer of `events`."""

    model_config = ANSWER
    events: list[dict[str, Any]]
    over: bool
    result: dict[str, Any] | None = None


class Problem(Document):
    """An error: the name of its class, its words, the single problems of an invalid input."""

    type: str
    message: str
    errors: list[dict[str, Any]] = []


class Refusal(Document):
    """The body of a refusal; the headers Nats-Service-Error and Nats-Service-Error-Code tell of it, too."""

    model_config = ANSWER
    error: Problem


ANSWERS: dict[str, Any] = {
    "begun": Begun, "settled": Settled, "event-page": EventPage, "refusal": Refusal, "result": RunResult, "record": RunRecord, "page": RunPage,
}
VERBS: dict[str, type[Control]] = {
    "start": Start, "get": Get, "list": List, "resume": Resume, "cancel": Cancel, "restart": Restart, "time-travel": TimeTravel,
    "fork": Fork, "delete": Delete, "workflows": Workflows, "dead": Dead, "schedules": Schedules, "outcome": Outcome, "events": Events,
}  # fmt: skip


def read(kind: type[T], data: Any) -> T:
    """A result, record, page or event back from its JSON form."""
    return TypeAdapter(kind).validate_python(data)


def request(kind: type[Control], body: bytes) -> Control:
    """The request of a verb; an empty body asks for the defaults. Raises InvalidInput that names the field."""
    try:
        newer = of_newer_build(body)
        return kind.model_validate_json(body or b"{}") if newer is None else known_of(kind, newer)
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())
        raise InvalidInput(f"{kind.__name__}: {fields}") from error


def asked(**fields: Any) -> bytes:
    """The body of a request; what is None is left out."""
    release = {} if builds.RELEASE == 1 else {"v": builds.RELEASE}  # the first ones do not know the field
    return dumps({**release, **{k: plain(v) for k, v in fields.items() if v is not None}})


def to_json(value: Any) -> Any:
    """Results, records and events as JSON data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if (items := as_dict(value)) is not None:
        return {str(k): to_json(v) for k, v in items.items()}
    if (members := as_listing(value)) is not None:
        return [to_json(v) for v in members]
    return value.isoformat() if isinstance(value, datetime) else value


# Errors -------------------------------------------------------------------------------------------------------------

CODES: dict[type[Exception], str] = {
    errors.BrokerUnavailable: "503", errors.NoWorker: "503", TimeoutError: "504", errors.InvalidInput: "400",
    errors.RunNotFound: "404", errors.WorkflowNotFound: "404", errors.StepNotFound: "404", errors.DefinitionError: "422",
    errors.NoriaError: "409",
}  # fmt: skip


def code_of(error: Exception) -> str:
    """As HTTP would say it."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), "500")


def error_body(error: Exception) -> bytes:
    """An error as JSON: the name of its class, its words, the problems of an invalid input."""
    problems = error.errors() if isinstance(error, InvalidInput) else []
    details = [{k: v for k, v in p.items() if k in ("type", "loc", "msg", "input")} for p in problems]
    problem = Problem(type=type(error).__name__, message=str(error), errors=plain(details))
    return dumps(Refusal(error=problem).model_dump())


def error_of(body: bytes, text: str, code: str | None) -> Exception:
    """The error that somebody else met, as the class that it was there."""
    try:
        said = (as_dict(loads(body)) or {}).get("error") if body else None
    except ValueError:
        said = None
    if said is None:
        if code == "413":
            return LimitExceeded(f"the control API answered {code}: {text}. Raise it, or connect with via='streams'")
        return BrokerUnavailable(text) if code == "503" else NoriaError(f"the control API answered {code}: {text}")
    if said["type"] == "TimeoutError":
        return TimeoutError(said["message"])
    kind: Any = getattr(errors, said["type"], None)
    if not (isinstance(kind, type) and issubclass(kind, NoriaError)):
        return NoriaError(f"{said['type']}: {said['message']}")
    error = kind(said["message"])
    if said.get("errors"):
        error.__cause__ = validation_error(said["errors"])
    return error
