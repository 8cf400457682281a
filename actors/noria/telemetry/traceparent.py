"""W3C trace context as the text that commands and events carry."""

from __future__ import annotations

import hashlib

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from noria.ports import RunKey

_FORMAT = TraceContextTextMapPropagator()


def text_of(span: trace.Span) -> str | None:
    """The traceparent that continues from a span; None for one that is not traced."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def context_of(traceparent: str) -> Context:
    """A context whose current span is the remote one; empty for what is no traceparent."""
    return _FORMAT.extract({"traceparent": traceparent}, Context())


def derived(run: RunKey) -> str:
    """The traceparent of a run that was started without one: the same in every process, so its stretches share a trace."""
    digest = hashlib.sha256(f"{run.workflow}/{run.run}".encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"
