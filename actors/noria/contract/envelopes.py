"""How facts and live events look on the wire.

A message on an actor's fact subject is a CloudEvent (several facts: a batch of them). What only the engine needs is
under `data.noria`: `k` (kind of fact) and its fields; the first event also holds the message's own: `v` (format),
`in_seen`, `door`, `host`, `member`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from noria.contract.facts import (
    Answered,
    BlockEnded,
    Fact,
    FactMessage,
    Finished,
    HandedOver,
    Rested,
    Started,
    StepEnded,
    StepSuspended,
    StepWaiting,
    TakenOver,
    Writes,
)  # fmt: skip
from noria.contract.rewinds import Retried, Rewound, decode_life, encode_life
from noria.contract.typed import check_types
from noria.contract.values import as_list, dumps, loads, too_new
from noria.errors import NewerFormat, NoriaError
from noria.limits import MAX_CHILDREN

FORMAT = 1
EVENT_PREFIX = "io.noria."
EVENT_SUFFIX = ".v1"

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

    def event(self, id: str, type: str, path: str, step: str | None, time: str, data: Any) -> dict[str, Any]:
        """One CloudEvent as a JSON-able dict. `path` is dotted, `time` RFC 3339."""
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": id,
            "source": self.source,
            "type": f"io.noria.{type}.v1",
            "subject": f"{self.run}/{path.replace('.', '/')}" if path else self.run,
            "time": time,
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
        return dumps(self.event(id, type, path, step, iso(at), data))

    def _fact(self, id: str, path: str, fact: Fact) -> dict[str, Any]:
        match fact:
            case StepEnded():
                ended = iso(fact.ended_at)
                data: dict[str, Any] = {"status": fact.status, "ended_at": ended}
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
                return self.event(id, "workflow-step-result", path, fact.step, ended, data)
            case StepSuspended():
                data = {"suspend_payload": fact.payload, "labels": fact.labels}
                meta = {"k": "step-suspended", "t0": fact.started_at, "t1": fact.suspended_at, "n": fact.attempts}
                _common(meta, fact)
                if fact.writes is not None:
                    _writes(meta, fact.writes)
                if fact.output is not None:
                    meta["output"] = fact.output
                data["noria"] = meta
                return self.event(id, "workflow-step-suspended", path, fact.step, iso(fact.suspended_at), data)
            case StepWaiting():
                data = {"status": "waiting", "until": iso(fact.until)}
                meta = {"k": "step-waiting", "t0": fact.started_at, "until": fact.until, "n": fact.attempts}
                _common(meta, fact)
                if fact.writes is not None:
                    _writes(meta, fact.writes)
                data["noria"] = meta
                return self.event(id, "workflow-step-waiting", path, fact.step, iso(fact.started_at), data)
            case Finished():
                data = {"status": fact.status}
                if fact.has_output:
                    data["result"] = fact.output
                for key, value in (("error", fact.error), ("tripwire", fact.tripwire)):
                    if value is not None:
                        data[key] = value
                data["noria"] = {"k": "finished", "t1": fact.ended_at}
                return self.event(id, "workflow-finish", path, None, iso(fact.ended_at), data)
            case Started():
                data = {"input": fact.input, "resource_id": fact.resource_id, "noria": {"k": "started", "t": fact.at}}
                return self.event(id, "workflow-start", path, None, iso(fact.at), data)
            case BlockEnded():
                block: dict[str, Any] = {"k": "block-ended", "entry": fact.entry, "kind": fact.kind, "st": fact.status, "t1": fact.ended_at}
                for key, value in (
                    ("segments", fact.segments), ("total", fact.total), ("segment", fact.segment),
                    ("error", fact.error), ("tripwire", fact.tripwire),
                ):
                    if value:
                        block[key] = value
                step = fact.entry if fact.kind in ("foreach", "nested", "loop") else None
                return self.event(id, "block-ended", path, step, iso(fact.ended_at), {"noria": block})
            case Answered():
                meta = {"k": "answered", "entry": fact.entry, "value": fact.value, "t": fact.at}
                if fact.life:
                    meta["life"] = fact.life
                if fact.writes is not None:
                    _writes(meta, fact.writes)
                return self.event(id, "condition-answered", path, None, iso(fact.at), {"noria": meta})
            case Retried() | Rewound():
                meta = encode_life(fact)
                return self.event(id, f"workflow-{meta['k']}", path, None, iso(fact.at), {"noria": meta})
            case Rested():
                kind = "workflow-paused" if fact.status == "paused" else "workflow-rested"
                return self.event(id, kind, path, None, iso(fact.at), {"noria": {"k": "rested", "st": fact.status, "t": fact.at}})
            case TakenOver():
                return self.event(id, "taken-over", path, None, iso(fact.at), {"noria": {"k": "taken-over", "t": fact.at}})
            case HandedOver():
                return self.event(id, "handed-over", path, None, iso(fact.at), {"noria": {"k": "handed-over", "t": fact.at}})


def _common(meta: dict[str, Any], fact: StepEnded | StepSuspended | StepWaiting) -> None:
    if fact.has_input:
        meta["input"] = fact.input
    if fact.has_resume:
        meta["resume"] = fact.resume_payload
    if fact.round != 1:
        meta["round"] = fact.round
    if fact.leaf:
        meta["leaf"] = True
    if fact.untold:
        meta["untold"] = True


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
            raise NewerFormat(too_new("the log", head["v"], FORMAT))
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
                meta.get("untold", False),
            )  # fmt: skip
        case "step-suspended":
            return StepSuspended(
                event["step"], meta["t0"], meta["t1"], data["suspend_payload"], data["labels"], meta.get("output"),
                meta.get("round", 1), "input" in meta, meta.get("input"), "resume" in meta, meta.get("resume"),
                _decode_writes(meta), meta.get("leaf", False), meta["n"], meta.get("untold", False),
            )  # fmt: skip
        case "step-waiting":
            return StepWaiting(
                event["step"], meta["t0"], meta["until"], meta["n"], meta.get("round", 1), "input" in meta,
                meta.get("input"), "resume" in meta, meta.get("resume"), meta.get("leaf", False), meta.get("untold", False),
                _decode_writes(meta),
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
            return Answered(meta["entry"], meta["value"], meta.get("life", 0), meta.get("t", 0.0), _decode_writes(meta))
        case "retried" | "rewound":
            return decode_life(meta)
        case "rested":
            return Rested(meta["st"], meta["t"])
        case "taken-over":
            return TakenOver(meta["t"])
        case "handed-over":
            return HandedOver(meta["t"])
        case other:
            raise ValueError(f"unknown kind of fact {other!r}")


def _decode_writes(meta: dict[str, Any]) -> Writes | None:
    if "state" in meta or "context" in meta or "context_removed" in meta or "usage" in meta:
        return Writes(meta.get("state"), meta.get("context"), meta.get("context_removed"), meta.get("usage"))
    return None
