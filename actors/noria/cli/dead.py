"""`noria dead`: what could not be processed, why, and another chance for it."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from noria.cli.output import local, out, print_json
from noria.cli.session import AsJson, Namespace, Server, connected, execute
from noria.clock import aware
from noria.errors import RunNotFound
from noria.ports import Letter

app = typer.Typer(help="Dead letters: what could not be processed.", no_args_is_help=True)
Sequence = Annotated[int, typer.Argument(help="The letter's sequence: noria dead list")]


@app.command("list")
def list_letters(
    kind: Annotated[str | None, typer.Option(help="Only trigger, poison, schedule, command, fact or record.")] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", "-w", help="Only of this workflow.")] = None,
    after: Annotated[int, typer.Option(help="Only with a sequence above this one: the next page.")] = 0,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    server: Server = None, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """A page of letters, oldest first."""

    async def work() -> list[Letter]:
        async with connected(server, namespace) as noria:
            return await noria.dead.list(kind=kind, workflow=workflow, after=after, limit=limit)

    letters = execute(work())
    if json:
        print_json([_shown(letter) for letter in letters])
        return
    table = Table("letter", "kind", "workflow", "buried", "reason")
    for each in letters:
        table.add_row(str(each.sequence), each.kind, each.workflow, local(aware(each.time)), escape(each.reason))
    out.print(table)
    if len(letters) == limit:
        out.print(f"perhaps more: --after {letters[-1].sequence}")


@app.command("show")
def show(sequence: Sequence, server: Server = None, namespace: Namespace = "noria", json: AsJson = False) -> None:
    """One letter with its body and original headers."""

    async def work() -> Letter:
        async with connected(server, namespace) as noria:
            letter = await noria.dead.get(sequence)
        if letter is None:
            raise RunNotFound(f"there is no dead letter {sequence}: noria dead list")
        return letter

    letter = _shown(execute(work()))
    if json:
        print_json(letter)
        return
    for name, value in letter.items():
        out.print(f"{name}: {value}", markup=False, highlight=False, soft_wrap=True)


@app.command("replay")
def replay(
    sequences: Annotated[list[int], typer.Argument(help="Letters to replay")],
    server: Server = None, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """Publish a trigger again; start a run that was given up anew, under another id."""

    async def work() -> dict[int, str | None]:
        async with connected(server, namespace) as noria:
            return {sequence: await noria.dead.replay(sequence) for sequence in sequences}

    replayed = execute(work())
    if json:
        print_json([{"sequence": sequence, "run_id": run} for sequence, run in replayed.items()])
        return
    for sequence, run in replayed.items():
        out.print(f"{sequence}: {'published again' if run is None else f'started as run {run}'}", highlight=False)


def _shown(letter: Letter) -> dict[str, Any]:
    """JSON data; a body that is no text as base64 under `body_base64`."""
    data = {**letter._asdict(), "time": aware(letter.time).isoformat(), "headers": dict(letter.headers)}
    try:
        data["body"] = letter.body.decode()
    except UnicodeDecodeError:
        data["body"], data["body_base64"] = None, base64.b64encode(letter.body).decode()
    return data
