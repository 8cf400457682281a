"""`noria`: run, serve, watch and inspect workflows."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Annotated, Any

import typer

from noria import runlog
from noria.cli import dead, infra, runs, schedules, schemas
from noria.cli.dev import dev
from noria.cli.health import health
from noria.cli.output import err, out, print_json, print_result
from noria.cli.progress import Progress
from noria.cli.session import (
    EXIT_OF_STATUS,
    FAILED,
    SUCCESS,
    SUSPENDED,
    VIA,
    AsJson,
    Namespace,
    Server,
    connected,
    execute,
    is_local,
    is_private,
    load_workflow,
    read_json,
)  # fmt: skip
from noria.client.streams import RunStream
from noria.contract.results import RunResult
from noria.errors import InvalidInput, WorkflowNotFound
from noria.telemetry.export import export
from noria.workflow.diagram import mermaid

app = typer.Typer(name="noria", help="Durable workflows on NATS.", no_args_is_help=True, pretty_exceptions_enable=False)
workflows = typer.Typer(help="Workflows that were registered.", no_args_is_help=True)
app.add_typer(runs.app, name="runs")
app.add_typer(dead.app, name="dead")
app.add_typer(schedules.app, name="schedules")
app.add_typer(workflows, name="workflows")
app.add_typer(infra.app, name="infra")
app.add_typer(schemas.app, name="schemas")

app.command()(dev)

OneWorkflow = Annotated[str, typer.Argument(help="MODULE:ATTR, FILE.py:ATTR, or the id of a registered workflow")]
Registered = Annotated[str, typer.Argument(help="Id of a registered workflow: noria workflows list")]
Targets = Annotated[list[str], typer.Argument(help="MODULE:ATTR or FILE.py:ATTR")]


def main() -> None:
    """The entry point."""
    logging.basicConfig(level=logging.WARNING, format=runlog.FORMAT)
    for handler in logging.getLogger().handlers:
        handler.addFilter(runlog.RunFilter())
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"noria {version('noria')}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
    via: Annotated[str, typer.Option(help="streams, or api: everything through the workers' control API.", envvar="NORIA_VIA")] = "streams",
) -> None:
    """Durable workflows on NATS."""
    VIA.set(via)


@app.command()
def run(
    workflow: OneWorkflow,
    input: Annotated[str | None, typer.Option("--input", "-i", help="JSON, @FILE, or - for stdin")] = None,
    run_id: Annotated[str | None, typer.Option(help="Run id; made up without.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show progress, with --json too.")] = False,
    server: Server = None, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """Run a workflow and wait for its result; on a private server unless one is named."""
    result = execute(_run(workflow, input, run_id, timeout, server, namespace, quiet=json and not watch))
    print_json(result) if json else print_result(result)
    code = EXIT_OF_STATUS.get(result.status, FAILED)
    if code == SUSPENDED and is_local(workflow) and is_private(server):
        gone = f"its private server is gone, and the run with it: noria dev {workflow} keeps one to resume on"
        err.print(gone, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


async def _run(
    target: str, text: str | None, run_id: str | None, timeout: float | None, server: str | None, namespace: str, *, quiet: bool
) -> RunResult:
    data, local = read_json(text, "--input"), is_local(target)
    workflow = load_workflow(target) if local else target
    async with connected(server, namespace, embedded=local) as noria:
        handle = noria.create_run(workflow, run_id)
        stream = handle.stream(data, timeout=timeout)
        if isinstance(workflow, str):
            return await _outcome(handle.id, stream, quiet)
        async with noria.worker(workflow):
            return await _outcome(handle.id, stream, quiet)


async def _outcome(run_id: str, stream: RunStream, quiet: bool) -> RunResult:
    if not quiet:
        await Progress(f"run {run_id}").follow(stream)
    return await stream.result()


@app.command()
def worker(
    targets: Targets, concurrency: Annotated[int, typer.Option(help="Runs hosted at once.")] = 100,
    lease: Annotated[float, typer.Option(help="Seconds after which a dead worker's runs are taken over.")] = 30.0,
    grace: Annotated[float, typer.Option(help="Seconds that running steps get when it stops.")] = 10.0,
    steps_only: Annotated[bool, typer.Option("--steps-only", help="Serve step handlers, host no runs.")] = False,
    runs_only: Annotated[bool, typer.Option("--runs-only", help="Host runs, call step handlers elsewhere.")] = False,
    health_port: Annotated[int | None, typer.Option(help="Serve /healthz and /readyz on this port.")] = None,
    server: Server = None, namespace: Namespace = "noria",
) -> None:  # fmt: skip
    """Host workflows until SIGINT or SIGTERM, then drain. OTEL_EXPORTER_OTLP_ENDPOINT: where telemetry goes."""

    async def serve() -> None:
        if steps_only and runs_only:
            raise InvalidInput("--steps-only and --runs-only exclude each other: leave both out to do both")
        flows, stop = [load_workflow(target) for target in targets], export()
        async with connected(server, namespace) as noria, health(noria, health_port):
            what = "serving the steps of" if steps_only else "hosting runs only of" if runs_only else "hosting"
            err.print(f"{what} {', '.join(f.id for f in flows)} at {noria.url}; Ctrl-C drains and stops", soft_wrap=True)
            await noria.serve(*flows, concurrency=concurrency, lease=lease, grace=grace, steps=not runs_only, runs=not steps_only)
        stop()

    execute(serve())


@app.command()
def doctor(server: Server = None, namespace: Namespace = "noria", json: AsJson = False) -> None:
    """Check the server, its streams, and who hosts what."""

    async def work() -> list[tuple[str, bool, str]]:
        async with connected(server, namespace) as noria:
            return await noria.doctor()

    checks = execute(work())
    if json:
        print_json([{"name": name, "ok": ok, "detail": detail} for name, ok, detail in checks])
    else:
        for name, ok, detail in checks:
            out.print(f"{'[green]ok[/]  ' if ok else '[red]bad[/] '} {name}: {detail}", highlight=False)
    raise typer.Exit(SUCCESS if all(ok for _, ok, _ in checks) else FAILED)


@workflows.command("list")
def list_workflows(server: Server = None, namespace: Namespace = "noria", json: AsJson = False) -> None:
    """Every workflow that a worker ever registered."""

    async def work() -> None:
        async with connected(server, namespace) as noria:
            found = await noria.workflows.list()
        if json:
            print_json(found)
        for each in [] if json else found:
            out.print(f"{each['id']}  version {each['version']}  {each['description'] or ''}", highlight=False)

    execute(work())


@workflows.command("show")
def show_workflow(workflow: Registered, server: Server = None, namespace: Namespace = "noria", json: AsJson = False) -> None:
    """Graph, schemas and version: JSON with and without --json."""

    print_json(execute(_registered(workflow, server, namespace)))


@workflows.command("graph")
def graph(workflow: OneWorkflow, server: Server = None, namespace: Namespace = "noria", json: AsJson = False) -> None:
    """The graph as Mermaid text, or as JSON."""

    async def work() -> None:
        found = load_workflow(workflow).graph if is_local(workflow) else (await _registered(workflow, server, namespace))["graph"]
        print_json(found) if json else typer.echo(mermaid(found))

    execute(work())


async def _registered(id: str, server: str | None, namespace: str) -> dict[str, Any]:
    """What the catalogue holds of a workflow. Raises WorkflowNotFound."""
    async with connected(server, namespace) as noria:
        found = await noria.workflows.get(id)
    if found is None:
        raise WorkflowNotFound(f"there is no workflow {id!r}: noria workflows list")
    return found
