"""The wire of a step handler, in any language: one request, messages of progress, one reply. JSON throughout.

A handler serves `<ns>.step.<workflow>.<step>` in a queue group. It answers a `StepCall` with one `Reply`. While it works
it sends a `Heartbeat` to the call's `progress` subject at least every `heartbeat` seconds (one that is done sooner need
not), and there what the run's watchers shall see. A message on the call's `cancel` subject means that the reply is not
wanted any more. The call may come again, with the same `idempotency_key`, if caller or handler died.

What is larger than one message may be lies in the blobs of the run, with a slip in its place (`Parcel`), and where the
namespace has a codec all messages are sealed. Such calls go to `<ns>.step.<workflow>.<step>.parcel`: who serves that
subject, too, says that it understands them. Answers follow the call's `reply_as`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from noria.contract import builds
from noria.contract.builds import Release, known_of, of_newer_build
from noria.contract.values import BAD_DATA, ToldError, as_dict, loads, too_new
from noria.errors import InvalidInput, NewerFormat
from noria.limits import CALL_HEARTBEAT_SECONDS
from noria.ports import RunKey

FORMAT = 1
PARCEL = "parcel"  # the token behind a step's subject, for calls that are sealed or lie in the blobs
SHOWN_CALL = ("call", "root", "run_id", "workflow", "step", "path", "attempt", "idempotency_key", "traceparent")  # of a sealed one
SHOWN_TOLD = ("status", "type")  # the same of what a handler sends
ReplyAs: TypeAlias = Literal["plain", "parcel", "sealed"]
Address: TypeAlias = Annotated[str, Field(pattern=r"^[^\s*>]{1,1000}$")]  # a subject to publish to
DEFERRED = ConfigDict(defer_build=True)  # validators are built with the first call: most workers start without one


class StepCall(BaseModel):
    """What a step is called with. Only `input` is needed to try one by hand. What a handler does not know it ignores."""

    model_config = ConfigDict(defer_build=True, json_schema_extra={"additionalProperties": False})
    v: int = 1
    call: str = ""
    workflow: str = ""
    step: str = ""
    root: str = Field("", pattern="^[A-Za-z0-9_-]*$", description="the run's workflow; `workflow` is the innermost")
    run_id: str = Field("", pattern="^[A-Za-z0-9_-]{0,128}$")
    path: list[str] = []
    resource_id: str | None = None
    input: Any = None
    init_data: Any = None
    attempt: int = 0
    recovered: bool = False
    iteration: int = 0
    index: int | None = None
    state: dict[str, Any] = {}
    request_context: dict[str, Any] = {}
    checks: bool = Field(True, description="whether input and state are to be held to their declared types")
    results: dict[str, Any] | None = Field({}, description="outputs of the steps before; null: too large to be sent along")
    resume_data: Any = None
    suspend_data: Any = None
    idempotency_key: str = ""
    timeout: float | None = Field(None, description="seconds after which the caller gives up")
    heartbeat: float = Field(default=CALL_HEARTBEAT_SECONDS, ge=0.01)
    progress: Address | None = None
    cancel: Address | None = None
    traceparent: str | None = None
    reply_as: ReplyAs = Field(
        "plain", description="how messages may come back: as they are; as a parcel when one is too large; the same, and sealed",
    )  # fmt: skip


class Parcel(BaseModel):
    """In place of a call: it lies in the blobs of a run (chunks `<ns>.blob.<root>.<run_id>.<noria_blob>.<n>`)."""

    model_config = ConfigDict(defer_build=True, extra="forbid")
    noria_blob: str = Field(pattern="^call-[0-9a-f]{32}-[0-9]{1,4}$")
    root: str = Field(pattern="^[A-Za-z0-9_-]+$")
    run_id: str = Field(pattern="^[A-Za-z0-9_-]{1,128}$")


class Told(BaseModel):
    """A message of a handler. Names that it does not know are refused: a typing error is no silent default. Those of a handler
    of a newer build, which says so, are left out."""

    model_config = ConfigDict(defer_build=True, extra="forbid")
    v: Release = 1


class Heartbeat(Told):
    """A sign of life."""

    type: Literal["heartbeat"] = "heartbeat"


class Output(Told):
    """What `ctx.write` emits."""

    type: Literal["output"] = "output"
    data: Any = None


class Emitted(Told):
    """What `ctx.emit` emits, under a type of one's own."""

    type: Literal["event"] = "event"
    name: str
    data: Any = None


class _Reply(Told):
    """Changes to the run's state and request context: top-level keys. Of a failed call they are dropped."""

    state: dict[str, Any] = {}
    request_context: dict[str, Any] = {}
    request_context_removed: list[str] = []


class Success(_Reply):
    """The step's output."""

    status: Literal["success"] = "success"
    output: Any = None


