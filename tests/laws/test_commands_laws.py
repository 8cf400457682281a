"""Laws of ports.Commands."""

from __future__ import annotations

import asyncio
import sys

import pytest

from noria.broker import NatsBroker
from noria.ports import ActorKey, Delivery, Refused, RunKey

ROOT = ActorKey("w", "r")


async def test_expected_makes_a_send_unique(broker: NatsBroker) -> None:
    await broker.commands.send(ROOT, b"1", 0)
    with pytest.raises(Refused):
        await broker.commands.send(ROOT, b"2", 0)
    await broker.commands.send(ROOT, b"3")
    assert [m.body for m in await broker.commands.read(ROOT)] == [b"1", b"3"]


async def test_deliveries_come_back_after_the_lease_until_acknowledged(broker: NatsBroker) -> None:
    queue: asyncio.Queue[Delivery] = asyncio.Queue()
    receiver = await broker.commands.receive("w", 1.0, queue.put_nowait, lambda: 10)
    sequence = await broker.commands.send(ActorKey("w", "r", "a.b=1"), b"go")
    first = await asyncio.wait_for(queue.get(), 5)
    assert (first.actor, first.sequence, first.count, first.body) == (ActorKey("w", "r", "a.b=1"), sequence, 1, b"go")
    for _ in range(4):
        await asyncio.sleep(0.5)
        first.renew()
    assert queue.empty()  # renewed, it is a lease
    second = await asyncio.wait_for(queue.get(), 5)
    assert second.count == 2
    second.hand_back(0.3)
    third = await asyncio.wait_for(queue.get(), 5)
    assert third.count == 3
    third.ack()
    await asyncio.sleep(1.5)
    assert queue.empty()
    await receiver.close()


async def test_never_more_than_there_is_room_for(broker: NatsBroker) -> None:
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


async def test_a_receiver_survives_a_reconnect_and_the_loss_of_its_consumer(broker: NatsBroker) -> None:
    queue: asyncio.Queue[Delivery] = asyncio.Queue()
    receiver = await broker.commands.receive("w", 5, queue.put_nowait, lambda: 10)
    await broker.connection.client.force_reconnect()
    await broker.commands.send(ROOT, b"1")
    (await asyncio.wait_for(queue.get(), 10)).ack()
    sent, publish = 0, broker.connection.publish

    def counted(*args: object, **options: object) -> None:
        nonlocal sent
        sent += 1
        publish(*args, **options)  # type: ignore[arg-type]

    broker.connection.publish = counted  # type: ignore[method-assign]
    await broker.connection.api(f"CONSUMER.DELETE.{broker.subjects.runs}.w-w")
    await asyncio.sleep(1)
    assert sent < 20  # no storm of pulls while nobody answers
    await broker.commands.send(ActorKey("w", "r2"), b"2")
    async with asyncio.timeout(10):
        while (await queue.get()).body != b"2":
            pass
    await receiver.close()


async def test_hosted_means_a_living_worker(broker: NatsBroker) -> None:
    assert not await broker.commands.hosted("w")
    full = await broker.commands.receive("w", 5, lambda d: None, lambda: 0)
    assert await broker.commands.hosted("w")  # busy is there too
    await full.close()
    assert not await broker.commands.hosted("w")
    code = (
        "import asyncio\nfrom noria.broker import connect_broker\nasync def main():\n"
        f" broker = await connect_broker({broker.url!r}, {broker.namespace!r})\n"
        " await broker.commands.receive('w', 30, lambda d: print('got', flush=True), lambda: 5)\n await asyncio.sleep(60)\nasyncio.run(main())"
    )
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert worker.stdout is not None
    await broker.commands.send(ROOT, b"go")
    assert await asyncio.wait_for(worker.stdout.readline(), 20)
    assert await broker.commands.hosted("w")
    worker.kill()
    await worker.wait()
    async with asyncio.timeout(5):
        while await broker.commands.hosted("w"):  # though a delivery is still in the hands of the dead
            await asyncio.sleep(0.05)


async def test_runs_are_found_by_id(broker: NatsBroker) -> None:
    for key in (ROOT, ActorKey("v", "r"), ActorKey("v", "other"), ActorKey("v", "r", "child")):
        await broker.commands.send(key, b"go")
    assert sorted(await broker.commands.find("r")) == [RunKey("v", "r"), RunKey("w", "r")]
    assert sorted(await broker.commands.started("v")) == [RunKey("v", "other"), RunKey("v", "r")]
