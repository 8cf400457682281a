"""Laws of ports.Log and of the connection under it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from noria.broker import NatsBroker, connect_broker
from noria.clock import now
from noria.embedded import start_server
from noria.errors import BrokerUnavailable, NoriaError
from noria.ports import ActorKey, Broker, Known, Refused, RunKey, Stored

ROOT = ActorKey("w", "r")


async def test_append_is_a_compare_and_set(broker: Broker) -> None:
    first = await broker.log.append(ROOT, b"1", 0)
    for stale in (0, first + 5):
        with pytest.raises(Refused):
            await broker.log.append(ROOT, b"2", stale)
    assert [m.body for m in await broker.log.read(ROOT)] == [b"1"]


async def test_of_rivals_one_wins(broker: Broker) -> None:
    found = await asyncio.gather(*(broker.log.append(ROOT, b"%d" % n, 0) for n in range(20)), return_exceptions=True)
    assert sum(isinstance(f, int) for f in found) == 1
    assert sum(isinstance(f, Refused) for f in found) == 19


async def test_what_is_confirmed_is_all_that_was_acknowledged(broker: Broker) -> None:
    if isinstance(broker, NatsBroker):
        broker.connection.replicated = True  # ask, as if there were replicas that may lag behind
    assert await broker.log.confirm(ROOT, 0, 0)
    command = await broker.commands.send(ROOT, b"c")
    fact = await broker.log.append(ROOT, b"f", 0)
    assert await broker.log.confirm(ROOT, fact, command)
    assert not await broker.log.confirm(ROOT, 0, command) and not await broker.log.confirm(ROOT, fact, 0)
    await broker.log.append(ActorKey("w", "r", "a"), b"of a child", 0)
    assert await broker.log.confirm(ROOT, fact, command)


async def test_a_delivery_knows_which_command_the_server_saw_before_it(broker: Broker) -> None:
    came: dict[str, int | None] = {}
    receiver = await broker.commands.receive("w", 5, lambda d: came.setdefault(d.body.decode(), d.after) and None, lambda: 10)
    first = await broker.commands.send(ROOT, b"start", 0)
    await broker.commands.send(ROOT, b"next", first)
    await broker.commands.send(ROOT, b"unasked")
    async with asyncio.timeout(5):
        while len(came) < 3:
            await asyncio.sleep(0.01)
    await receiver.close()
    assert came == {"start": 0, "next": first, "unasked": None}


async def test_what_a_reader_of_commands_knows_changes_nothing(broker: Broker) -> None:
    """Commands that name no predecessor, as timers, behind one, two and three that were read before."""
    sent = [await broker.commands.send(ROOT, b"start", 0)]
    await broker.commands.send(ActorKey("w", "r", "a"), b"to another", 0)
    for n in range(5):
        sent.append(await broker.commands.send(ROOT, b"%d" % n))
        for count in range(1, len(sent) + 1):
            known = Known(sent[0], count)
            assert [e.sequence for e in await broker.commands.read(ROOT, sent[count - 1], known)] == sent[count:]
    aged_out = Known(sent[0] - 1, 5)  # the first one that is known is there no more
    assert [e.sequence for e in await broker.commands.read(ROOT, sent[2], aged_out)] == sent[3:]


async def test_an_append_completes_though_nobody_awaits_it(broker: Broker) -> None:
    broker.log.append(ROOT, b"1", 0)
    last = None
    async with asyncio.timeout(5):
        while last is None:
            last = await broker.log.last(ROOT)
    assert last.body == b"1"


async def test_who_no_longer_awaits_an_append_is_told_how_it_ended(broker: Broker) -> None:
    ended = list[int | None]()
    for body in (b"1", b"2"):  # the second one is refused
        told = asyncio.Event()
        broker.log.append(ROOT, body, 0, lambda sequence, told=told: (ended.append(sequence), told.set())).cancel()
        await asyncio.wait_for(told.wait(), 10)
    assert ended == [(await broker.log.read(ROOT))[0].sequence, None]


async def test_trees_are_read_in_one_order(broker: Broker) -> None:
    keys = [ROOT, ActorKey("w", "r", "a"), ActorKey("w", "r", "a.b=3"), ActorKey("w", "r2")]
    sequences = [await broker.log.append(k, b"x", 0) for k in keys]
    tree = await broker.log.read_tree(ROOT)
    assert [m.actor for m in tree] == keys[:3] and [m.sequence for m in tree] == sequences[:3]
    assert [m.actor for m in await broker.log.read_tree(keys[1])] == keys[1:3]
    assert [m.sequence for m in await broker.log.read_tree(ROOT, sequences[0])] == sequences[1:3]


async def test_long_logs_are_read_whole(broker: Broker) -> None:
    """More than a batch, and more than the 64 MiB at which the server ends one."""
    last = 0
    for n in range(2100):
        last = await broker.log.append(ROOT, b"%d" % n, last)
    assert [int(m.body) for m in await broker.log.read(ROOT)] == list(range(2100))
    big, last = ActorKey("w", "big"), 0
    for _ in range(560):
        last = await broker.log.append(big, b"x" * (128 * 1024), last)
    assert len(await broker.log.read(big)) == 560
    assert len(await broker.log.read_tree(big)) == 560


async def test_chains_are_apart_and_facts_are_no_commands(broker: Broker) -> None:
    await broker.commands.send(ROOT, b"command", 0)
    first = await broker.log.append(ROOT, b"1", 0)
    child = await broker.log.append(ActorKey("w", "r", "a"), b"2", 0)
    second = await broker.log.append(ROOT, b"3", first)
    assert first < child < second
    last = await broker.log.last(ROOT)
    assert last is not None and (last.sequence, last.kind, last.actor, last.body) == (second, "run", ROOT, b"3")
    assert abs(last.time - now()) < 5 and await broker.log.last(ActorKey("w", "none")) is None
    assert [m.sequence for m in await broker.log.read(ROOT, first)] == [second]


async def test_a_purged_run_begins_at_zero_and_spares_the_others(broker: Broker) -> None:
    other = await broker.log.append(ActorKey("w", "r2"), b"other", 0)
    await broker.log.append(ROOT, b"1", 0)
    await broker.log.append(ActorKey("w", "r", "a"), b"2", 0)
    await broker.commands.send(ROOT, b"command", 0)
    await broker.log.purge(RunKey("w", "r"))
    assert await broker.log.read_tree(ROOT) == [] and await broker.commands.read_tree(ROOT) == []
    with pytest.raises(Refused):
        await broker.log.append(ROOT, b"3", 1)
    assert await broker.log.append(ROOT, b"3", 0) > other
    assert [m.sequence for m in await broker.log.read_tree(ActorKey("w", "r2"))] == [other]


async def test_follow_gives_everything_of_a_run_in_order_each_once(broker: Broker) -> None:
    start = await broker.commands.send(ROOT, b"start", 0)
    got: list[Stored] = []

    async def watch(after: int) -> None:
        follow = broker.log.follow(RunKey("w", "r"), after)
        async for entry in follow:
            got.append(entry)
            if len(got) == 4:
                break
        await follow.aclose()

    task = asyncio.create_task(watch(start))
    await asyncio.sleep(0.2)
    first = await broker.log.append(ROOT, b"1", 0)
    await broker.log.append(ActorKey("w", "r2"), b"another run", 0)
    broker.log.publish_live(ActorKey("w", "r", "a"), b"live")
    second = await broker.log.append(ActorKey("w", "r", "a"), b"2", 0)
    await broker.commands.send(ROOT, b"resume")
    await asyncio.wait_for(task, 8)
    assert [(e.kind, e.body) for e in got] == [("run", b"1"), ("live", b"live"), ("run", b"2"), ("in", b"resume")]
    assert [got[0].sequence, got[2].sequence] == [first, second] and got[2].actor.path == "a"
    assert [e.body for e in await broker.log.read_live(RunKey("w", "r"))] == [b"live"]


async def test_a_body_above_the_limit_is_refused_and_hurts_nobody(nats: NatsBroker) -> None:
    limit = nats.connection.client.max_payload
    with pytest.raises(NoriaError, match=str(limit)):
        await nats.log.append(ROOT, b"x" * limit, 0)
    nats.log.publish_live(ROOT, b"x" * (limit + 1))  # dropped: sent, it would cost the connection
    assert await nats.log.append(ROOT, b"1", 0) > 0


async def test_follow_has_no_gap_across_reconnects(nats: NatsBroker) -> None:
    wanted, got = 400, list[int]()

    async def watch() -> None:
        follow = nats.log.follow(RunKey("w", "r"))
        async for entry in follow:
            got.append(entry.sequence)
            if len(got) == wanted:
                break
        await follow.aclose()

    other = await connect_broker(nats.url, nats.namespace)
    task, sent, last = asyncio.create_task(watch()), list[int](), 0
    for n in range(wanted):
        last = await other.log.append(ROOT, b"%d" % n, last)
        sent.append(last)
        if n % 100 == 50:
            await nats.connection.client.force_reconnect()
    await asyncio.wait_for(task, 30)
    assert got == sent
    await other.close()


async def test_follow_removes_its_consumer(nats: NatsBroker) -> None:
    await nats.log.append(ROOT, b"1", 0)
    follow = nats.log.follow(RunKey("w", "r"))
    assert (await anext(follow)).body == b"1"
    await follow.aclose()
    async with asyncio.timeout(5):
        while (await nats.connection.api(f"CONSUMER.NAMES.{nats.subjects.runs}"))["total"]:
            pass


async def freeze(pid: int) -> None:
    """Stop a process, and wait until it is: on a busy machine it goes on for a while."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        await asyncio.sleep(0.001)


