"""Laws of ports.Commands."""

from __future__ import annotations

import asyncio
import sys

import pytest

from noria.broker import NatsBroker
from noria.clock import now
from noria.ports import ActorKey, Broker, Delivery, Receiver, Refused, RunKey

ROOT = ActorKey("w", "r")


async def test_expected_makes_a_send_unique(broker: Broker) -> None:
    await broker.commands.send(ROOT, b"1", 0)
    with pytest.raises(Refused):
        await broker.commands.send(ROOT, b"2", 0)
    await broker.commands.send(ROOT, b"3")
    assert [m.body for m in await broker.commands.read(ROOT)] == [b"1", b"3"]


async def test_deliveries_come_back_after_the_lease_until_acknowledged(broker: Broker) -> None:
    queue: asyncio.Queue[Delivery] = asyncio.Queue()
    receiver = await broker.commands.receive("w", 1.5, queue.put_nowait, lambda: 10)
    sequence = await broker.commands.send(ActorKey("w", "r", "a.b=1"), b"go")
    first = await asyncio.wait_for(queue.get(), 5)
    assert (first.actor, first.sequence, first.count, first.body) == (ActorKey("w", "r", "a.b=1"), sequence, 1, b"go")
    for _ in range(10):
        await asyncio.sleep(0.2)
        first.renew()
    assert queue.empty()  # renewed, it is a lease
    second = await asyncio.wait_for(queue.get(), 5)
    assert second.count == 2
    second.hand_back(0.3)
    third = await asyncio.wait_for(queue.get(), 5)
    assert third.count == 3
    third.ack()
    await asyncio.sleep(2)
    assert queue.empty()
    await receiver.close()


async def test_never_more_than_there_is_room_for(broker: Broker) -> None:
    held: list[Delivery] = []
    receiver = await broker.commands.receive("w", 30, held.append, lambda: 3 - len(held))
    for n in range(10):
        await broker.commands.send(ActorKey("w", f"r{n}"), b"go")
    await asyncio.sleep(0.3)
    assert len(held) == 3
    held.pop().ack()
    receiver.top_up()
    async with asyncio.timeout(5):
        while len(held) < 3:
            await asyncio.sleep(0.01)
    await receiver.close()


async def test_a_receiver_survives_a_reconnect_and_the_loss_of_its_consumer(nats: NatsBroker) -> None:
    queue: asyncio.Queue[Delivery] = asyncio.Queue()
    receiver = await nats.commands.receive("w", 5, queue.put_nowait, lambda: 10)
    await nats.connection.client.force_reconnect()
    await nats.commands.send(ROOT, b"1")
    (await asyncio.wait_for(queue.get(), 10)).ack()
    sent, publish = 0, nats.connection.publish

    def counted(*args: object, **options: object) -> None:
        nonlocal sent
        sent += 1
        publish(*args, **options)  # type: ignore[arg-type]

    nats.connection.publish = counted  # type: ignore[method-assign]
    await nats.connection.api(f"CONSUMER.DELETE.{nats.subjects.runs}.w-w")
    await asyncio.sleep(1)
    assert sent < 20  # no storm of pulls while nobody answers
    await nats.commands.send(ActorKey("w", "r2"), b"2")
    async with asyncio.timeout(10):
        while (await queue.get()).body != b"2":
            pass
    await receiver.close()


async def test_hosted_means_a_living_worker(nats: NatsBroker) -> None:
    assert not await nats.commands.hosted("w")
    full = await nats.commands.receive("w", 5, lambda d: None, lambda: 0)
    assert await nats.commands.hosted("w")  # busy is there too
    await full.close()
    assert not await nats.commands.hosted("w")
    code = (
        "import asyncio\nfrom noria.broker import connect_broker\nasync def main():\n"
        f" broker = await connect_broker({nats.url!r}, {nats.namespace!r})\n"
        " await broker.commands.receive('w', 30, lambda d: print('got', flush=True), lambda: 5)\n await asyncio.sleep(60)\nasyncio.run(main())"
    )
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert worker.stdout is not None
    await nats.commands.send(ROOT, b"go")
    assert await asyncio.wait_for(worker.stdout.readline(), 20)
    assert await nats.commands.hosted("w")
    worker.kill()
    await worker.wait()
    async with asyncio.timeout(5):
        while await nats.commands.hosted("w"):  # though a delivery is still in the hands of the dead
            await asyncio.sleep(0.05)


async def test_runs_are_found_by_id(broker: Broker) -> None:
    for key in (ROOT, ActorKey("v", "r"), ActorKey("v", "other"), ActorKey("v", "r", "child")):
        await broker.commands.send(key, b"go")
    assert sorted(await broker.commands.find("r")) == [RunKey("v", "r"), RunKey("w", "r")]
    assert sorted(await broker.commands.started("v")) == [RunKey("v", "other"), RunKey("v", "r")]


async def test_a_compare_and_set_knows_the_last_sequence_whoever_sent_it(broker: Broker) -> None:
    first = await broker.commands.send(ROOT, b"1", 0)
    second = await broker.commands.send(ROOT, b"2")
    with pytest.raises(Refused):
        await broker.commands.send(ROOT, b"3", first)
    third = await broker.commands.send(ROOT, b"3", second)
    last = await broker.commands.last(ROOT)
    assert last is not None and (last.sequence, last.body, last.kind, last.actor) == (third, b"3", "in", ROOT)
    assert await broker.commands.send(ActorKey("w", "r", "child"), b"4", 0) > third  # a chain of its own, one order


