"""Log lines as OpenTelemetry records that name their run as its spans do; imported only where logs are sent away."""

from __future__ import annotations

import copy
import logging

from opentelemetry.instrumentation.logging.handler import LoggingHandler  # pyright: ignore[reportMissingTypeStubs]
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from noria.runlog import RunFilter

NAMES = {"workflow": "noria.workflow", "run_id": "noria.run_id", "step": "noria.step"}


class RunHandler(LoggingHandler):
    """OpenTelemetry's own handler, with `noria.run_id` and `noria.workflow` on what is logged while a run is worked for. What the
    sending itself logs is not sent."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("opentelemetry.") or not is_instrumentation_enabled():
            return
        named = copy.copy(record)  # others format the same record
        RunFilter().filter(named)
        fields = vars(named)
        del fields["run_suffix"]
        for field, name in NAMES.items():
            if value := fields.pop(field, ""):
                fields[name] = value
        super().emit(named)