class Suspended(_Reply):
    """The step waits for a resume; it is then called again with `resume_data`."""

    status: Literal["suspended"] = "suspended"
    payload: Any = None
    labels: list[str] = []
    output: Any = None


class Bailed(_Reply):
    """The innermost workflow ends successfully with `result`."""

    status: Literal["bailed"] = "bailed"
    result: Any = None


class Failure(BaseModel):
    """An exception: bare class name, text, attributes, what caused it, the names of its further classes."""

    model_config = DEFERRED
    type: str = "Error"
    message: str = ""
    attributes: dict[str, Any] = {}
    cause: Failure | None = None
    bases: list[str] = []


class Failed(Told):
    """The try failed; not `retryable`: no further one may help."""

    status: Literal["failed"] = "failed"
    error: Failure = Failure()
    retryable: bool = True


class Tripped(Told):
    """The run ends by a tripwire."""

    status: Literal["tripwire"] = "tripwire"
    reason: str
    retry: bool = False
    metadata: Any = None


class Aborted(Told):
    """The whole run is canceled."""

    status: Literal["aborted"] = "aborted"


class HandedBack(Told):
    """The handler stops: call another one."""

    status: Literal["handed-back"] = "handed-back"


Progress: TypeAlias = Annotated[Heartbeat | Output | Emitted, Field(discriminator="type")]
Reply: TypeAlias = Annotated[Success | Suspended | Bailed | Failed | Tripped | Aborted | HandedBack, Field(discriminator="status")]
KINDS: dict[str, type[BaseModel]] = {
    "call": StepCall, "parcel": Parcel, "heartbeat": Heartbeat, "output": Output, "event": Emitted, "success": Success, "suspended": Suspended,
    "bailed": Bailed, "failed": Failed, "tripwire": Tripped, "aborted": Aborted, "handed-back": HandedBack,
}  # fmt: skip
_MESSAGES: TypeAdapter[Any] = TypeAdapter(Reply, config=DEFERRED)
_PROGRESS: TypeAdapter[Any] = TypeAdapter(Progress, config=DEFERRED)


def decode_call(body: bytes) -> StepCall:
    """Raises InvalidInput that names the field, NewerFormat for a sealed call or one of a newer release."""
    try:
        call = StepCall.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise InvalidInput(f"not a step call: {_words(error)}") from error
    if call.v > FORMAT:
        raise NewerFormat(too_new("a step call", call.v, FORMAT))
    return call


def decode_parcel(body: bytes) -> Parcel:
    """Raises InvalidInput that names the field."""
    try:
        return Parcel.model_validate_json(body)
    except ValidationError as error:
        raise InvalidInput(f"not the parcel of a step call: {_words(error)}") from error


def secret(root: str, run_id: str, call: str) -> RunKey:
    """What the messages of one call are sealed for: none of them can be moved to another one."""
    return RunKey(root, f"{run_id}.{call}")


def secret_of(body: bytes) -> RunKey | None:
    """The same of a call that may be sealed; None when it is not."""
    if b'"sealed"' not in body:
        return None
    try:
        data = as_dict(loads(body)) or {}
        return secret(data["root"], data["run_id"], data["call"]) if "sealed" in data else None
    except BAD_DATA:
        return None


def decode(body: bytes) -> Heartbeat | Output | Emitted | Success | Suspended | Bailed | Failed | Tripped | Aborted | HandedBack:
    """What a handler sent. Raises InvalidInput that names the field."""
    try:
        return (_PROGRESS if b'"status"' not in body else _MESSAGES).validate_json(body)
    except ValidationError as error:
        newer = of_newer_build(body)
        if newer is not None:
            return _known(newer, error)
        if b'"status"' in body:
            try:  # data of the user's may hold the word
                return _PROGRESS.validate_json(body)
            except ValidationError:
                pass
        raise InvalidInput(f"not a reply of a step handler: {_words(error)}") from error


def _known(data: dict[str, Any], error: ValidationError) -> Any:
    """What is known of a message that a handler of a newer build sent. Raises InvalidInput."""
    kind = KINDS.get(str(data.get("status") or data.get("type")))
    try:
        if kind is not None and issubclass(kind, Told):
            return known_of(kind, data)
    except ValidationError as closer:
        error = closer
    raise InvalidInput(f"not a reply of a step handler: {_words(error)}") from error


def encode(message: BaseModel) -> bytes:
    """As JSON."""
    if not isinstance(message, Told):
        return message.model_dump_json().encode()
    if builds.RELEASE == 1:  # whose readers do not all know the field
        return message.model_dump_json(exclude={"v"}).encode()
    return message.model_copy(update={"v": builds.RELEASE}).model_dump_json().encode()


def _words(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())


class HandlerFailed(ToldError):
    """What a handler elsewhere reported."""

    def __init__(self, failure: Failure, retryable: bool = True) -> None:
        info = failure.model_dump()
        super().__init__(info if retryable else {**info, "non_retryable": True})
        self.retryable = retryable
