"""Sending traces and metrics away by OTLP, as the OTEL_* environment variables say; needs the extra `otel`."""

from __future__ import annotations

import os
from collections.abc import Callable

from noria.errors import DefinitionError

WANTED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")


def export() -> Callable[[], None]:
    """Set this process's providers up where an OTLP endpoint is named; how to send the rest and stop. Does nothing
    without one. Raises DefinitionError when the packages are missing."""
    named = [name for name in WANTED if os.environ.get(name)]
    if not named:
        return lambda: None
    try:
        from opentelemetry import metrics, trace
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise DefinitionError(f"{named[0]} is set, but there is no exporter: pip install 'noria[otel]'") from error
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "noria")})
    spans, measures = TracerProvider(resource=resource), MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource)
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(spans)
    metrics.set_meter_provider(measures)

    def stop() -> None:
        spans.shutdown()
        measures.shutdown()

    return stop
