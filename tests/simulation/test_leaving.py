"""Workers that are replaced in order, more often than a run may take its worker down."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from noria import Noria, Workflow, step
from noria.testing.loop import Process, VirtualLoop, run
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server

REPLACED = 8


@pytest.mark.parametrize("placement", ["local", "spread"])
@pytest.mark.parametrize("seed", range(3))
def test_long_steps_outlive_eight_deploys_where_they_run(placement: str, seed: int) -> None:
    """The run's host leaves, and so do those of its children; with each deploy its steps begin again."""
    begun, deploys = Counter[int](), [asyncio.Event() for _ in range(REPLACED + 1)]

    async def work(x: int) -> int:
        begun[x] += 1
        if begun[x] <= REPLACED:
            await asyncio.sleep(10_000)
        return x + 1

    flow = Workflow("w").foreach(step(work), concurrency=3, placement=placement).commit()

    async def main(loop: VirtualLoop) -> None:
        server = Server()
        client = Noria(MemoryBroker(server, "noria"))

        async def serve(stop: asyncio.Event) -> None:
            async with Noria(MemoryBroker(server, "noria")).worker(flow, lease=5.0, grace=0.1):
                await stop.wait()

        running = asyncio.ensure_future(client.create_run(flow, "r").start([1, 2, 3]))
        for n, stop in enumerate(deploys):
            loop.spawn(Process(f"worker{n}"), serve(stop))
            await asyncio.sleep(1)
            if n:
                deploys[n - 1].set()
            async with asyncio.timeout(100):
                while sorted(begun.values()) != [n + 1] * 3:
                    await asyncio.sleep(0.1)
        result = await running
        assert (result.status, result.result) == ("success", [2, 3, 4]) and await client.dead.list() == []

    run(main, seed)
    assert begun == {1: REPLACED + 1, 2: REPLACED + 1, 3: REPLACED + 1}
