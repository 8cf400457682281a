"""`noria runs`: what runs there are, and what can be done to them."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, NoReturn

import typer

from noria.cli import prompts
from noria.cli.bulk import Choice, Since, Status, Yes
from noria.cli.output import clock, err, out, print_json, print_result, print_runs, short
from noria.cli.session import EXIT_OF_STATUS, FAILED, SUCCESS, AsJson, Namespace, Server, connected, execute, read_json
from noria.client.noria import Noria
from noria.client.run import Run
from noria.contract.results import RunRecord, RunResult
from noria.errors import RunFailed, RunNotFound

app = typer.Typer(help="Runs of workflows.", no_args_is_help=True)
Workflow = Annotated[str | None, typer.Option("--workflow", "-w", help="Workflow id.")]
RunId = Annotated[str, typer.Argument(help="Run id")]
OneRun = Annotated[str | None, typer.Argument(help="Run id; without it, runs chosen by --workflow, --status and --since")]
Place = Annotated[str, typer.Argument(help="Step, dotted when nested")]
Given = Annotated[str | None, typer.Option("--input", "-i", help="What the step gets: JSON, @FILE, or -")]
Answer = Annotated[str | None, typer.Option("--resume", help="Data for what was suspended: JSON, @FILE, or -")]
State = Annotated[str | None, typer.Option("--state", help="State to begin with: JSON, @FILE, or -")]
Records = Annotated[str | None, typer.Option("--context", help="Records to assume, by step: JSON, @FILE, or -")]
PerStep = Annotated[bool, typer.Option("--per-step", help="One step only, then pause.")]
OPEN = ("pending", "running", "waiting", "suspended", "paused")


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
    """The events of a run, from its first on, until it ends; the exit code is the run's."""

    async def work(noria: Noria, run: Run, record: RunRecord) -> str:
        status = record.status
        async for event in run.observe():
            if json:
                print_json(event)
            else:
                out.print(f"{clock(event.time)} {event.type} {event.step or ''} {short(event.data)}", highlight=False, soft_wrap=True)
            status = event.data["status"] if event.type == "workflow-finish" else status
        return status

    raise typer.Exit(EXIT_OF_STATUS.get(_do(server, namespace, run_id, workflow, work), FAILED))


