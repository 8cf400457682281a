"""`noria infra`: streams, buckets, and the configuration of the servers that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noria.broker.permissions import server_files
from noria.cli.output import coloured, out, print_json
from noria.cli.session import AsJson, Namespace, Server, connected, execute

app = typer.Typer(help="Streams, buckets and server configuration.", no_args_is_help=True)


Replicas = Annotated[int, typer.Option(help="Copies of each stream in a cluster.", envvar="NORIA_REPLICAS", min=1, max=5)]


@app.command()
def plan(server: Server = None, namespace: Namespace = "noria", replicas: Replicas = 1, json: AsJson = False) -> None:
    """What `apply` would do."""
    _infra(server, namespace, replicas, json, apply=False)


@app.command()
def apply(server: Server = None, namespace: Namespace = "noria", replicas: Replicas = 1, json: AsJson = False) -> None:
    """Create what is missing, change what differs."""
    _infra(server, namespace, replicas, json, apply=True)


def _infra(server: str | None, namespace: str, replicas: int, json: bool, *, apply: bool) -> None:
    async def work() -> list[str]:
        async with connected(server, namespace, replicas=replicas) as noria:
            return await (noria.infra.apply() if apply else noria.infra.plan())

    lines = execute(work())
    if json:
        print_json(lines)
    else:
        out.print("\n".join(lines) or coloured("success") + ": nothing to do", highlight=False)


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(help="Where the files go; they are replaced.")],
    nodes: Annotated[int, typer.Option(help="Nodes of the cluster.")] = 3,
    tls: Annotated[bool, typer.Option(help="With TLS.")] = True, namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """Write nats-server configuration with an account and a user per role. No server is needed."""

    async def work() -> list[str]:
        files = server_files(namespace, nodes, tls)
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8")
        return [str(directory / name) for name in files]

    written = execute(work())
    print_json(written) if json else out.print("\n".join(written), highlight=False)
