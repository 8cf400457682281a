"""Laws of Records, Blobs, Catalogue, Timers, Triggers, News and the topology."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import pytest

from noria.broker import NatsBroker, connect_broker
from noria.broker.reading import last
from noria.clock import now
from noria.errors import NoriaError
from noria.ports import ActorKey, Broker, Delivery, Refused, RunKey, Tick, Trigger

Outside = Callable[[str, bytes], Awaitable[None]]
RUN = RunKey("w", "r")


async def test_put_is_a_compare_and_set_on_the_revision(broker: Broker) -> None:
    revision = await broker.records.put(RUN, b"1", 0, '{"s":"ü😀"}')
    with pytest.raises(Refused):
        await broker.records.put(RUN, b"2", 0, "{}")
    await broker.records.put(RUN, b"2", revision, '{"s":"ü😀"}')
    found = await broker.records.get(RUN)
    assert found is not None and found.body == b"2"
    assert await broker.records.summaries() == [(RUN, '{"s":"ü😀"}')]


async def test_a_record_vanishes_after_its_time(broker: Broker) -> None:
    await broker.records.put(RUN, b"1", 0, "{}", ttl_seconds=0)
    async with asyncio.timeout(8):
        while (left := await broker.records.get(RUN)) is not None and left.body:
            await asyncio.sleep(0.1)
    assert await broker.records.summaries() == []
    assert await broker.records.put(RUN, b"2", left.revision if left is not None else 0, "{}") > 0


async def test_ten_thousand_summaries_in_two_seconds(nats: NatsBroker) -> None:
    await asyncio.gather(*(nats.records.put(RunKey("w", f"r{n}"), b"x" * 1000, 0, '{"n":%d}' % n) for n in range(10_000)))
    begun = time.perf_counter()
    assert len(await nats.records.summaries()) == 10_000
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize("size", [0, 1, 512 * 1024, 3 * 1024 * 1024 + 7])
async def test_blobs_come_back_whole_and_go_with_their_run(broker: Broker, size: int) -> None:
    data = os.urandom(size)
    name = await broker.blobs.put(RUN, data)
    assert await broker.blobs.put(RUN, data) == name
    assert await broker.blobs.get(RUN, name) == data
    await broker.blobs.put(RunKey("w", "r2"), data)
    await broker.blobs.purge(RUN)
    with pytest.raises(Exception, match="gone"):
        await broker.blobs.get(RUN, name)
    assert await broker.blobs.get(RunKey("w", "r2"), name) == data


async def test_a_blob_under_a_name_of_its_own_can_be_dropped(broker: Broker) -> None:
    data = os.urandom(700_000)
    kept, other = await broker.blobs.put(RUN, data), await broker.blobs.put(RUN, data, "call-1")
    twin = await broker.blobs.put(RUN, data, "call-2")
    assert len({kept, other, twin}) == 3 and other.startswith("call-1-") and await broker.blobs.get(RUN, other) == data
    broker.blobs.drop(RUN, other)
    async with asyncio.timeout(5):
        while True:
            try:
                await broker.blobs.get(RUN, other)
            except NoriaError as error:
                assert "gone" in str(error)
                break
    assert await broker.blobs.get(RUN, kept) == await broker.blobs.get(RUN, twin) == data


async def test_a_timer_fires_once_and_not_early_and_is_replaced_by_name(broker: Broker) -> None:
    child, root = ActorKey("w", "r", "a.b"), ActorKey("w", "r")
    await broker.timers.set(child, "sleep", now() + 0.3, b"early")
    due = now() + 1.0
    await broker.timers.set(child, "sleep", due, b"late")
    await broker.timers.set(ActorKey("w", "gone"), "sleep", now() + 0.6, b"never")
    await broker.timers.clear(RunKey("w", "gone"))
    async with asyncio.timeout(5):
        while (found := await broker.commands.last(root)) is None:
            await asyncio.sleep(0.05)
    assert found.body == b"late" and found.time >= due - 0.01
    assert len(await broker.commands.read(root)) == 1
    assert await broker.commands.last(ActorKey("w", "gone")) is None


async def test_timers_of_other_names_and_places_do_not_replace_each_other_and_a_past_one_fires(broker: Broker) -> None:
    await broker.timers.set(ActorKey("w", "r"), "sleep", now() + 0.3, b"1")
    await broker.timers.set(ActorKey("w", "r"), "retry", now() + 0.4, b"2")
    await broker.timers.set(ActorKey("w", "r", "a"), "sleep", now() + 0.5, b"3")
    await broker.timers.set(ActorKey("w", "r", "b"), "sleep", now() - 60, b"4")
    async with asyncio.timeout(6):
        while len(found := await broker.commands.read(ActorKey("w", "r"))) < 4:
            await asyncio.sleep(0.05)
    assert {m.body for m in found} == {b"1", b"2", b"3", b"4"}


async def test_a_timer_is_a_command_like_others(broker: Broker) -> None:
    got: asyncio.Queue[Delivery] = asyncio.Queue()
    receiver = await broker.commands.receive("w", 30, got.put_nowait, lambda: 5)
    await broker.timers.set(ActorKey("w", "r", "a"), "sleep", now() + 0.3, b"timer")
    delivery = await asyncio.wait_for(got.get(), 5)
    assert (delivery.actor, delivery.body, delivery.count) == (ActorKey("w", "r"), b"timer", 1)
    delivery.ack()
    await receiver.close()


async def test_timer_commands_age_like_others(nats: NatsBroker) -> None:
    root = ActorKey("w", "r")
    await nats.timers.set(root, "sleep", now() + 0.3, b"late")
    async with asyncio.timeout(5):
        while await nats.commands.last(root) is None:
            await asyncio.sleep(0.05)
    raw = await last(nats.connection, nats.subjects.runs, nats.subjects.of("in", root))
    assert raw is not None and raw.headers.get("Nats-TTL") != "never"


async def test_a_deleted_record_says_only_that_the_id_is_taken(broker: Broker) -> None:
    first = await broker.records.put(RUN, b'{"a":1}', 0, "{}")
    await broker.records.delete(RUN, 60)
    found = await broker.records.get(RUN)
    assert found is not None and b"deleted" in found.body and found.revision > first
    assert await broker.records.summaries() == []
    with pytest.raises(Refused):
        await broker.records.put(RUN, b"2", 0, "{}")
    with pytest.raises(Refused):
        await broker.records.put(RUN, b"2", first, "{}")
    assert await broker.records.put(RUN, b"2", found.revision, "{}") > found.revision


async def test_summaries_are_the_last_ones_and_by_workflow(broker: Broker) -> None:
    revision = await broker.records.put(RUN, b"1", 0, "old")
    await broker.records.put(RUN, b"2", revision, "new")
    await broker.records.put(RunKey("v", "r"), b"3", 0, "other")
    assert dict(await broker.records.summaries()) == {RUN: "new", RunKey("v", "r"): "other"}
    assert await broker.records.summaries("v") == [(RunKey("v", "r"), "other")]
    assert await broker.records.get(RunKey("w", "none")) is None


async def test_the_catalogue_keeps_the_last_description(broker: Broker) -> None:
    assert await broker.catalogue.get("w") is None
    for body in (b"1", b"2"):
        await broker.catalogue.put("w", body)
    await broker.catalogue.put("v", b"3")
    assert await broker.catalogue.get("w") == b"2" and dict(await broker.catalogue.list()) == {"w": b"2", "v": b"3"}


async def test_news_reach_those_who_listen_to_the_workflow_and_nobody_else(broker: Broker) -> None:
    rests: list[tuple[RunKey, bytes]] = []
    nudges: list[tuple[RunKey, str]] = []
    stop = await broker.news.on_rests("w", lambda run, body: rests.append((run, body)))
    stop_nudges = await broker.news.on_nudge("w", lambda run, sender: nudges.append((run, sender)))
    broker.news.rest(RunKey("v", "r"), "success", b"of another workflow")
    broker.news.rest(RUN, "success", b"1")
    broker.news.nudge(RUN, "me")
    async with asyncio.timeout(5):
        while not (rests and nudges):
            await asyncio.sleep(0.02)
    assert rests == [(RUN, b"1")] and nudges == [(RUN, "me")]
    await stop()
    await stop_nudges()
    broker.news.rest(RUN, "success", b"2")
    await asyncio.sleep(0.2)
    assert len(rests) == 1


async def test_a_trigger_comes_until_it_is_acknowledged(broker: Broker) -> None:
    counts: list[int] = []

    async def on_trigger(trigger: Trigger) -> None:
        counts.append(trigger.count)
        if trigger.count == 1:
            raise RuntimeError("the first time it fails")
        if trigger.count == 2:
            return trigger.hand_back(0.3)
        return trigger.ack()

    receiver = await broker.triggers.receive(on_trigger)
    await broker.triggers.publish("w", b"{}", {})
    async with asyncio.timeout(8):
        while len(counts) < 3:
            await asyncio.sleep(0.02)
    await asyncio.sleep(1.5)
    assert counts == [1, 2, 3]
    await receiver.close()


async def test_a_schedule_is_a_compare_and_set_and_ticks_as_triggers(broker: Broker) -> None:
    ticks: list[Tick | None] = []

    async def on_trigger(trigger: Trigger) -> None:
        assert trigger.body == b"definition"
        ticks.append(trigger.tick)
        trigger.ack()

    receiver = await broker.triggers.receive(on_trigger)
    revision = await broker.schedules.put("w", "s", b"definition", 0, "* * * * * *", "UTC", 10)
    with pytest.raises(Refused):
        await broker.schedules.put("w", "s", b"rival", 0, None)
    async with asyncio.timeout(8):
        while len(ticks) < 2:
            await asyncio.sleep(0.05)
    found = await broker.schedules.get("w", "s")
    assert found is not None and found.ticking and (found.revision, found.body) == (revision, b"definition")
    assert all(tick is not None and (tick.workflow, tick.schedule) == ("w", "s") for tick in ticks)
    assert len({tick.following for tick in ticks if tick is not None}) == len(ticks)
    await broker.schedules.put("w", "s", b"definition", revision, None)
    assert not any(s.ticking for s in await broker.schedules.every("w"))
    await asyncio.sleep(0.5)
    seen = len(ticks)
    await asyncio.sleep(2.2)
    assert len(ticks) == seen
    await broker.schedules.remove("w", "s")
    assert await broker.schedules.every() == []
    past = await broker.schedules.put_past("w", "s", b"1", 0)
    with pytest.raises(Refused):
        await broker.schedules.put_past("w", "s", b"2", 0)
    kept = await broker.schedules.past("w", "s")
    assert kept is not None and (kept.revision, kept.body) == (past, b"1")
    await receiver.close()


async def test_events_on_a_subject_that_no_stream_holds_come_to_one_of_a_group(broker: Broker, outside: Outside) -> None:
    got: list[tuple[str, bytes]] = []

    def into(name: str) -> Callable[[Trigger], Awaitable[None]]:
        async def on_trigger(trigger: Trigger) -> None:
            got.append((name, trigger.body))
            trigger.ack()

        return on_trigger

    receivers = [await broker.triggers.bind("orders.*", None, "group", into("a")) for _ in range(2)]
    receivers.append(await broker.triggers.bind("orders.>", None, "another", into("b")))
    await outside("orders.new", b"1")
    await outside("invoices.new", b"2")
    async with asyncio.timeout(5):
        while len(got) < 2:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    assert sorted(got) == [("a", b"1"), ("b", b"1")]
    for receiver in receivers:
        await receiver.close()


async def test_triggers_are_delivered_until_acknowledged_and_do_not_stall(nats: NatsBroker) -> None:
    got: set[int] = set()
    failed: set[int] = set()

    async def on_trigger(trigger: Trigger) -> None:
        if trigger.sequence % 50 == 0 and trigger.sequence not in failed:
            failed.add(trigger.sequence)
            raise RuntimeError("the first time it fails")
        await asyncio.sleep(0.02)
        got.add(trigger.sequence)
        trigger.ack()

    receiver = await nats.triggers.receive(on_trigger)
    begun = time.perf_counter()
    await asyncio.gather(*(nats.connection.append(nats.subjects.trigger("w"), b"{}") for _ in range(300)))
    async with asyncio.timeout(20):
        while len(got) < 300:
            await asyncio.sleep(0.02)
    assert time.perf_counter() - begun < 4
    await receiver.close()


async def test_the_dead_stay(broker: Broker) -> None:
    for n in range(5):
        await broker.triggers.bury("trigger", "w", b"%d" % n, {"Nats-Msg-Id": "x", "ce-id": "a\r\nb: c"}, "no such\nworkflow")
    first = await broker.triggers.dead(limit=2)
    rest = await broker.triggers.dead(after=first[-1].sequence)
    assert [letter.body for letter in (*first, *rest)] == [b"%d" % n for n in range(5)] and len(first) == 2
    assert first[0].reason == "no such workflow" and first[0].headers == {"nats-msg-id": "x", "ce-id": "a  b: c"}
    assert [letter.body for letter in await broker.triggers.dead(kind="poison")] == []
    assert len(await broker.triggers.dead(kind="trigger", workflow="w")) == 5


async def test_a_trigger_that_is_published_again_under_its_id_is_stored_once(broker: Broker) -> None:
    came: list[bytes] = []

    async def take(trigger: Trigger) -> None:
        came.append(trigger.body)
        trigger.ack()

    for body, id in ((b"1", "a"), (b"2", "a"), (b"3", "b"), (b"4", None), (b"5", None)):
        await broker.triggers.publish("w", body, {}, id)
    receiver = await broker.triggers.receive(take)
    async with asyncio.timeout(5):
        while len(came) < 4:
            await asyncio.sleep(0.01)
    await receiver.close()
    assert sorted(came) == [b"1", b"3", b"4", b"5"]


async def test_a_published_trigger_comes_with_its_headers(broker: Broker) -> None:
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


@pytest.mark.parametrize("status", ["100", "204", "404", "408", "503"])
async def test_no_header_of_a_sender_passes_for_a_word_of_the_server(nats: NatsBroker, status: str) -> None:
    """What NATS says inline (no message, no more messages, nobody there) reads like a header."""
    root, child = ActorKey("w", "r"), ActorKey("w", "r", "a")
    forged = f"Status: {status}\r\nDescription: EOB\r\n".encode()
    for actor in (root, child):
        for n in range(3):
            await nats.connection.append(nats.subjects.of("in", actor), b"%d" % n, None, forged)
    assert [m.body for m in await nats.commands.read(root)] == [b"0", b"1", b"2"] and len(await nats.commands.read_tree(root)) == 6
    found = await nats.commands.last(root)
    assert found is not None and found.body == b"2"


async def test_provision_is_idempotent_among_processes(server_url: str) -> None:
    brokers = [await connect_broker(server_url, "concurrent") for _ in range(8)]
    await asyncio.gather(*(b.provision() for b in brokers))
    assert await brokers[0].topology.plan() == []
    for broker in brokers:
        await broker.close()


async def test_a_letter_that_is_too_large_is_cut_not_lost(nats: NatsBroker) -> None:
    body = b"x" * (nats.connection.client.max_payload - 40)
    await nats.triggers.bury("trigger", "w", body, {"ce-id": "1" * 1000}, "no such workflow")
    (letter,) = await nats.triggers.dead()
    assert letter.cut and body.startswith(letter.body) and letter.reason == "no such workflow"