@app.command()
def resume(
    run_id: OneRun = None, data: Annotated[str | None, typer.Option("--data", "-d", help="JSON, @FILE, or -")] = None,
    step: Annotated[str | None, typer.Option(help="Step, dotted when nested.")] = None,
    label: Annotated[str | None, typer.Option(help="Label of the suspension.")] = None,
    index: Annotated[int | None, typer.Option(help="Index of a foreach's item, from 0.")] = None,
    workflow: Workflow = None, status: Status = None, since: Since = None, yes: Yes = False,
    server: Server = None, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """Resume a suspended run and wait for it; missing data is asked for on a terminal. Without a run id: many."""
    choice = Choice.of(run_id, workflow, status, since, yes, json)
    if run_id is None:

        async def each(run: Run) -> str:
            result = await run.resume(read_json(data, "--data"), step=step, label=label, index=index)
            if result.status in ("failed", "tripwire"):
                raise RunFailed(result.error.message if result.error is not None else result.status)
            return result.status

        return _bulk(server, namespace, choice, "resume", ("suspended", "paused"), lambda noria, run: each(run))

    async def work(noria: Noria, run: Run, record: RunRecord) -> RunResult:
        given = read_json(data, "--data")
        if data is None and not json and sys.stdin.isatty():
            given = await _asked(noria, record, step, label, index)
        return await run.resume(given, step=step, label=label, index=index)

    return report(_do(server, namespace, run_id, workflow, work), json)


async def _asked(noria: Noria, record: RunRecord, step: str | None, label: str | None, index: int | None) -> Any:
    """Resume data asked for by the suspended step's schema; None where it declares none."""
    waits = [s for s in record.suspended if (label is None or label in s.labels) and (index is None or s.index == index)]
    waits = [s for s in waits if step is None or ".".join((*s.path, "")).startswith(f"{step}.")]
    described = await noria.workflows.get(record.workflow_id) or {}
    schema = described.get("resume", {}).get(".".join(waits[0].path)) if len({s.path for s in waits}) == 1 else None
    if schema is None:
        return None
    err.print(f"{'.'.join(waits[0].path)} waits: {short(waits[0].payload)}", highlight=False)
    return prompts.ask(schema)


@app.command()
def cancel(
    run_id: OneRun = None, workflow: Workflow = None, status: Status = None, since: Since = None, yes: Yes = False,
    server: Server = None, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """End a run as canceled. Without a run id: many."""
    choice = Choice.of(run_id, workflow, status, since, yes, json)

    async def each(noria: Noria, run: Run) -> str:
        await run.cancel()
        after = await run.get()
        return after.status if after is not None else "unknown"

    if run_id is None:
        return _bulk(server, namespace, choice, "cancel", OPEN, each)
    found = _do(server, namespace, run_id, workflow, lambda noria, run, record: each(noria, run))
    return typer.echo(jsonlib.dumps({"run_id": run_id, "status": found}) if json else f"run {run_id}: {found}")


@app.command()
def delete(
    run_id: OneRun = None, force: Annotated[bool, typer.Option(help="Cancel it first if it is active.")] = False, workflow: Workflow = None,
    status: Status = None, since: Since = None, yes: Yes = False, server: Server = None, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """Remove a run that ended: log, record and values. Without a run id: many."""
    choice = Choice.of(run_id, workflow, status, since, yes, json)

    async def each(noria: Noria, run: Run) -> str:
        await noria.runs.delete(run.id, run.workflow_id, force=force)
        return "deleted"

    if run_id is None:
        over = ("success", "failed", "canceled", "tripwire")
        return _bulk(server, namespace, choice, "delete", (*over, *OPEN) if force else over, each)
    _do(server, namespace, run_id, workflow, lambda noria, run, record: each(noria, run))
    return typer.echo(jsonlib.dumps({"run_id": run_id, "deleted": True}) if json else f"run {run_id}: deleted")


def _bulk(
    server: str | None, namespace: str, choice: Choice, verb: str, statuses: tuple[str, ...], each: Callable[[Noria, Run], Awaitable[str]]
) -> NoReturn:
    async def work() -> bool:
        async with connected(server, namespace) as noria:
            return await choice.apply(noria, verb, statuses, lambda found: each(noria, noria.create_run(found.workflow_id, found.run_id)))

    raise typer.Exit(SUCCESS if execute(work()) else FAILED)


@app.command()
def restart(
    run_id: RunId, timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 30.0, workflow: Workflow = None,
    server: Server = None, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """Make sure that an active run has a host, and wait for it."""

    async def work(noria: Noria, run: Run, record: RunRecord) -> RunResult:
        return await run.restart(timeout=timeout)

    report(_do(server, namespace, run_id, workflow, work), json)


@app.command("time-travel")
def time_travel(
    run_id: RunId, step: Place, input: Given = None, resume: Answer = None, state: State = None, context: Records = None,
    per_step: PerStep = False, workflow: Workflow = None, server: Server = None, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """Go on from a step of a run that rests or ended, and wait for it."""
    options = _journey(input, resume, state, context, per_step)

    async def work(noria: Noria, run: Run, record: RunRecord) -> RunResult:
        return await run.time_travel(step, **options)

    report(_do(server, namespace, run_id, workflow, work), json)


@app.command()
def fork(
    run_id: RunId, step: Place, as_id: Annotated[str | None, typer.Option("--run-id", help="Id of the new run.")] = None,
    input: Given = None, resume: Answer = None, state: State = None, context: Records = None, per_step: PerStep = False,
    workflow: Workflow = None, server: Server = None, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """Begin a new run at a step of this one, and wait for it; this one stays as it is."""
    options = _journey(input, resume, state, context, per_step)

    async def work(noria: Noria, run: Run, record: RunRecord) -> RunResult:
        return await (await run.fork(step, run_id=as_id, **options)).result()

    report(_do(server, namespace, run_id, workflow, work), json)


def _journey(input: str | None, resume: str | None, state: str | None, context: str | None, per_step: bool) -> dict[str, Any]:
    given = {"input": input, "resume": resume, "state": state, "context": context}
    return {"per_step": per_step, **{name: read_json(text, f"--{name}") for name, text in given.items() if text is not None}}


def report(result: RunResult, json: bool) -> NoReturn:
    """Show what came of a run; the exit code says it too."""
    print_json(result) if json else print_result(result)
    raise typer.Exit(EXIT_OF_STATUS.get(result.status, FAILED))
