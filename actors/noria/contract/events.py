"""What an observer of a run sees."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class RunEvent:
    """A fact or a live event of a run, the same for every reader.

    `path` is the actor's place in the run's tree, `step` the step id, dotted when nested (None on workflow-level
    events), `sequence` its place in the stream.
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
