"""Log lines that name their run: what is logged while a run is worked for, by whomever, carries its id."""

from __future__ import annotations

import logging
from contextvars import ContextVar

FORMAT = "%(asctime)s %(levelname)s %(name)s%(run_suffix)s: %(message)s"
current: ContextVar[tuple[str, str]] = ContextVar("noria_run", default=("", ""))  # workflow, run


class RunFilter(logging.Filter):
    """Put on a handler, it gives each record `run_id` and `workflow` (empty outside of a run), and `run_suffix` for FORMAT."""

    def filter(self, record: logging.LogRecord) -> bool:
        fields, (workflow, run) = vars(record), current.get()
        fields.setdefault("workflow", workflow)
        fields.setdefault("run_id", run)
        fields["run_suffix"] = f" [{fields['workflow']}/{fields['run_id']}]" if fields["run_id"] else ""
        return True
