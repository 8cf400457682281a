"""ports.Observer on OpenTelemetry: a trace per run, a span per hosting, step, sleep and nested workflow.

A hosting's span is a child of the start's, and linked to the command that woke the actor and to those that came
meanwhile, which are linked to the start's: so a run is one trace over all its suspensions and processes, and what was
done to it is found from there. Payloads never get into telemetry.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from noria.clock import monotonic, now
from noria.contract import commands
from noria.errors import NoriaError
from noria.ports import Delivery, RunKey
from noria.telemetry.metrics import Meters
from noria.telemetry.traceparent import context_of, derived, text_of

T = TypeVar("T")
RESTING = frozenset({"success", "failed", "canceled", "tripwire", "suspended", "waiting", "paused"})
BAD = frozenset({"failed", "tripwire"})


class OtelObserver:
    """ports.Observer on these providers, else on the process's own."""

    def __init__(self, tracer_provider: trace.TracerProvider | None = None, meter_provider: MeterProvider | None = None) -> None:
        self.tracer = (tracer_provider or trace.get_tracer_provider()).get_tracer("noria")
        self.meters = Meters(meter_provider)

    @contextmanager
    def sends(self, verb: str, run: RunKey, traceparent: str | None, of: str | None) -> Generator[str | None]:
        parent = context_of(traceparent) if traceparent is not None else None
        attributes = {"noria.workflow": run.workflow, "noria.run_id": run.run}
        links = [] if of is None else [_link(of or derived(run))]
        with self.tracer.start_as_current_span(f"{verb} {run.workflow}", parent, SpanKind.PRODUCER, attributes, links) as span:
            yield text_of(span) or traceparent

    def delivered(self, delivery: Delivery) -> None:
        if delivery.count > 1:
            self.meters.redeliveries.add(1, {"workflow": delivery.actor.workflow})

    def hosts(self, delivery: Delivery, traceparent: str | None) -> OtelStretch:
        return OtelStretch(self, delivery, traceparent or derived(delivery.actor.tree))

    @contextmanager
    def serves(self, step: str, run: RunKey, traceparent: str | None) -> Generator[None]:
        parent = context_of(traceparent) if traceparent is not None else None
        attributes = {"noria.workflow": run.workflow, "noria.run_id": run.run, "noria.step": step}
        with self.tracer.start_as_current_span(f"serve {step}", parent, SpanKind.SERVER, attributes):
            yield

    def traceparent(self) -> str | None:
        return text_of(trace.get_current_span())


class OtelStretch:
    """ports.Stretch: one hosting of an actor, current while it lasts."""

    def __init__(self, observer: OtelObserver, delivery: Delivery, traceparent: str) -> None:
        self._tracer, self._meters, self._actor = observer.tracer, observer.meters, delivery.actor
        workflow = self._actor.workflow
        self._labels, self._begun = {"workflow": workflow}, traceparent
        name = f"child {workflow} {self._actor.path}" if self._actor.path else f"run {workflow}"
        attributes = {**self._names(self._actor.path), "noria.deliveries": delivery.count}
        self._span = self._tracer.start_span(name, context_of(traceparent), SpanKind.CONSUMER, attributes, _links(delivery.body, traceparent))
        self._token = contexts.attach(trace.set_span_in_context(self._span))
        self.traceparent = text_of(self._span) or traceparent
        self._meters.active.add(1, self._labels)
        if delivery.count == 1:
            self._meters.lag.record(max(0.0, now() - delivery.time), self._labels)

    def _names(self, path: str) -> dict[str, str | int]:
        found: dict[str, str | int] = {"noria.workflow": self._actor.workflow, "noria.run_id": self._actor.run}
        return {**found, "noria.path": path} if path else found

    async def step(self, step: str, path: str, attempt: int, work: Coroutine[Any, Any, T]) -> T:
        attributes = {**self._names(path), "noria.step": step, "noria.attempt": attempt}
        began, status = monotonic(), "canceled"
        with self._tracer.start_as_current_span(f"step {step}", attributes=attributes, record_exception=False, set_status_on_exception=False) as span:
            try:
                outcome = await work
                status = _conclude(span, outcome)
                return outcome
            finally:
                span.set_attribute("noria.status", status)
                labels = {**self._labels, "step": step, "status": status}
                self._meters.steps.record(monotonic() - began, labels)

    async def child(self, path: str, work: Coroutine[Any, Any, str]) -> str:
        with self._tracer.start_as_current_span(
            f"child {path.rpartition('.')[2]}", attributes=self._names(path), record_exception=False, set_status_on_exception=False
        ) as span:
            status = await work
            span.set_attribute("noria.status", status)
            return status

    async def evaluation(self, what: str, entry: str, path: str, work: Coroutine[Any, Any, T]) -> T:
        with self._tracer.start_as_current_span(
            f"{what} {entry}", attributes={**self._names(path), "noria.step": entry}, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                return await work
            except Exception as error:
                _conclude(span, error)
                raise

    def took_in(self, command: bytes) -> None:
        for link in _links(command, self._begun):
            self._span.add_link(link.context)

    def slept(self, step: str, path: str, began: float, ended: float) -> None:
        attributes = {**self._names(path), "noria.step": step}
        span = self._tracer.start_span(f"sleep {step}", attributes=attributes, start_time=int(began * 1e9))
        span.end(int(ended * 1e9))

    def appended(self) -> None:
        self._meters.appends.add(1, self._labels)

    def conflict(self) -> None:
        self._meters.conflicts.add(1, self._labels)

    def end(self, status: str) -> None:
        rests = status in RESTING
        self._meters.active.add(-1, self._labels)
        if rests and not self._actor.path:
            self._meters.runs.add(1, {**self._labels, "status": status})
        self._span.set_attribute("noria.status", status if rests else "handed over")
        if status in BAD:
            self._span.set_status(Status(StatusCode.ERROR))
        contexts.detach(self._token)
        self._span.end()


def _links(command: bytes, traceparent: str) -> list[Link]:
    """The command's own span, where it is not the start's."""
    try:
        found = getattr(commands.decode(command), "traceparent", None)
    except NoriaError:  # too large to be inline, or not readable: then without a link
        return []
    return [_link(found)] if found and found != traceparent else []


def _link(traceparent: str) -> Link:
    return Link(trace.get_current_span(context_of(traceparent)).get_span_context())


def _conclude(span: trace.Span, outcome: Any) -> str:
    if isinstance(outcome, Exception):
        span.record_exception(outcome)
        span.set_status(Status(StatusCode.ERROR, str(outcome)))
        return "failed"
    return str(getattr(outcome, "status", "suspended"))
