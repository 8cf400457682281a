"""`noria runs`: what runs there are, and what can be done to them."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

import typer

from noria.cli.output import out, print_json, print_result, print_runs, short
from noria.cli.session import EXIT_OF_STATUS, FAILED, AsJson, Namespace, Server, connected, execute, read_json
from noria.client.noria import Noria
from noria.client.run import Run
from noria.client.streams import RunStream
from noria.contract.results import RunRecord, RunResult
from noria.errors import RunNotFound

app = typer.Typer(help="Runs of workflows.", no_args_is_help=True)
Workflow = Annotated[str | None, typer.Option("--workflow", "-w", help="Workflow id.")]
RunId = Annotated[str, typer.Argument(help="Run id")]

__all__ = ["RunStream", "app"]


async def _find(noria: Noria, run_id: str, workflow: str | None) -> tuple[Run, RunRecord]:
    record = await noria.runs.get(run_id, workflow)
    if record is None:
        raise RunNotFound(f"there is no run {run_id!r}: noria runs list")
    return noria.create_run(record.workflow_id, run_id), record


def _do(server: str | None, namespace: str, run_id: str, workflow: str | None, work: Callable[[Noria, Run, RunRecord], Awaitable[Any]]) -> Any:
    async def connected_work() -> Any:
        async with connected(server, namespace) as noria:
            run, record = await _find(noria, run_id, workflow)
            return await work(noria, run, record)

    return execute(connected_work())


@app.command("list")
def list_runs(
    workflow: Workflow = None, status: Annotated[str | None, typer.Option(help="Only this status.")] = None,
    resource: Annotated[str | None, typer.Option(help="Only this resource id.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Created then or later, local time.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Created before then, local time.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 50, offset: Annotated[int, typer.Option(help="Leave out so many.")] = 0,
    server: Server = None, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """Runs, newest first."""

    async def work() -> None:
        async with connected(server, namespace) as noria:
            page = await noria.runs.list(
                workflow, status=status, resource_id=resource, since=since and since.astimezone(), until=until and until.astimezone(),
                limit=limit, offset=offset,
            )  # fmt: skip
        print_json(page) if json else print_runs(page.runs, page.total)

    execute(work())


@app.command()
def show(run_id: RunId, workflow: Workflow = None, server: Server = None, namespace: Namespace = "noria", json: AsJson = False) -> None:
    """A run and its steps."""

    async def work(noria: Noria, run: Run, record: RunRecord) -> None:
        print_json(record) if json else print_result(record)

    _do(server, namespace, run_id, workflow, work)


@app.command()
def watch(run_id: RunId, workflow: Workflow = None, server: Server = None, namespace: Namespace = "noria", json: AsJson = False) -> None:
    """The events of a run, from its first on, until it ends."""

    async def work(noria: Noria, run: Run, record: RunRecord) -> None:
        async for event in run.observe():
            if json:
                print_json(event)
            else:
                out.print(f"{event.time:%H:%M:%S.%f} {event.type} {event.step or ''} {short(event.data)}", highlight=False)

    _do(server, namespace, run_id, workflow, work)


@app.command()
def resume(
    run_id: RunId, data: Annotated[str | None, typer.Option("--data", "-d", help="JSON, @FILE, or -")] = None,
    step: Annotated[str | None, typer.Option(help="Step, dotted when nested.")] = None, label: str | None = None, index: int | None = None,
    workflow: Workflow = None, server: Server = None, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """Resume a suspended run and wait for it."""

    async def work(noria: Noria, run: Run, record: RunRecord) -> RunResult:
        return await run.resume(read_json(data, "--data"), step=step, label=label, index=index)

    result: RunResult = _do(server, namespace, run_id, workflow, work)
    print_json(result) if json else print_result(result)
    raise typer.Exit(EXIT_OF_STATUS.get(result.status, FAILED))


@app.command()
def cancel(run_id: RunId, workflow: Workflow = None, server: Server = None, namespace: Namespace = "noria", json: AsJson = False) -> None:
    """End a run as canceled."""

    async def work(noria: Noria, run: Run, record: RunRecord) -> str:
        await run.cancel()
        after = await run.get()
        return after.status if after is not None else "unknown"

    status = _do(server, namespace, run_id, workflow, work)
    typer.echo(jsonlib.dumps({"run_id": run_id, "status": status}) if json else f"run {run_id}: {status}")


@app.command()
def delete(
    run_id: RunId, force: Annotated[bool, typer.Option(help="Cancel it first if it is active.")] = False, workflow: Workflow = None,
    server: Server = None, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """Remove a run that ended: log, record and values."""

    async def work(noria: Noria, run: Run, record: RunRecord) -> None:
        await noria.runs.delete(run_id, record.workflow_id, force=force)

    _do(server, namespace, run_id, workflow, work)
    typer.echo(jsonlib.dumps({"run_id": run_id, "deleted": True}) if json else f"run {run_id}: deleted")
