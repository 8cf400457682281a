"""Laws of ports.Calls and ports.Services."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from noria.errors import BrokerUnavailable, NoriaError
from noria.ports import Answer, Broker, Endpoint, Nobody, RunKey


async def echo(body: bytes) -> Answer:
    return Answer(b"refused", "no", "400") if body == b"bad" else Answer(body.upper())


async def test_each_request_goes_to_one_of_those_who_serve(broker: Broker) -> None:
    counts: Counter[int] = Counter()

    def counting(n: int) -> Endpoint:
        async def handle(body: bytes) -> Answer:
            counts[n] += 1
            return await echo(body)

        return Endpoint("echo", f"{broker.namespace}.api.echo", handle, {})

    stops = [await broker.services.serve("test", "a test", {}, [counting(n)]) for n in range(2)]
    subject = f"{broker.namespace}.api.echo"
    for _ in range(40):
        assert await broker.calls.ask(subject, b"abc", 5) == Answer(b"ABC")
    assert await broker.calls.ask(subject, b"bad", 5) == Answer(b"refused", "no", "400")
    assert sum(counts.values()) == 41 and min(counts.values()) > 0
    for stop in stops:
        await stop(0)
    with pytest.raises(Nobody):
        await broker.calls.ask(subject, b"abc", 5)


async def test_many_are_handled_at_once_and_a_stop_tells_the_rest_to_ask_again(broker: Broker) -> None:
    async def slow(body: bytes) -> Answer:
        await asyncio.sleep(30 if body == b"long" else 0.2)
        return Answer(body)

    subject = f"{broker.namespace}.api.slow"
    stop = await broker.services.serve("test", "a test", {}, [Endpoint("slow", subject, slow, {})])
    long = asyncio.ensure_future(broker.calls.ask(subject, b"long", 20))
    async with asyncio.timeout(2):
        await asyncio.gather(*(broker.calls.ask(subject, b"short", 5) for _ in range(20)))
    with pytest.raises(BrokerUnavailable):
        await broker.calls.ask(subject, b"long", 0.3)
    await stop(0.1)
    assert (await asyncio.wait_for(long, 5)).code == "503"


async def test_a_talk_hears_everything_in_order(broker: Broker) -> None:
    heard: asyncio.Queue[Answer | None] = asyncio.Queue()
    talk = broker.calls.open(heard.put_nowait)
    subject = f"{broker.namespace}.api.talk"

    async def tells(body: bytes) -> Answer:
        for n in range(20):
            broker.calls.tell(body.decode(), b"%d" % n)
        await asyncio.sleep(0.1)
        return Answer(b"end")

    talk.send(subject, b"x")
    assert await asyncio.wait_for(heard.get(), 5) is None  # nobody there
    stop = await broker.services.serve("test", "a test", {}, [Endpoint("talk", subject, tells, {})])
    talk.send(subject, talk.address.encode())
    assert [await asyncio.wait_for(heard.get(), 5) for _ in range(21)] == [*(Answer(b"%d" % n) for n in range(20)), Answer(b"end")]
    talk.close()
    broker.calls.tell(talk.address, b"late")
    await asyncio.sleep(0.1)
    assert heard.empty()
    await stop(0)


async def test_listening(broker: Broker) -> None:
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    stop = await broker.calls.listen(f"{broker.namespace}.uncall.w.s.*", lambda subject, body: heard.put_nowait((subject, body)))
    broker.calls.tell(f"{broker.namespace}.uncall.w.s.1", b"no")
    broker.calls.tell(f"{broker.namespace}.uncall.w.t.1", b"other")
    assert await asyncio.wait_for(heard.get(), 5) == (f"{broker.namespace}.uncall.w.s.1", b"no")
    await stop()
    broker.calls.tell(f"{broker.namespace}.uncall.w.s.2", b"no")
    await asyncio.sleep(0.1)
    assert heard.empty()


async def test_without_a_codec_nothing_is_sealed(broker: Broker) -> None:
    context, body = RunKey("w", "r.1"), b'{"status":"success","output":1}'
    assert not broker.calls.seals and broker.calls.seal(context, body, ("status",)) is body and broker.calls.unseal(context, body) is body
    with pytest.raises(NoriaError, match="max_payload"):
        talk = broker.calls.open(lambda _: None)
        talk.send(f"{broker.namespace}.api.none", b"x" * (broker.calls.max_bytes + 1))
