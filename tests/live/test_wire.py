"""The reading loop beside what else the client library does with its connection."""

from __future__ import annotations

import asyncio

import nats

from noria import Noria


async def test_what_is_half_read_outlives_a_flush(noria: Noria, server_url: str) -> None:
    """A flush that begins the reading anew would drop the beginning of a large message, and all behind it with it."""
    sizes: list[int] = []
    connection = noria.broker.connection
    await connection.subscribe("large", lambda msg: sizes.append(len(msg.data)))
    sender = await nats.connect(server_url)
    flushing = asyncio.create_task(flush_for_ever(connection.client))
    for n in range(60):
        await sender.publish("large", bytes(900_000 + n))
        await sender.flush()
    async with asyncio.timeout(20):
        while len(sizes) < 60:
            assert not flushing.done(), flushing
            await asyncio.sleep(0.01)
    flushing.cancel()
    await sender.close()
    assert sizes == [900_000 + n for n in range(60)]


async def test_the_answer_to_a_flush_that_was_given_up_ends_no_connection(noria: Noria) -> None:
    client = noria.broker.connection.client
    for _ in range(20):
        flushing = asyncio.create_task(client.flush())
        await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.wait([flushing])
    await client.flush()
    assert client.is_connected and client.stats["reconnects"] == 0


async def flush_for_ever(client: nats.NATS) -> None:
    while True:
        await client.flush()
