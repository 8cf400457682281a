"""Runs that are active for longer than their facts are kept."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from noria import Context, Noria, Step, Workflow, step
from noria.errors import ValueUnavailable
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


@pytest.mark.parametrize("days", [6, 8])
def test_a_record_that_is_unreadable_is_made_anew_only_while_the_log_tells_everything(days: int) -> None:
    """Behind it some facts may have aged out: what they tell of would be done again."""
    done = Counter[str]()

    async def charge(x: int) -> int:
        done["charge"] += 1
        return x

    async def ask(x: int, ctx: Context) -> int:
        if ctx.resume_data is None:
            ctx.suspend({})
        return x + ctx.resume_data

    flow = Workflow("w").then(step(charge)).then(step(ask)).commit()

    async def main(loop: VirtualLoop) -> None:
        server = Server()
        noria = Noria(MemoryBroker(server, "noria"))
        handle = noria.create_run(flow, KEY.run)

        async def work() -> None:
            async with Noria(MemoryBroker(server, "noria")).worker(flow, lease=LEASE):
                await asyncio.Future[None]()

        first = Process("first")
        loop.spawn(first, work())
        assert (await handle.start(1)).status == "suspended"
        await asyncio.sleep(1)
        loop.kill(first)
        await asyncio.sleep(days * 86400)
        stored = await noria.broker.records.get(KEY)
        assert stored is not None
        await noria.broker.records.put(KEY, b"garbled", stored.revision, "{}")
        loop.spawn(Process("second"), work())
        if days < 7:
            assert (await handle.resume(1)).result == 2
        else:
            for call in (handle.get, handle.result, lambda: handle.resume(1)):
                with pytest.raises(ValueUnavailable, match="unreadable"):
                    await call()
            await handle.send_restart()
            await asyncio.sleep(600)
            await noria.runs.delete(KEY.run, flow, force=True)
            assert await handle.get() is None
        assert done == {"charge": 1}

    run(main, 0)
