"""One verb for many runs: chosen by filter, counted, confirmed, done side by side behind a progress bar."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import typer
from rich.progress import Progress

from noria.cli.output import err, out, print_json
from noria.cli.prompts import confirm
from noria.client.noria import Noria
from noria.contract.results import RunSummary
from noria.errors import BrokerUnavailable, InvalidInput, NoriaError
from noria.limits import BULK_AT_ONCE, LIST_PAGE

Status = Annotated[str | None, typer.Option(help="Without a run id: all runs of this status.")]
Since = Annotated[datetime | None, typer.Option(help="Without a run id: all runs created then or later, local time.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class Choice(NamedTuple):
    """What a command line said about many runs."""

    workflow: str | None
    status: str | None
    since: datetime | None
    yes: bool
    json: bool

    @classmethod
    def of(cls, run_id: str | None, workflow: str | None, status: str | None, since: datetime | None, yes: bool, json: bool) -> Choice:
        """Raises typer.BadParameter for one run that is chosen by a filter too: whichever is meant, the other would be ignored."""
        if run_id is not None and (status is not None or since is not None):
            raise typer.BadParameter(f"--status and --since choose many runs: leave them out, or {run_id!r}")
        return cls(workflow, status, since, yes, json)

    async def runs(self, noria: Noria, statuses: tuple[str, ...]) -> list[RunSummary]:
        """The runs that match and have one of `statuses`, newest first. Raises InvalidInput without any filter."""
        if self.workflow is None and self.status is None and self.since is None:
            raise InvalidInput("which runs? Give a run id, or choose by --workflow, --status or --since")
        found: list[RunSummary] = []
        while True:
            page = await noria.runs.list(
                self.workflow, status=self.status, since=self.since and self.since.astimezone(), limit=LIST_PAGE, offset=len(found)
            )
            found += page.runs
            if not page.runs or len(found) >= page.total:
                return [run for run in found if run.status in statuses]

    async def apply(
        self, noria: Noria, verb: str, statuses: tuple[str, ...], work: Callable[[RunSummary], Awaitable[str]]
    ) -> bool:
        """Do `work`, which gives the status that came of it, for each run, and report. Whether all went well. Raises
        InvalidInput when nobody can be asked, typer.Abort when the answer is no."""
        runs = await self.runs(noria, statuses)
        if runs and not self.yes:
            if not sys.stdin.isatty():
                raise InvalidInput(f"{verb} {len(runs)} runs? Nobody is there to say so: give --yes")
            confirm(f"{verb} {len(runs)} runs?")
        done, failed = await _each(runs, verb, work, quiet=self.json)
        if self.json:
            print_json({"matched": len(runs), "done": len(done), "runs": done, "failed": failed})
        else:
            out.print(f"{verb}: {len(done)} of {len(runs)} runs")
            for each in failed:
                out.print(f"  {each['run_id']}: {each['error']}", markup=False, highlight=False)
        return not failed


async def _each(
    runs: list[RunSummary], verb: str, work: Callable[[RunSummary], Awaitable[str]], *, quiet: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    done, failed, room = list[dict[str, Any]](), list[dict[str, Any]](), asyncio.Semaphore(BULK_AT_ONCE)
    with Progress(console=err, disable=quiet) as progress:
        bar = progress.add_task(verb, total=len(runs))

        async def one(run: RunSummary) -> None:
            async with room:
                about: dict[str, Any] = {"run_id": run.run_id, "workflow_id": run.workflow_id}
                try:
                    done.append({**about, "status": await work(run)})
                except BrokerUnavailable:
                    raise
                except (NoriaError, TimeoutError) as error:
                    failed.append({**about, "error": str(error) or type(error).__name__})
                progress.advance(bar)

        await asyncio.gather(*(one(run) for run in runs))
    return done, failed
