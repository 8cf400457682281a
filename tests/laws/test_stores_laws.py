"""Laws of Records, Blobs, Catalogue, Timers, Triggers, News and the topology."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from noria.broker import NatsBroker, connect_broker
from noria.broker.reading import last
from noria.ports import ActorKey, Refused, RunKey, Trigger

RUN = RunKey("w", "r")


async def test_put_is_a_compare_and_set_on_the_revision(broker: NatsBroker) -> None:
    revision = await broker.records.put(RUN, b"1", 0, '{"s":"ü😀"}')
    with pytest.raises(Refused):
        await broker.records.put(RUN, b"2", 0, "{}")
    await broker.records.put(RUN, b"2", revision, '{"s":"ü😀"}')
    found = await broker.records.get(RUN)
    assert found is not None and found.body == b"2"
    assert await broker.records.summaries() == [(RUN, '{"s":"ü😀"}')]


async def test_a_record_vanishes_after_its_time(broker: NatsBroker) -> None:
    await broker.records.put(RUN, b"1", 0, "{}", ttl_seconds=0)
    async with asyncio.timeout(8):
        while await broker.records.get(RUN) is not None:
            await asyncio.sleep(0.1)
    assert await broker.records.put(RUN, b"2", 0, "{}") > 0


async def test_ten_thousand_summaries_in_two_seconds(broker: NatsBroker) -> None:
    await asyncio.gather(*(broker.records.put(RunKey("w", f"r{n}"), b"x" * 1000, 0, '{"n":%d}' % n) for n in range(10_000)))
    begun = time.perf_counter()
    assert len(await broker.records.summaries()) == 10_000
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize("size", [0, 1, 512 * 1024, 3 * 1024 * 1024 + 7])
async def test_blobs_come_back_whole_and_go_with_their_run(broker: NatsBroker, size: int) -> None:
    data = os.urandom(size)
    name = await broker.blobs.put(RUN, data)
    assert await broker.blobs.put(RUN, data) == name
    assert await broker.blobs.get(RUN, name) == data
    await broker.blobs.put(RunKey("w", "r2"), data)
    await broker.blobs.purge(RUN)
    with pytest.raises(Exception, match="gone"):
        await broker.blobs.get(RUN, name)
    assert await broker.blobs.get(RunKey("w", "r2"), name) == data


async def test_a_timer_fires_once_and_not_early_and_is_replaced_by_name(broker: NatsBroker) -> None:
    child, root = ActorKey("w", "r", "a.b"), ActorKey("w", "r")
    await broker.timers.set(child, "sleep", time.time() + 0.3, b"early")
    due = time.time() + 1.0
    await broker.timers.set(child, "sleep", due, b"late")
    await broker.timers.set(ActorKey("w", "gone"), "sleep", time.time() + 0.6, b"never")
    await broker.timers.clear(RunKey("w", "gone"))
    async with asyncio.timeout(5):
        while (found := await broker.commands.last(root)) is None:
            await asyncio.sleep(0.05)
    assert found.body == b"late" and found.time >= due - 0.01
    assert len(await broker.commands.read(root)) == 1
    assert await broker.commands.last(ActorKey("w", "gone")) is None
    raw = await last(broker.connection, broker.subjects.runs, broker.subjects.of("in", root))
    assert raw is not None and raw.headers.get("Nats-TTL") != "never"  # commands age like others


async def test_triggers_are_delivered_until_acknowledged_and_do_not_stall(broker: NatsBroker) -> None:
    got: set[int] = set()
    failed: set[int] = set()

    async def on_trigger(trigger: Trigger) -> None:
        if trigger.sequence % 50 == 0 and trigger.sequence not in failed:
            failed.add(trigger.sequence)
            raise RuntimeError("the first time it fails")
        await asyncio.sleep(0.02)
        got.add(trigger.sequence)
        trigger.ack()

    receiver = await broker.triggers.receive(on_trigger)
    begun = time.perf_counter()
    await asyncio.gather(*(broker.connection.append(broker.subjects.trigger("w"), b"{}") for _ in range(300)))
    async with asyncio.timeout(20):
        while len(got) < 300:
            await asyncio.sleep(0.02)
    assert time.perf_counter() - begun < 4
    await receiver.close()


async def test_the_dead_stay(broker: NatsBroker) -> None:
    for n in range(5):
        await broker.triggers.bury("trigger", "w", b"%d" % n, {"Nats-Msg-Id": "x", "ce-id": "a\r\nb: c"}, "no such\nworkflow")
    first = await broker.triggers.dead(limit=2)
    rest = await broker.triggers.dead(after=first[-1].sequence)
    assert [letter.body for letter in (*first, *rest)] == [b"%d" % n for n in range(5)] and len(first) == 2
    assert first[0].reason == "no such workflow" and first[0].headers == {"nats-msg-id": "x", "ce-id": "a  b: c"}
    assert [letter.body for letter in await broker.triggers.dead(kind="poison")] == []
    assert len(await broker.triggers.dead(kind="trigger", workflow="w")) == 5


async def test_a_published_trigger_comes_with_its_headers(broker: NatsBroker) -> None:
    came: list[Trigger] = []

    async def take(trigger: Trigger) -> None:
        came.append(trigger)
        trigger.ack()

    receiver = await broker.triggers.receive(take)
    await broker.triggers.publish("w", b"{}", {"ce-id": "ü  1", "content-type": "application/json"})
    async with asyncio.timeout(5):
        while not came:
            await asyncio.sleep(0.01)
    await receiver.close()
    assert (came[0].subject.rpartition(".")[2], came[0].body) == ("w", b"{}")
    assert came[0].headers == {"ce-id": "ü  1", "content-type": "application/json"}


async def test_provision_is_idempotent_among_processes(server_url: str) -> None:
    brokers = [await connect_broker(server_url, "concurrent") for _ in range(8)]
    await asyncio.gather(*(b.provision() for b in brokers))
    assert await brokers[0].topology.plan() == []
    for broker in brokers:
        await broker.close()


async def test_a_letter_that_is_too_large_is_cut_not_lost(broker: NatsBroker) -> None:
    body = b"x" * (broker.connection.client.max_payload - 40)
    await broker.triggers.bury("trigger", "w", body, {"ce-id": "1" * 1000}, "no such workflow")
    (letter,) = await broker.triggers.dead()
    assert letter.cut and body.startswith(letter.body) and letter.reason == "no such workflow"
