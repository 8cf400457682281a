"""A nested workflow that is tried again after hours, wherever what it is nested in lives."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Literal

import pytest

from noria import Noria, Retry, Workflow, step
from noria.testing.loop import Process, VirtualLoop, run
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server

LEASE, HOUR = 5.0, 3600.0


async def serve(server: Server, flow: Workflow) -> None:
    async with Noria(MemoryBroker(server, "noria")).worker(flow, lease=LEASE):
        await asyncio.Future[None]()


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("placement", ["local", "spread"])
@pytest.mark.parametrize("dies", [False, True], ids=["", "its host dies meanwhile"])
def test_a_retry_after_hours(depth: int, placement: Literal["local", "spread"], dies: bool) -> None:
    tries = Counter[int]()

    async def moody(x: int) -> int:
        tries[x] += 1
        if tries[x] == 1:
            raise OSError("the first time it fails")
        return x

    item = Workflow("item0", retry=Retry(attempts=1, delay=HOUR)).then(Workflow("inner").then(step(moody, retry=Retry())))
    for n in range(depth):
        item = Workflow(f"item{n + 1}").foreach(item, concurrency=3, placement=placement)
    flow = item.commit()

    async def main(loop: VirtualLoop) -> None:
        server, first = Server(), Process("first")
        loop.spawn(first, serve(server, flow))
        given = [1, 2, 3] if depth == 1 else [[1, 2], [3]]
        running = asyncio.ensure_future(Noria(MemoryBroker(server, "noria")).create_run(flow, "r").start(given))
        await asyncio.sleep(HOUR / 2)
        if dies:
            loop.kill(first)
            loop.spawn(Process("second"), serve(server, flow))
        result = await asyncio.wait_for(running, HOUR)
        assert (result.status, result.result) == ("success", given) and tries == {1: 2, 2: 2, 3: 2}

    run(main, 0)
