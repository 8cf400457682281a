"""What a broker promises when requests and answers get lost: on the simulated one, where a test can have them lost.

The real one's are in test_log_laws.py: a server that is frozen, killed, cut off.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.simulation.weather import FaultyWire, Weather

from noria.errors import BrokerUnavailable
from noria.limits import PATIENCE_SECONDS
from noria.ports import ActorKey, Refused, RunKey
from noria.testing.loop import Process
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server
from noria.testing.virtual import virtual_time

ROOT, RUN = ActorKey("w", "r"), RunKey("w", "r")


def in_weather(**chances: float) -> tuple[MemoryBroker, Weather]:
    """A broker behind a connection with these chances of a fault, and no others."""
    weather = Weather(random.Random(1), lambda _: None)
    for name in ("crash", "stall", "late", "lost_request", "lost_answer", "lost_word"):
        setattr(weather, name, chances.get(name, 0.0))
    return MemoryBroker(Server(), "laws", FaultyWire(weather, Process("p"), mortal=False)), weather


async def clear_up(weather: Weather, seconds: float) -> None:
    await asyncio.sleep(seconds)
    weather.calm = True


async def test_an_append_whose_answer_is_lost_is_stored_once_and_acknowledged() -> None:
    with virtual_time():
        broker, weather = in_weather(lost_answer=1.0)
        clearing = asyncio.create_task(clear_up(weather, 5))
        first = await broker.log.append(ROOT, b"1", 0)
        await broker.records.put(RUN, b"1", 0, "{}")
        await clearing
        assert [m.sequence for m in await broker.log.read(ROOT)] == [first]


async def test_an_append_that_never_arrives_is_tried_again() -> None:
    with virtual_time():
        broker, weather = in_weather(lost_request=1.0)
        clearing = asyncio.create_task(clear_up(weather, 5))
        assert await broker.commands.send(ROOT, b"1", 0) == 1
        await clearing


async def test_a_retry_does_not_take_anothers_message_for_its_own() -> None:
    with virtual_time():
        broker, weather = in_weather(lost_request=1.0)
        under_way = broker.log.append(ROOT, b"mine", 0)
        await asyncio.sleep(1)
        await MemoryBroker(broker.server, "laws").log.append(ROOT, b"another's", 0)
        weather.calm = True
        with pytest.raises(Refused):
            await under_way


async def test_who_is_never_answered_hears_of_it_in_the_end() -> None:
    with virtual_time():
        broker, _ = in_weather(lost_answer=1.0)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(BrokerUnavailable):
            await broker.log.append(ROOT, b"1", 0)
        with pytest.raises(BrokerUnavailable):
            await broker.log.last(ROOT)
        assert PATIENCE_SECONDS <= (asyncio.get_running_loop().time() - begun) / 2 < 2 * PATIENCE_SECONDS
        assert [m.body for m in await MemoryBroker(broker.server, "laws").log.read(ROOT)] == [b"1"]


async def test_a_lost_acknowledgement_brings_the_command_back() -> None:
    with virtual_time():
        broker, weather = in_weather(lost_word=1.0)
        counts: list[int] = []
        receiver = await broker.commands.receive("w", 2.0, lambda d: (counts.append(d.count), d.ack())[0], lambda: 5)
        await broker.commands.send(ROOT, b"go")
        await asyncio.sleep(5)
        assert counts == [1, 2, 3]
        weather.calm = True
        await asyncio.sleep(10)
        assert counts == [1, 2, 3, 4]
        await receiver.close()
