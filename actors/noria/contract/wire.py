"""How events and news look on the wire, as models: the source of the JSON Schemas. The encoders are in `facts.py`.

Every event is a CloudEvent. `data.noria` is the engine's own and strict: a field that is not declared here fails the
schema tests, so that no reader in another language meets one unprepared.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from noria.contract.rewinds import Held, Rewind

Status: TypeAlias = Literal["pending", "running", "waiting", "suspended", "paused", "success", "failed", "canceled", "tripwire"]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Closed(BaseModel):
    """No other fields."""

    model_config = ConfigDict(extra="forbid")


class ErrorData(Closed):
    """An exception as data. `bases`: the names of its further classes, where it has any."""

    type: str
    message: str
    attributes: dict[str, Any] = {}
    cause: ErrorData | None = None
    bases: list[str] | None = None
    non_retryable: Literal[True] | None = None


class TripwireData(Closed):
    """Why a run tripped."""

    reason: Any
    retry: bool
    metadata: Any = None
    step: str | None = None


class Head(Closed):
    """What the first event of a message says of the whole message: format, last command seen, lease, host's nonce, place among siblings."""

    v: int | None = None
    in_seen: int | None = None
    door: int | None = None
    host: str | None = None
    member: int | None = None


class StartedMeta(Head):
    k: Literal["started"]
    t: float


class WritesMeta(Head):
    """What a call of the user's did to the run beside its output."""

    state: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    context_removed: list[str] | None = None
    usage: dict[str, int] | None = None


class CallMeta(WritesMeta):
    """Shared by what a step call can end in. `n`: tries made. Absent: round 1, the previous output as input, no resume."""

    t0: float
    n: int | None = None
    round: int | None = None
    input: Any = None
    resume: Any = None
    leaf: Literal[True] | None = None
    untold: Literal[True] | None = None  # no live event said that it began


class StepEndedMeta(CallMeta):
    k: Literal["step-ended"]
    t1: float
    bail: Literal[True] | None = None
    forced: Literal[True] | None = None
    quiet: Literal[True] | None = None


class StepSuspendedMeta(CallMeta):
    k: Literal["step-suspended"]
    t1: float
    output: Any = None


class StepWaitingMeta(CallMeta):
    k: Literal["step-waiting"]
    until: float


class FinishedMeta(Head):
    k: Literal["finished"]
    t1: float


class BlockEndedMeta(Head):
    k: Literal["block-ended"]
    entry: str
    kind: Literal["parallel", "branch", "foreach", "loop", "nested"]
    st: str
    t1: float
    segments: list[str] | None = None
    total: int | None = None
    segment: str | None = None
    error: ErrorData | None = None
    tripwire: TripwireData | None = None


class AnsweredMeta(WritesMeta):
    k: Literal["answered"]
    entry: str
    value: Any
    life: int | None = None
    t: float | None = None


class RestedMeta(Head):
    k: Literal["rested"]
    st: Status
    t: float


class TakenOverMeta(Head):
    k: Literal["taken-over"]
    t: float


class HandedOverMeta(Head):
    k: Literal["handed-over"]
    t: float


class RetriedMeta(Head):
    k: Literal["retried"]
    stem: str
    life: int
    n: int
    until: float
    t: float


class RewoundMeta(Head):
    k: Literal["rewound"]
    by: int
    t: float
    rewinds: list[Rewind]
    held: dict[str, Held]
    resume: Any


class StartData(Closed):
    input: Any
    resource_id: str | None
    noria: StartedMeta


class StepResultData(Closed):
    status: Literal["success", "failed", "tripwire"]
    ended_at: Time
    output: Any = None
    error: ErrorData | None = None
    tripwire: TripwireData | None = None
    noria: StepEndedMeta


class StepSuspendedData(Closed):
    suspend_payload: Any
    labels: list[str]
    noria: StepSuspendedMeta


