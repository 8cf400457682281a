"""What the core reports, as OpenTelemetry spans and metrics. Nothing here is imported unless the process uses OpenTelemetry."""

from __future__ import annotations

import sys

from noria.ports import Observer

_OFF = ("ProxyTracerProvider", "NoOpTracerProvider", "_ProxyMeterProvider", "NoOpMeterProvider")


def installed() -> Observer | None:
    """The observer of this process; None while no OpenTelemetry provider is set up, so that nothing is paid for it."""
    trace, metrics = sys.modules.get("opentelemetry.trace"), sys.modules.get("opentelemetry.metrics")
    if trace is None or metrics is None:
        return None
    if all(type(p).__name__ in _OFF for p in (trace.get_tracer_provider(), metrics.get_meter_provider())):
        return None
    from noria.telemetry.observer import OtelObserver

    return OtelObserver()
