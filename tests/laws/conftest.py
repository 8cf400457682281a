"""A broker of its own namespace per test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from noria.broker import NatsBroker, connect_broker


@pytest.fixture
async def broker(server_url: str) -> AsyncIterator[NatsBroker]:
    made = await connect_broker(server_url, f"l{uuid.uuid4().hex[:12]}")
    await made.provision()
    yield made
    names = made.subjects
    for name in (names.runs, names.triggers, names.dead, names.blobs, f"KV_{names.records}", f"KV_{names.catalogue}"):
        await made.connection.api(f"STREAM.DELETE.{name}")
    await made.close()