class StepWaitingData(Closed):
    """`input` in a live event, for a sleep in place; `noria` in a fact, for a sleep behind a timer."""

    status: Literal["waiting"]
    until: Time
    input: Any = None
    noria: StepWaitingMeta | None = None


class FinishData(Closed):
    status: Status
    result: Any = None
    error: ErrorData | None = None
    tripwire: TripwireData | None = None
    noria: FinishedMeta


class StepStartData(Closed):
    status: Literal["running"]
    attempt: int
    input: Any = None
    resume_payload: Any = None


class StepOutputData(Closed):
    output: Any


class StepProgressData(Closed):
    completed: int
    total: int
    index: int | None
    status: str
    output: Any = None


class BlockEndedData(Closed):
    noria: BlockEndedMeta


class AnsweredData(Closed):
    noria: AnsweredMeta


class RestedData(Closed):
    noria: RestedMeta


class TakenOverData(Closed):
    noria: TakenOverMeta


class HandedOverData(Closed):
    noria: HandedOverMeta


class RetriedData(Closed):
    noria: RetriedMeta


class RewoundData(Closed):
    noria: RewoundMeta


FACTS: dict[str, type[BaseModel]] = {
    "workflow-start": StartData, "workflow-step-result": StepResultData, "workflow-step-suspended": StepSuspendedData,
    "workflow-step-waiting": StepWaitingData, "workflow-finish": FinishData, "workflow-paused": RestedData, "workflow-rested": RestedData,
    "workflow-retried": RetriedData, "workflow-rewound": RewoundData, "block-ended": BlockEndedData, "condition-answered": AnsweredData,
    "taken-over": TakenOverData, "handed-over": HandedOverData,
}  # fmt: skip
LIVE: dict[str, type[BaseModel]] = {
    "workflow-step-start": StepStartData, "workflow-step-output": StepOutputData, "workflow-step-progress": StepProgressData,
    "workflow-step-waiting": StepWaitingData,
}  # fmt: skip


class CloudEvent(BaseModel):
    """A CloudEvent that starts a run: `data` is its input, `runid` its run id, `resourceid` its resource."""

    specversion: Literal["1.0"]
    id: str = Field(min_length=1)
    source: str = Field(min_length=1)
    type: str = Field(min_length=1)
    data: Any = None
    runid: str | None = Field(None, pattern="^[A-Za-z0-9_-]{1,128}$")
    resourceid: str | None = None
    traceparent: str | None = None


class View(BaseModel):
    """What a run came to so far. Times in epoch seconds."""

    run_id: str
    workflow_id: str
    status: Status
    input: Any
    result: Any
    error: ErrorData | None
    tripwire: TripwireData | None
    steps: dict[str, dict[str, Any]]
    state: dict[str, Any]
    suspended: list[dict[str, Any]]
    started_at: float | None
    ended_at: float | None


class Rest(BaseModel):
    """News that a run rests, having seen the command at `in`; `view` is None when it is too large to be told."""

    model_config = ConfigDict(populate_by_name=True)

    in_seen: int = Field(alias="in")
    view: View | None


class Summary(BaseModel):
    """The line of a record, in the header Noria-Summary."""

    status: Status
    created_at: float | None
    started_at: float | None
    ended_at: float | None
    resource_id: str | None


class Slip(Closed):
    """Stands for a body above the inline limit, which is in the blobs under this name."""

    noria_blob: str


class Catalogued(BaseModel):
    """What is known of a registered workflow. `input`, `output`, `state`, `context` and those of `inputs` and `resume`, by the
    dotted paths of steps, are JSON Schemas; `inputs` is left out where it would be too large. `checks_input`: whether what
    does not fit `input`, `state` or `context` is refused."""

    id: str
    version: str
    description: str | None
    graph: Any
    steps: list[str]
    input: Any
    checks_input: bool = True
    output: Any
    state: Any = {}
    context: Any = {}
    resume: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    retention_seconds: float | None
