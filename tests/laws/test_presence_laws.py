"""Laws of ports.Presence."""

from __future__ import annotations

import asyncio

from noria.ports import EVERYBODY, Broker


async def test_nobody_is_known_at_once(broker: Broker) -> None:
    async with asyncio.timeout(0.5):
        assert await broker.presence.ask("a1") is None
        assert await broker.presence.ask(EVERYBODY) is None
        assert await broker.presence.gather(b"hello", 5, 10) == []


async def test_who_is_there_answers_under_its_name_and_to_all(broker: Broker) -> None:
    heard: list[tuple[str, bytes]] = []

    def host(name: str) -> None:
        def asked(question: bytes) -> bytes:
            heard.append((name, question))
            return name.encode()

        stops.append(broker.presence.answer(name, asked))

    stops: list = []
    host("a1")
    host("b2")
    stop_a, stop_b = [await s for s in stops]
    assert await broker.presence.ask("a1") == b"a1" and heard == [("a1", b"")]
    assert sorted(await broker.presence.gather(b"hello", 5, 2)) == [b"a1", b"b2"]
    assert sorted(heard[1:]) == [("a1", b"hello"), ("b2", b"hello")]
    await stop_a()
    assert await broker.presence.ask("a1") is None and await broker.presence.ask("b2") == b"b2"
    assert await broker.presence.gather(b"hello", 0.2, 2) == [b"b2"]  # it waits for more, and not for ever
    broker.presence.tell(b"bye")
    async with asyncio.timeout(5):
        while heard[-1] != ("b2", b"bye"):
            await asyncio.sleep(0.01)
    await stop_b()
