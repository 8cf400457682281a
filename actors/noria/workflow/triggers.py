"""What starts a workflow beside a caller: events and schedules. Frozen values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from noria.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class EventTrigger:
    """CloudEvents on a subject of the user's that start a run."""

    on: str
    stream: str | None = None
    type: str | None = None
    source: str | None = None
    subject: str | None = None
    when: Callable[..., Any] | None = None
    input: Callable[..., Any] | None = None


def on_event(
    on: str, *, type: str | None = None, stream: str | None = None, source: str | None = None, subject: str | None = None,
    when: Callable[..., Any] | None = None, input: Callable[..., Any] | None = None,
) -> EventTrigger:  # fmt: skip
    """Start a run for each CloudEvent on the NATS subject `on` whose attributes match."""
    return EventTrigger(on, stream, type, source, subject, when, input)


@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule: six fields (seconds first) or five, in a time zone."""

    expression: str
    timezone: str = "UTC"
    input: Any = None
    id: str | None = None
    overlap: Literal["skip", "allow", "cancel"] = "skip"

    def __post_init__(self) -> None:
        if len(self.expression.split()) not in (5, 6):
            raise DefinitionError(f"cron {self.expression!r}: five fields, or six with seconds first")
