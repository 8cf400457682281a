"""The metrics of the runtime, defined once: the dashboard in infra/ may name these and no others."""

from __future__ import annotations

from typing import NamedTuple

from opentelemetry.metrics import MeterProvider, get_meter_provider


class Metric(NamedTuple):
    """A metric: its OpenTelemetry name, kind (counter, updown, histogram), unit, meaning and labels."""

    name: str
    kind: str
    unit: str
    meaning: str
    labels: tuple[str, ...]

    @property
    def prometheus(self) -> tuple[str, ...]:
        """The names that a Prometheus sees behind an OpenTelemetry collector."""
        base = self.name.replace(".", "_") + ("_seconds" if self.unit == "s" else "")
        if self.kind == "histogram":
            return f"{base}_bucket", f"{base}_sum", f"{base}_count"
        return (f"{base}_total",) if self.kind == "counter" else (base,)


RUNS = Metric("noria.runs", "counter", "{run}", "Runs that came to rest or ended, by status", ("workflow", "status"))
STEPS = Metric("noria.step.duration", "histogram", "s", "How long a try of a step took", ("workflow", "step", "status"))
LAG = Metric("noria.command.lag", "histogram", "s", "From a command's publication until somebody hosts its actor", ("workflow",))
APPENDS = Metric("noria.appends", "counter", "{append}", "Appends to actors' logs", ("workflow",))
CONFLICTS = Metric("noria.conflicts", "counter", "{append}", "Appends that another host's were faster than", ("workflow",))
REDELIVERIES = Metric("noria.redeliveries", "counter", "{delivery}", "Commands that were delivered again", ("workflow",))
ACTIVE = Metric("noria.actors.active", "updown", "{actor}", "Actors hosted by this process right now", ("workflow",))
ALL = (RUNS, STEPS, LAG, APPENDS, CONFLICTS, REDELIVERIES, ACTIVE)


class Meters:
    """The instruments of one meter provider."""

    def __init__(self, provider: MeterProvider | None = None) -> None:
        meter = (provider or get_meter_provider()).get_meter("noria")
        counters = {m: meter.create_counter(m.name, m.unit, m.meaning) for m in ALL if m.kind == "counter"}
        self.runs, self.appends = counters[RUNS], counters[APPENDS]
        self.conflicts, self.redeliveries = counters[CONFLICTS], counters[REDELIVERIES]
        self.steps = meter.create_histogram(STEPS.name, STEPS.unit, STEPS.meaning)
        self.lag = meter.create_histogram(LAG.name, LAG.unit, LAG.meaning)
        self.active = meter.create_up_down_counter(ACTIVE.name, ACTIVE.unit, ACTIVE.meaning)
