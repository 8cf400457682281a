"""A broker of its own namespace per test: `broker` is each implementation of the ports in turn, `nats` the real one."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from noria.broker import NatsBroker, connect_broker
from noria.ports import Broker
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server
from noria.testing.virtual import virtual_time


@pytest.fixture
async def nats(server_url: str) -> AsyncIterator[NatsBroker]:
    made = await connect_broker(server_url, f"l{uuid.uuid4().hex[:12]}")
    await made.provision()
    yield made
    names = made.subjects
    for name in (names.runs, names.triggers, names.dead, names.blobs, f"KV_{names.records}", f"KV_{names.catalogue}"):
        await made.connection.api(f"STREAM.DELETE.{name}")
    await made.close()


@pytest.fixture
async def simulated() -> AsyncIterator[MemoryBroker]:
    with virtual_time():
        made = MemoryBroker(Server(), "laws")
        yield made
        await made.close()


@pytest.fixture(params=["nats", "simulated"])
def broker(request: pytest.FixtureRequest) -> Broker:
    found: Broker = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def outside(broker: Broker) -> Callable[[str, bytes], Awaitable[None]]:
    """Publish on a subject of the user's."""

    async def publish(subject: str, body: bytes) -> None:
        if isinstance(broker, NatsBroker):
            broker.connection.publish(subject, body)
        else:
            broker.server.publish(subject, {}, body)

    return publish
