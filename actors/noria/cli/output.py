"""How things look: JSON for machines, tables and trees for people."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from noria.contract.control import to_json
from noria.contract.results import RunRecord, RunResult, RunSummary

PIPE_WIDTH = 10_000  # who reads a pipe breaks lines himself, and gets ids whole
out, err = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH), Console(stderr=True)
COLOURS = {"success": "green", "failed": "red", "tripwire": "red", "canceled": "magenta", "suspended": "yellow", "waiting": "yellow"}


def print_json(value: Any) -> None:
    """One document on stdout."""
    typer.echo(json.dumps(to_json(value), ensure_ascii=False))


def fail(error: BaseException, code: int) -> NoReturn:
    """One line on stderr, and out."""
    err.print(f"[red]error:[/red] {escape(str(error) or type(error).__name__)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def coloured(status: str) -> str:
    return f"[{COLOURS.get(status, 'cyan')}]{status}[/]"


def short(value: Any, width: int = 80) -> str:
    text = json.dumps(to_json(value), ensure_ascii=False)
    return (text if len(text) <= width else text[: width - 1] + "…").replace("[", "\\[")


def local(moment: datetime | None) -> str:
    """A moment as the clock on the wall shows it; people's options are read so, too."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def clock(moment: datetime | None) -> str:
    """The same without its day, to the millisecond."""
    return "" if moment is None else moment.astimezone().strftime("%H:%M:%S.%f")[:-3]


def print_runs(runs: list[RunSummary], total: int) -> None:
    table = Table(Column("run", overflow="fold"), Column("workflow", overflow="fold"), "status", "created", Column("resource", overflow="fold"))
    for run in runs:
        table.add_row(run.run_id, run.workflow_id, coloured(run.status), local(run.created_at), run.resource_id or "")
    out.print(table)
    out.print(f"{len(runs)} of {total}")


def print_result(result: RunResult) -> None:
    """The steps as a table, then the outcome."""
    if isinstance(result, RunRecord):
        table = Table("step", "status", "tries", "output")
        for name, step in result.steps.items():
            table.add_row(name, coloured(step.status), str(step.attempts), short(step.error.message if step.error else step.output))
        out.print(table)
    out.print(f"run {result.run_id}: {coloured(result.status)}", highlight=False)
    if result.error is not None:
        out.print(f"  {result.error.type}: {result.error.message}", markup=False)
    if result.tripwire is not None:
        out.print(f"  {result.tripwire.step}: {result.tripwire.reason}", markup=False)
    if result.status == "success":
        out.print_json(json.dumps(to_json(result.result)))
    for suspension in result.suspended:
        out.print(f"  waits: {'.'.join(suspension.path)} {short(suspension.payload)}")
