"""Hosts that stood still for longer than their lease, and what they find in hand when they wake."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from noria import Context, Noria, Workflow, step
from noria.ports import Stored
from noria.testing.loop import Process, VirtualLoop, current_process, run
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server

LEASE, STEP_SECONDS, RUNS = 5.0, 3.0, 6


async def serve(server: Server, flow: Workflow) -> None:
    async with Noria(MemoryBroker(server, "noria")).worker(flow, lease=LEASE):
        await asyncio.Future[None]()


@pytest.mark.parametrize("slept", [6.0, 8.5, 11.0, 13.5, 16.0, 18.5])
@pytest.mark.parametrize("seed", range(3))
def test_what_came_while_a_host_slept_is_anothers(slept: float, seed: int) -> None:
    """Its standing pull got commands whose leases ran out before it could read them: their runs go on where they are."""
    calls = Counter[str]()

    async def work(x: int, ctx: Context) -> int:
        calls[ctx.idempotency_key] += 1
        await asyncio.sleep(STEP_SECONDS)
        return x + 1

    flow = Workflow("w")
    for n in range(4):
        flow = flow.then(step(work, id=f"s{n}"))
    flow.commit()

    async def main(loop: VirtualLoop) -> None:
        server, sleeper = Server(), Process("first")
        for process in (sleeper, Process("second")):
            loop.spawn(process, serve(server, flow))
        await asyncio.sleep(1)
        sleeper.frozen = True
        client = Noria(MemoryBroker(server, "noria"))
        running = [asyncio.ensure_future(client.create_run(flow, f"r{n}").start(0)) for n in range(RUNS)]
        await asyncio.sleep(slept)
        sleeper.frozen = False
        results = await asyncio.wait_for(asyncio.gather(*running), 1000)
        assert [(r.status, r.result) for r in results] == [("success", 4)] * RUNS

    run(main, seed)
    assert [key for key, times in calls.items() if times > 1] == [], "nothing was in flight when it fell asleep"


def test_a_host_that_slept_for_longer_than_facts_are_kept_writes_nothing() -> None:
    """It expects an empty chain, and finds one again: what its successor recorded aged out."""
    doing, stored = list[Process](), list[Stored]()

    async def work(x: int) -> int:
        doing.append(current_process())
        await asyncio.sleep(STEP_SECONDS)
        return x + 1

    flow = Workflow("w").then(step(work)).parallel([step(work, id="a"), step(work, id="b")]).commit()

    async def main(loop: VirtualLoop) -> None:
        server = Server(log_seconds=100.0)
        client = Noria(MemoryBroker(server, "noria"))
        loop.spawn(Process("first"), serve(server, flow))
        await client.create_run(flow, "r").start_async(0)
        while not doing:
            await asyncio.sleep(0.1)
        doing[0].frozen = True
        loop.spawn(Process("second"), serve(server, flow))
        result = await client.create_run(flow, "r").result()
        await asyncio.sleep(200)
        server.watchers.append(lambda entry: stored.append(entry) if entry.kind == "run" else None)
        doing[0].frozen = False
        await asyncio.sleep(100)
        assert (result.status, result.result) == ("success", {"a": 2, "b": 2}) and len(doing) == 4
        record = await client.create_run(flow, "r").get()
        assert record is not None and record.status == "success"

    run(main, 0)
    assert stored == []
