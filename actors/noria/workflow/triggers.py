"""Events of the user's own that start a workflow. Frozen values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from noria.contract.values import as_listing
from noria.errors import DefinitionError
from noria.workflow.functions import UserFunction


@dataclass(frozen=True, slots=True)
class EventTrigger:
    """CloudEvents on a subject of the user's that start a run."""

    on: str
    stream: str | None = None
    type: str | None = None
    source: str | None = None
    subject: str | None = None
    when: UserFunction | None = None
    input: UserFunction | None = None

    def matches(self, type: str, source: str, subject: str | None) -> bool:
        """Whether the attributes pass the filters: equal, or beginning like a filter that ends in `*`."""
        given = ((self.type, type), (self.source, source), (self.subject, subject or ""))
        return all(wanted is None or _fits(wanted, value) for wanted, value in given)

    def consumer(self, namespace: str, workflow: str) -> str:
        """The durable consumer of this binding, shared by all workers; another subject has another one."""
        digest = hashlib.sha256(f"{self.stream or ''} {self.on}".encode()).hexdigest()
        return f"{namespace}-{workflow}-{digest[:12]}"


def on_event(
    on: str, stream: str | None = None, type: str | None = None, source: str | None = None, subject: str | None = None,
    when: Callable[..., Any] | None = None, input: Callable[..., Any] | None = None,
) -> EventTrigger:  # fmt: skip
    """Start a run for each CloudEvent on the NATS subject `on` whose attributes match.

    `type`, `source`, `subject`: exact, or with a `*` at the end. `when(event)` says whether to start, `input(event)`
    makes the run's input (without it: the event's data); either may be async. The event gives its attributes and
    extensions by name, as `event.type` or `event["type"]`, its payload as `data`. A stream that holds `on` (named by
    `stream` when several do) is read by a durable consumer: at least once in, one run per (source, id). Where no stream
    holds it, the events come by a core subscription: at most once, and lost while no worker is there.
    """
    if not on or any(not token or any(c in token for c in " \t\r\n") for token in on.split(".")):
        raise DefinitionError(f"on_event: {on!r} is no NATS subject: tokens joined by dots, '*' for one, '>' for the rest")
    for name, wanted in (("type", type), ("source", source), ("subject", subject)):
        if wanted is not None and "*" in wanted[:-1]:
            raise DefinitionError(f"on_event {on!r}: {name}={wanted!r}: a '*' may only stand at the end")
    return EventTrigger(
        on, stream, type, source, subject, None if when is None else UserFunction.of(when), None if input is None else UserFunction.of(input)
    )


def _fits(wanted: str, value: str) -> bool:
    return value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted


def checked_triggers(workflow: str, triggers: Any) -> tuple[EventTrigger, ...]:
    """The triggers of a workflow, one or several. Raises DefinitionError for what is none."""
    given = as_listing(triggers)
    found: list[EventTrigger] = []
    for trigger in [triggers] if given is None else given:
        if not isinstance(trigger, EventTrigger):
            raise DefinitionError(f"workflow {workflow!r}: triggers takes a list of on_event(...), not {trigger!r}")
        found.append(trigger)
    return tuple(found)
