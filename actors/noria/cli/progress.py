"""Live progress of a run, from its events."""

from __future__ import annotations

from collections.abc import AsyncIterable
from datetime import datetime
from typing import Any

from rich.live import Live
from rich.table import Table

from noria.cli.output import coloured, err, short
from noria.contract.events import RunEvent


class Progress:
    """A table of steps that follows the events."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._steps: dict[str, list[str]] = {}
        self._began: dict[str, datetime | None] = {}

    async def follow(self, events: AsyncIterable[RunEvent]) -> None:
        with Live(self._table(), console=err, refresh_per_second=12) as live:
            async for event in events:
                self._note(event)
                live.update(self._table())
        if not err.is_terminal:
            err.print()  # the table ends without a newline there

    def _note(self, event: RunEvent) -> None:
        if event.step is None:
            return
        row = self._steps.setdefault(event.step, ["running", "", ""])
        if event.type == "workflow-step-start":
            row[0], self._began[event.step] = "running", event.time  # again, when it is resumed or tried once more
        elif event.type == "workflow-step-progress":
            row[2] = f"{event.data['completed']} of {event.data['total']}"
        elif event.type == "workflow-step-result":
            row[0], row[2] = event.data["status"], _outcome(event.data)
        elif event.type in ("workflow-step-suspended", "workflow-step-waiting"):
            row[0] = event.type.rpartition("-")[2]
        began = self._began.get(event.step)
        if began is not None and event.time is not None:
            row[1] = f"{(event.time - began).total_seconds():.2f} s"

    def _table(self) -> Table:
        table = Table("step", "status", "time", "output", title=self._title, title_justify="left")
        for name, (status, spent, output) in self._steps.items():
            table.add_row(name, coloured(status), spent, output)
        return table


def _outcome(data: dict[str, Any]) -> str:
    """What came of a step, or why nothing did."""
    if "error" in data:
        return short(data["error"]["message"], 60)
    return short(data["tripwire"]["reason"] if "tripwire" in data else data.get("output"), 60)