async def test_reads_see_every_acknowledged_send_behind_a_sequence(broker: Broker) -> None:
    child = ActorKey("w", "r", "a")
    sequences = [await broker.commands.send(key, b"x") for key in (ROOT, child, ROOT, ActorKey("w", "r2"), child)]
    assert [m.sequence for m in await broker.commands.read(ROOT, sequences[0])] == [sequences[2]]
    assert [m.sequence for m in await broker.commands.read_tree(ROOT)] == [sequences[n] for n in (0, 1, 2, 4)]
    assert [m.sequence for m in await broker.commands.read_tree(child, sequences[1])] == [sequences[4]]


class Hand:
    """Deliveries as they come; one at a time is asked for."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Delivery] = asyncio.Queue()

    async def next(self) -> Delivery:
        return await asyncio.wait_for(self.queue.get(), 8)

    async def nothing_for(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        assert self.queue.empty()


async def receive(broker: Broker, lease: float = 1.0, workflow: str = "w") -> tuple[Hand, Receiver]:
    hand = Hand()
    return hand, await broker.commands.receive(workflow, lease, hand.queue.put_nowait, lambda: 10)


async def test_a_late_acknowledgement_counts_after_the_redelivery_too(broker: Broker) -> None:
    hand, receiver = await receive(broker)
    await broker.commands.send(ROOT, b"go")
    first, second = await hand.next(), await hand.next()
    assert (first.count, second.count, first.sequence) == (1, 2, second.sequence)
    first.ack()
    await hand.nothing_for(2.5)
    await receiver.close()


async def test_a_late_renewal_renews_whoever_holds_it_now(broker: Broker) -> None:
    hand, receiver = await receive(broker, 1.5)
    await broker.commands.send(ROOT, b"go")
    first, second = await hand.next(), await hand.next()
    for _ in range(10):
        await asyncio.sleep(0.2)
        first.renew()
    assert hand.queue.empty()
    second.ack()
    await receiver.close()


async def test_what_is_handed_back_comes_at_once_or_after_its_delay_and_before_new_ones(broker: Broker) -> None:
    hand, receiver = await receive(broker, 30.0)
    await broker.commands.send(ROOT, b"go")
    (await hand.next()).hand_back()
    again = await asyncio.wait_for(hand.queue.get(), 3)
    assert again.count == 2
    begun = now()
    again.hand_back(0.6)
    third = await hand.next()
    assert third.count == 3 and 0.5 <= now() - begun < 3
    third.hand_back()
    third.ack()  # the later word counts, or it came before: either way it ends here
    while not hand.queue.empty():
        hand.queue.get_nowait().ack()
    await broker.commands.send(ActorKey("w", "r2"), b"new")
    found = await hand.next()
    if found.sequence == third.sequence:
        found.ack()
        found = await hand.next()
    assert found.body == b"new" and found.count == 1
    await receiver.close()


async def test_of_several_receivers_each_delivery_goes_to_one(broker: Broker) -> None:
    one, first = await receive(broker, 30.0)
    two, second = await receive(broker, 30.0)
    sequences = {await broker.commands.send(ActorKey("w", f"r{n}"), b"go") for n in range(12)}
    async with asyncio.timeout(8):
        while one.queue.qsize() + two.queue.qsize() < 12:
            await asyncio.sleep(0.02)
    held = [hand.queue.get_nowait() for hand in (one, two) for _ in range(hand.queue.qsize())]
    assert {d.sequence for d in held} == sequences and all(d.count == 1 for d in held)
    for delivery in held:
        delivery.ack()
    await first.close()
    await second.close()


async def test_commands_sent_before_the_first_worker_are_delivered_to_it_and_purged_ones_to_nobody(broker: Broker) -> None:
    await broker.commands.send(ROOT, b"early")
    await broker.commands.send(ActorKey("w", "gone"), b"purged")
    await broker.commands.send(ActorKey("other", "r"), b"of another workflow")
    await broker.log.purge(RunKey("w", "gone"))
    hand, receiver = await receive(broker, 30.0)
    delivery = await hand.next()
    assert delivery.body == b"early" and abs(delivery.time - now()) < 5
    delivery.ack()
    await hand.nothing_for(0.5)
    await receiver.close()


async def test_what_a_closed_receiver_holds_comes_to_another_after_the_lease(broker: Broker) -> None:
    hand, receiver = await receive(broker)
    await broker.commands.send(ROOT, b"go")
    await hand.next()
    await receiver.close()
    other, second = await receive(broker)
    assert (await other.next()).count == 2
    await second.close()


async def test_deliveries_are_handed_back_in_the_name_of_another_and_acknowledged_ones_are_not(broker: Broker) -> None:
    assert (await broker.commands.unacknowledged("w")).pending == 0
    held: asyncio.Queue[Delivery] = asyncio.Queue()
    receiver = await broker.commands.receive("w", 30, held.put_nowait, lambda: 10)
    sequences = [await broker.commands.send(ActorKey("w", f"r{n}"), b"go") for n in range(4)]
    deliveries = [await asyncio.wait_for(held.get(), 5) for _ in range(4)]
    deliveries[1].ack()
    await broker.commands.last(ROOT)  # the acknowledgement was before this answer
    span = await broker.commands.unacknowledged("w")
    assert span.pending == 3
    found = await broker.commands.delivered("w", span)
    assert found == [(ActorKey("w", f"r{n}"), s) for n, s in enumerate(sequences) if s > span.after] and len(found) >= 3
    await broker.commands.hand_back("w", [sequences[1], sequences[2], sequences[3] + 100])
    again = await asyncio.wait_for(held.get(), 5)
    assert (again.sequence, again.count) == (sequences[2], 2)
    await asyncio.sleep(0.2)
    assert held.empty()
    for delivery in (*deliveries, again):
        delivery.ack()
    async with asyncio.timeout(5):
        while (await broker.commands.unacknowledged("w")).pending:
            await asyncio.sleep(0.01)
    await receiver.close()
