"""Sending traces, metrics and logs away by OTLP, as the OTEL_* environment variables say; needs the extra `otel`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from noria.errors import DefinitionError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

EVERYTHING = "OTEL_EXPORTER_OTLP_ENDPOINT"
SIGNALS = ("TRACES", "METRICS", "LOGS")


def export() -> Callable[[], None]:
    """Set this process's providers up for each signal that an OTLP endpoint is named for, unless its `OTEL_…_EXPORTER` is
    none; how to send the rest and stop. Does nothing without one. Raises DefinitionError when the packages are missing."""
    named = {signal: name for signal in SIGNALS if (name := _endpoint(signal))}
    if not named:
        return lambda: None
    try:
        from opentelemetry.sdk.resources import Resource

        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "noria")})
        stops = [begin(resource) for signal, begin in (("TRACES", _send_traces), ("METRICS", _send_metrics), ("LOGS", _send_logs)) if signal in named]
    except ImportError as error:
        raise DefinitionError(f"{next(iter(named.values()))} is set, but there is no exporter: pip install 'noria[otel]'") from error

    def stop() -> None:
        for each in stops:
            each()

    return stop


def _endpoint(signal: str) -> str | None:
    """The variable that names where a signal goes."""
    if os.environ.get(f"OTEL_{signal}_EXPORTER") == "none":
        return None
    return next((name for name in (f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", EVERYTHING) if os.environ.get(name)), None)


def _send_traces(resource: Resource) -> Callable[[], None]:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _send_metrics(resource: Resource) -> Callable[[], None]:
    from opentelemetry import metrics
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    provider = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource)
    metrics.set_meter_provider(provider)
    return provider.shutdown


def _send_logs(resource: Resource) -> Callable[[], None]:
    from opentelemetry import _logs
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    from noria.telemetry.logs import RunHandler

    provider = LoggerProvider(resource=resource)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    _logs.set_logger_provider(provider)
    handler = RunHandler(logger_provider=provider)
    logging.getLogger().addHandler(handler)

    def stop() -> None:
        logging.getLogger().removeHandler(handler)
        provider.shutdown()

    return stop
