"""The log of an actor: its facts, past tense, and how they look on the wire.

A message on an actor's fact subject is a CloudEvent (several facts: a batch of them). What only the engine needs is
under `data.noria`: `k` (kind of fact) and its fields; the first event also holds the message's own: `v` (format),
`in_seen`, `door`, `host`, `member`. A closed union, matched once in `machine/fold.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from noria.contract.rewinds import Retried, Rewound, decode_life, encode_life
from noria.contract.typed import check_types
from noria.contract.values import as_list, dumps, loads
from noria.errors import NewerFormat, NoriaError
from noria.limits import MAX_CHILDREN

FORMAT = 1
EVENT_PREFIX = "io.noria."
EVENT_SUFFIX = ".v1"

JSON: TypeAlias = Any


@dataclass(slots=True)
class Writes:
    """What a step did to the run beside its output: top-level keys of state and request context, tokens that it used."""

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

    `status` is success, failed or tripwire. `input` only when it differs from the previous output.
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
    counts: bool = True  # for step-wise runs: mappings and sleeps do not
    forced: bool = False  # an assumed record of a time travel


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


@dataclass(slots=True)
class Answered:
    """What the conditions of a branch (ids of the arms taken) or of a loop round (bool) said, or the concurrency of a foreach."""

    entry: str
    value: JSON
    life: int = 0  # the loop's nested workflow begins this life for its next round


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
class Finished:
    """The actor ended. A success's result is the previous output unless `has_output`."""

    status: str
    ended_at: float
    has_output: bool = False
    output: JSON = None
    error: dict[str, JSON] | None = None
    tripwire: dict[str, JSON] | None = None


Fact: TypeAlias = (
    Started | StepEnded | StepSuspended | StepWaiting | Answered | Retried | Rewound | BlockEnded | Rested | TakenOver | Finished
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


_second: tuple[int, str] = (-1, "")  # the last whole second and its text: a hot run formats many times within one


def iso(seconds: float) -> str:
    """Epoch seconds as RFC 3339 in UTC."""
    global _second
    whole = int(seconds)
    if _second[0] != whole:
        _second = (whole, datetime.fromtimestamp(whole, UTC).isoformat()[:19])
    return f"{_second[1]}.{int((seconds - whole) * 1e6):06d}+00:00"


class Envelope:
    """The constant part of all events of one run on one namespace."""

    __slots__ = ("run", "source", "traceparent")

    def __init__(self, namespace: str, workflow: str, run: str, traceparent: str | None = None) -> None:
        self.source, self.run, self.traceparent = f"/{namespace}/{workflow}", run, traceparent

    def event(self, id: str, type: str, path: str, step: str | None, at: float, data: Any) -> dict[str, Any]:
        """One CloudEvent as a JSON-able dict. `path` is dotted."""
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": id,
            "source": self.source,
            "type": f"io.noria.{type}.v1",
            "subject": f"{self.run}/{path.replace('.', '/')}" if path else self.run,
            "time": iso(at),
            "datacontenttype": "application/json",
            "data": data,
        }
        if step is not None:
            event["step"] = step
        if self.traceparent:
            event["traceparent"] = self.traceparent
        return event

    def encode(self, path: str, message: FactMessage) -> bytes:
        """A message of facts for the actor at `path`."""
        events = [
            self._fact(f"{message.id}.{n}" if n else message.id, path, fact) for n, fact in enumerate(message.facts)
        ]
        head = events[0]["data"]["noria"]
        head["v"], head["in_seen"], head["door"], head["host"] = FORMAT, message.in_seen, message.door, message.host
        if path:
            head["member"] = message.member
        return dumps(events if len(events) > 1 else events[0])

    def encode_live(self, id: str, type: str, path: str, step: str | None, at: float, data: Any) -> bytes:
        """A live event; `data` as the observer gets it."""
        return dumps(self.event(id, type, path, step, at, data))

    def _fact(self, id: str, path: str, fact: Fact) -> dict[str, Any]:
        match fact:
            case StepEnded():
                data: dict[str, Any] = {"status": fact.status, "ended_at": iso(fact.ended_at)}
                if fact.status == "success":
                    data["output"] = fact.output
                elif fact.error is not None:
                    data["error"] = fact.error
                if fact.tripwire is not None:
                    data["tripwire"] = fact.tripwire
                meta: dict[str, Any] = {"k": "step-ended", "t0": fact.started_at, "t1": fact.ended_at}
                _common(meta, fact)
                if fact.writes is not None:
                    _writes(meta, fact.writes)
                if fact.attempts != 1:
                    meta["n"] = fact.attempts
                for key, on in (("bail", fact.bail), ("forced", fact.forced), ("quiet", not fact.counts)):
                    if on:
                        meta[key] = True
                data["noria"] = meta
                return self.event(id, "workflow-step-result", path, fact.step, fact.ended_at, data)
            case StepSuspended():
                data = {"suspend_payload": fact.payload, "labels": fact.labels}
                meta = {"k": "step-suspended", "t0": fact.started_at, "t1": fact.suspended_at, "n": fact.attempts}
                _common(meta, fact)
                if fact.writes is not None:
                    _writes(meta, fact.writes)
                if fact.output is not None:
                    meta["output"] = fact.output
                data["noria"] = meta
                return self.event(id, "workflow-step-suspended", path, fact.step, fact.suspended_at, data)
            case StepWaiting():
                data = {"status": "waiting", "until": iso(fact.until)}
                meta = {"k": "step-waiting", "t0": fact.started_at, "until": fact.until, "n": fact.attempts}
                _common(meta, fact)
                data["noria"] = meta
                return self.event(id, "workflow-step-waiting", path, fact.step, fact.started_at, data)
            case Finished():
                data = {"status": fact.status}
                if fact.has_output:
                    data["result"] = fact.output
                for key, value in (("error", fact.error), ("tripwire", fact.tripwire)):
                    if value is not None:
                        data[key] = value
                data["noria"] = {"k": "finished", "t1": fact.ended_at}
                return self.event(id, "workflow-finish", path, None, fact.ended_at, data)
            case Started():
                data = {"input": fact.input, "resource_id": fact.resource_id, "noria": {"k": "started", "t": fact.at}}
                return self.event(id, "workflow-start", path, None, fact.at, data)
            case BlockEnded():
                block: dict[str, Any] = {"k": "block-ended", "entry": fact.entry, "kind": fact.kind, "st": fact.status, "t1": fact.ended_at}
                for key, value in (
                    ("segments", fact.segments), ("total", fact.total), ("segment", fact.segment),
                    ("error", fact.error), ("tripwire", fact.tripwire),
                ):
                    if value:
                        block[key] = value
                step = fact.entry if fact.kind in ("foreach", "nested", "loop") else None
                return self.event(id, "block-ended", path, step, fact.ended_at, {"noria": block})
            case Answered():
                meta = {"k": "answered", "entry": fact.entry, "value": fact.value}
                if fact.life:
                    meta["life"] = fact.life
                return self.event(id, "condition-answered", path, None, 0.0, {"noria": meta})
            case Retried() | Rewound():
                meta = encode_life(fact)
                return self.event(id, f"workflow-{meta['k']}", path, None, fact.at, {"noria": meta})
            case Rested():
                kind = "workflow-paused" if fact.status == "paused" else "workflow-rested"
                return self.event(id, kind, path, None, fact.at, {"noria": {"k": "rested", "st": fact.status, "t": fact.at}})
            case TakenOver():
                return self.event(id, "taken-over", path, None, fact.at, {"noria": {"k": "taken-over", "t": fact.at}})


