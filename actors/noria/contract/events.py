"""What an observer of a run sees."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from noria.contract.envelopes import EVENT_PREFIX, EVENT_SUFFIX
from noria.contract.values import loads
from noria.errors import NoriaError

# What the fact of a foreach item that is a step tells of the foreach's progress, so that no live event has to.
TOLD_BY_FACT = frozenset({"success", "failed", "tripwire", "suspended"})


@dataclass(frozen=True, slots=True)
class RunEvent:
    """A fact or a live event of a run, the same for every reader.

    `type`: workflow-start, -step-start, -step-output, -step-progress, -step-waiting, -step-suspended, -step-result, -paused,
    -canceled or -finish, or what `ctx.emit` made up; `data` is plain JSON.
    `path` is the actor's place in the run's tree, `step` the step id, dotted when nested (None on workflow-level
    events), `time` when it happened on its host, `sequence` its place in the stream.
    """

    type: str
    run_id: str
    workflow_id: str
    path: tuple[str, ...]
    step: str | None
    time: datetime | None
    data: Any
    id: str
    sequence: int


class LiveEvent(NamedTuple):
    """A live event as it is stored; `at`: when it happened on its host, epoch seconds."""

    id: str
    type: str
    step: str | None
    data: Any
    at: float


def decode_live(body: bytes) -> LiveEvent:
    """Raises NoriaError for what is no live event."""
    try:
        event = loads(body)
        type, at = event["type"][len(EVENT_PREFIX) : -len(EVENT_SUFFIX)], datetime.fromisoformat(event["time"]).timestamp()
        return LiveEvent(event["id"], type, event.get("step"), event["data"], at)
    except (KeyError, TypeError, ValueError) as error:
        raise NoriaError(f"not a live event: {error!r}") from error
