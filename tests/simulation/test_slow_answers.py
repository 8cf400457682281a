"""What comes back sooner than the answer to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

from noria import Context, Noria, Retry, Workflow, step
from noria.actor import parcels
from noria.contract import commands
from noria.ports import ActorKey
from noria.testing.loop import Process, VirtualLoop, current_process, run
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server
from noria.testing.wire import Wire

T = TypeVar("T")
LEASE, PAUSE, LATE = 5.0, 60.0, 100.0
KEY = ActorKey("w", "r")


class LateWire(Wire):
    """Answers to `slow` requests come late. The process dies with the next fact that it stores, if it is `mortal`."""

    def __init__(self, slow: str, seconds: float, mortal: bool = True) -> None:
        super().__init__()
        self.slow, self.seconds, self.mortal, self.is_late = slow, seconds, mortal, False

    def request(self, name: str, operation: Callable[[], T]) -> asyncio.Future[T]:
        answer = super().request(name, operation)
        if self.is_late and name == "run append" and self.mortal:
            answer.add_done_callback(lambda _: self.die())
        if name != self.slow:
            return answer
        self.is_late = True
        late: asyncio.Future[T] = self.loop.create_future()
        answer.add_done_callback(lambda done: self.loop.call_later(self.seconds, late.set_result, done.result()))
        return late

    def die(self) -> None:
        assert isinstance(self.loop, VirtualLoop)
        self.loop.kill(current_process())
        self.cut()


async def work(server: Server, flow: Workflow, wire: Callable[[], Wire] = Wire) -> None:
    async with Noria(MemoryBroker(server, "noria", wire())).worker(flow, lease=LEASE):
        await asyncio.Future[None]()


@pytest.mark.parametrize("kind", ["retry", "sleep"])
def test_a_timer_that_is_due_before_the_run_waits_is_not_lost_with_its_host(kind: str) -> None:
    async def body(x: int, ctx: Context) -> int:
        if kind == "retry" and ctx.attempt == 0:
            raise OSError("the first time it fails")
        return x + 1

    flow = Workflow("w").sleep(PAUSE) if kind == "sleep" else Workflow("w")
    flow = flow.then(step(body, id="s", retry=Retry(attempts=1, delay=PAUSE))).commit()

    async def main(loop: VirtualLoop) -> None:
        server, first = Server(), Process("first")
        loop.spawn(first, work(server, flow, lambda: LateWire("timer set", LATE)))
        running = asyncio.ensure_future(Noria(MemoryBroker(server, "noria")).create_run(flow, "r").start(1))
        await asyncio.sleep(LATE + 10)
        assert first.killed
        loop.spawn(Process("second"), work(server, flow))
        result = await asyncio.wait_for(running, 10 * LATE)
        assert (result.status, result.result) == ("success", 2)

    run(main, 0)


def test_a_former_hosts_timer_that_fires_before_the_run_waits_is_not_the_only_one() -> None:
    flow = Workflow("w").sleep(PAUSE).commit()

    async def main(loop: VirtualLoop) -> None:
        server = Server()
        loop.spawn(Process("worker"), work(server, flow, lambda: LateWire("timer set", 3.0, mortal=False)))
        running = asyncio.ensure_future(Noria(MemoryBroker(server, "noria")).create_run(flow, "r").start(1))
        while not server.timers:
            await asyncio.sleep(0.1)
        ((actor, name),), early = server.timers, server.now() + 1
        server.set_timer(actor, name, early, commands.encode(commands.TimerFired("id", early, "", name, early)))
        result = await asyncio.wait_for(running, 2 * PAUSE)
        assert result.status == "success"

    run(main, 0)


def test_a_cancel_that_a_rest_covers_before_anybody_acts_on_it_is_not_lost() -> None:
    async def body(x: int, ctx: Context) -> int:
        await asyncio.sleep(3)
        ctx.suspend({})

    flow = Workflow("w").then(step(body, id="s")).commit()

    async def main(loop: VirtualLoop) -> None:
        server, first = Server(), Process("first")
        client = MemoryBroker(server, "noria")
        loop.spawn(first, work(server, flow, lambda: LateWire("blob get", LEASE)))
        running = asyncio.ensure_future(Noria(client).create_run(flow, "r").start(1))
        await asyncio.sleep(1)
        large = await parcels.pack(client, KEY.tree, commands.encode(commands.Resume("id2", 1.0, [("", "s")], "x" * client.inline_bytes, {})))
        await asyncio.gather(client.commands.send(KEY, commands.encode(commands.Cancel("id1", 1.0))), client.commands.send(KEY, large))
        await asyncio.sleep(LEASE)
        assert first.killed
        loop.spawn(Process("second"), work(server, flow))
        assert (await asyncio.wait_for(running, 10 * LEASE)).status == "canceled"

    run(main, 0)