async def test_appends_outlive_the_death_of_the_server(tmp_path: os.PathLike[str]) -> None:
    server = await start_server(tmp_path)
    port = int(server.url.rpartition(":")[2])
    broker = await connect_broker(server.url, "deaths")
    await broker.provision()
    first = await broker.log.append(ROOT, b"1", 0)
    os.kill(server.pid, signal.SIGKILL)
    await asyncio.to_thread(server.process.wait, 10)
    under_way = broker.log.append(ROOT, b"2", first)
    server = await start_server(tmp_path, port)
    await asyncio.wait_for(under_way, 25)
    assert [m.body for m in await broker.log.read(ROOT)] == [b"1", b"2"]
    await broker.close()
    await server.stop()


async def test_a_retry_after_a_lost_answer_stores_once() -> None:
    server = await start_server()
    broker = await connect_broker(server.url, "frozen")
    await broker.provision()
    await freeze(server.pid)
    under_way = broker.log.append(ROOT, b"1", 0)
    await asyncio.sleep(3.8)  # past the answer time: the append is sent a second time
    os.kill(server.pid, signal.SIGCONT)
    sequence = await asyncio.wait_for(under_way, 10)
    assert [m.sequence for m in await broker.log.read(ROOT)] == [sequence]
    await broker.close()
    await server.stop()


async def test_closing_completes_what_is_under_way() -> None:
    server = await start_server()
    broker = await connect_broker(server.url, "closing")
    await broker.provision()
    await freeze(server.pid)
    under_way = broker.log.append(ROOT, b"1", 0)
    await asyncio.sleep(0.05)
    await broker.close()
    os.kill(server.pid, signal.SIGCONT)
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(under_way, 2)
    await server.stop()
