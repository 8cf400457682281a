"""Runs that are active for longer than their facts are kept."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from noria import Context, Noria, Step, Workflow, step
from noria.limits import RECORD_EVERY_SECONDS
from noria.ports import RunKey
from noria.testing.loop import Process, VirtualLoop, run
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server
from noria.testing.wire import Wire

LEASE = 60.0
KEY = RunKey("w", "r")
KEPT_SECONDS = 2.5 * RECORD_EVERY_SECONDS
WORK_SECONDS = 4 * RECORD_EVERY_SECONDS


@pytest.mark.parametrize("rivals", [False, True], ids=["alone", "others write the record too"])
def test_what_a_run_recorded_outlives_its_log_though_its_host_dies(rivals: bool) -> None:
    executions = Counter[str]()

    def counted(name: str, seconds: float) -> Step:
        async def body(x: int, ctx: Context) -> int:
            executions[name] += 1
            await asyncio.sleep(seconds)
            return x + 1

        return step(body, id=name)

    flow = Workflow("w").then(counted("first", 1.0)).then(counted("long", WORK_SECONDS)).commit()

    async def main(loop: VirtualLoop) -> None:
        server = Server(log_seconds=KEPT_SECONDS)
        wires = list[Wire]()

        async def work() -> None:
            wires.append(Wire())
            async with Noria(MemoryBroker(server, "noria", wires[-1])).worker(flow, lease=LEASE):
                await asyncio.Future[None]()

        first = Process("first")
        loop.spawn(first, work())
        broker = MemoryBroker(server, "noria")
        handle = Noria(broker).create_run(flow, KEY.run)
        running = asyncio.ensure_future(handle.start(1))
        await asyncio.sleep(60)
        if rivals:  # a worker that could not host it said so in the record
            stored = await broker.records.get(KEY)
            assert stored is not None
            await broker.records.put(KEY, stored.body, stored.revision, "{}")
        await asyncio.sleep(WORK_SECONDS - 120)
        loop.kill(first)
        wires[0].cut()
        loop.spawn(Process("second"), work())
        result = await running
        assert (result.status, result.result) == ("success", 3)

    run(main, 0)
    assert executions == {"first": 1, "long": 2}
