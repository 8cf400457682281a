"""`noria dev`: a server, a worker that reloads on change, and a live log."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from noria.cli.livelog import print_events
from noria.cli.output import err
from noria.cli.session import Namespace, Server, connected, execute
from noria.client.noria import Noria

GRACE_SECONDS = 1.0
COMMAND = [sys.executable, "-c", "from noria.cli.main import main; main()", "worker"]


def dev(
    targets: Annotated[list[str], typer.Argument(help="MODULE:ATTR or FILE.py:ATTR")],
    store: Annotated[Path | None, typer.Option("--store", help="Where the private server keeps its data; a temporary place without.")] = None,
    port: Annotated[int | None, typer.Option(help="Of the private server; a free one without.")] = None,
    server: Server = None, namespace: Namespace = "noria",
) -> None:  # fmt: skip
    """Develop: a private NATS server (unless one is named), a worker that reloads on change, and what happens, live."""

    async def work() -> None:
        private = Noria.embedded(store, namespace=namespace, port=port) if store is not None or port is not None else None
        async with private or connected(server, namespace, embedded=True) as noria:
            await _develop(noria, targets)

    execute(work())


async def _develop(noria: Noria, targets: list[str]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    err.print(f"[bold]noria dev[/]: {noria.url}, namespace {noria.namespace}. In another terminal:", soft_wrap=True)
    where = f"NATS_URL={noria.url} NORIA_NAMESPACE={noria.namespace}"
    err.print(f"  export {where}; noria run WORKFLOW --input JSON; noria runs list", soft_wrap=True, highlight=False)
    places = {Path(t.rpartition(":")[0]).parent if ".py:" in t else Path.cwd() for t in targets}
    log = asyncio.create_task(print_events(noria))
    worker = await _start(noria, targets)
    try:
        async for changed in _changes(places, stop):
            err.print(f"[cyan]changed[/]: {', '.join(changed)}", highlight=False)
            await _end(worker)
            worker = await _start(noria, targets)
    finally:
        await _end(worker)
        log.cancel()
        await asyncio.gather(log, return_exceptions=True)


async def _changes(places: Iterable[Path], stop: asyncio.Event) -> AsyncGenerator[list[str], None]:
    """Names of Python files that changed, until `stop`."""
    import watchfiles  # only here: other commands need not wait for it

    watch: Any = vars(watchfiles)["awatch"]  # its events are typed loosely
    async for changes in watch(*places, watch_filter=watchfiles.PythonFilter(), stop_event=stop):
        yield sorted({Path(path).name for _, path in changes})


async def _start(noria: Noria, targets: list[str]) -> asyncio.subprocess.Process:
    place = ("--server", noria.url, "--namespace", noria.namespace, "--lease", "5", "--grace", str(GRACE_SECONDS))
    return await asyncio.create_subprocess_exec(*COMMAND, *targets, *place)


async def _end(worker: asyncio.subprocess.Process) -> None:
    """Drain it; a new one takes over what it leaves. One that could not even start is gone already."""
    with suppress(ProcessLookupError):
        worker.terminate()
    try:
        async with asyncio.timeout(GRACE_SECONDS + 4):
            await worker.wait()
    except TimeoutError:
        worker.kill()
        await worker.wait()