def _common(meta: dict[str, Any], fact: StepEnded | StepSuspended | StepWaiting) -> None:
    if fact.has_input:
        meta["input"] = fact.input
    if fact.has_resume:
        meta["resume"] = fact.resume_payload
    if fact.round != 1:
        meta["round"] = fact.round
    if fact.leaf:
        meta["leaf"] = True


def _writes(meta: dict[str, Any], writes: Writes) -> None:
    if writes.state:
        meta["state"] = writes.state
    if writes.context:
        meta["context"] = writes.context
    if writes.context_removed:
        meta["context_removed"] = writes.context_removed
    if writes.usage:
        meta["usage"] = writes.usage


def decode(body: bytes) -> FactMessage:
    """The message back. Raises NewerFormat, or NoriaError for what is no message of facts."""
    try:
        found: Any = loads(body)
        events = as_list(found) or [found]
        head = events[0]["data"]["noria"]
        if head["v"] > FORMAT:
            raise NewerFormat(f"the log has format {head['v']}; this version of Noria reads up to {FORMAT}: upgrade it")
        message = FactMessage([], head["in_seen"], head["door"], head["host"], events[0]["id"], head.get("member", 0))
        check_types(message)
        message.facts = [_decode_fact(event) for event in events]
        for fact in message.facts:
            check_types(fact)
        return message
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise NoriaError(f"not a message of facts: {error!r}") from error


def _decode_fact(event: dict[str, Any]) -> Fact:
    data = event["data"]
    meta = data["noria"]
    match meta["k"]:
        case "step-ended":
            return StepEnded(
                event["step"], data["status"], meta["t0"], meta["t1"], data.get("output"), data.get("error"),
                data.get("tripwire"), meta.get("n", 1), meta.get("round", 1), "input" in meta, meta.get("input"),
                "resume" in meta, meta.get("resume"), _decode_writes(meta), meta.get("leaf", False),
                meta.get("bail", False), not meta.get("quiet", False), meta.get("forced", False),
            )  # fmt: skip
        case "step-suspended":
            return StepSuspended(
                event["step"], meta["t0"], meta["t1"], data["suspend_payload"], data["labels"], meta.get("output"),
                meta.get("round", 1), "input" in meta, meta.get("input"), "resume" in meta, meta.get("resume"),
                _decode_writes(meta), meta.get("leaf", False), meta["n"],
            )  # fmt: skip
        case "step-waiting":
            return StepWaiting(
                event["step"], meta["t0"], meta["until"], meta["n"], meta.get("round", 1), "input" in meta,
                meta.get("input"), "resume" in meta, meta.get("resume"), meta.get("leaf", False),
            )  # fmt: skip
        case "finished":
            return Finished(
                data["status"], meta["t1"], "result" in data, data.get("result"), data.get("error"), data.get("tripwire")
            )
        case "started":
            return Started(data["input"], data["resource_id"], meta["t"])
        case "block-ended":
            if meta.get("total", 0) > MAX_CHILDREN:
                raise ValueError(f"a foreach of {meta['total']} items")
            return BlockEnded(
                meta["entry"], meta["kind"], meta["st"], meta["t1"], meta.get("segments", []), meta.get("total", 0),
                meta.get("segment", ""), meta.get("error"), meta.get("tripwire"),
            )  # fmt: skip
        case "answered":
            return Answered(meta["entry"], meta["value"], meta.get("life", 0))
        case "retried" | "rewound":
            return decode_life(meta)
        case "rested":
            return Rested(meta["st"], meta["t"])
        case "taken-over":
            return TakenOver(meta["t"])
        case other:
            raise ValueError(f"unknown kind of fact {other!r}")


def _decode_writes(meta: dict[str, Any]) -> Writes | None:
    if "state" in meta or "context" in meta or "context_removed" in meta or "usage" in meta:
        return Writes(meta.get("state"), meta.get("context"), meta.get("context_removed"), meta.get("usage"))
    return None
