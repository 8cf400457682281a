"""`noria schedules`: what is planned, and when it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from noria.cli.output import out, print_json, short
from noria.cli.session import AsJson, Namespace, Server, connected, execute
from noria.client.noria import Noria

app = typer.Typer(help="Schedules of workflows.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="Schedule id")]
Workflow = Annotated[str | None, typer.Option("--workflow", "-w", help="Workflow id; needed where two have a schedule of this id.")]
T = TypeVar("T")


def _do(server: str | None, namespace: str, work: Callable[[Noria], Awaitable[T]]) -> T:
    async def connected_work() -> T:
        async with connected(server, namespace) as noria:
            return await work(noria)

    return execute(connected_work())


@app.command("list")
def list_schedules(workflow: Workflow = None, server: Server = None, namespace: Namespace = "noria", json: AsJson = False) -> None:
    """Every schedule that workers declared, with its next time and last run."""
    found = _do(server, namespace, lambda noria: noria.schedules.list(workflow))
    if json:
        return print_json(found)
    table = Table("schedule", "workflow", "cron", "zone", "next", "last run", "input")
    for each in found:
        following = each.next.strftime("%Y-%m-%d %H:%M:%S %Z") if each.next is not None else "[yellow]paused[/]"
        table.add_row(each.id, each.workflow_id, each.cron, each.timezone, following, each.last_run or "", short(each.input, 40))
    return out.print(table)


@app.command()
def pause(id: Id, workflow: Workflow = None, server: Server = None, namespace: Namespace = "noria", json: AsJson = False) -> None:
    """No more runs, through restarts and redeploys, until it is resumed."""
    _do(server, namespace, lambda noria: noria.schedules.pause(id, workflow))
    print_json({"id": id, "paused": True}) if json else typer.echo(f"schedule {id}: paused")


@app.command()
def resume(id: Id, workflow: Workflow = None, server: Server = None, namespace: Namespace = "noria", json: AsJson = False) -> None:
    """Go on; what was missed is not made up for."""
    _do(server, namespace, lambda noria: noria.schedules.resume(id, workflow))
    print_json({"id": id, "paused": False}) if json else typer.echo(f"schedule {id}: resumed")


@app.command()
def run(id: Id, workflow: Workflow = None, server: Server = None, namespace: Namespace = "noria", json: AsJson = False) -> None:
    """Start a run now; its id."""
    run_id = _do(server, namespace, lambda noria: noria.schedules.run(id, workflow))
    print_json({"id": id, "run_id": run_id}) if json else typer.echo(f"schedule {id}: run {run_id}")
