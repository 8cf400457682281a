"""DBOS on a SQLite system database, its default: an fsync at every commit."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import shared
from dbos import DBOS

STORE = shared.FOLDER / "dbos.sqlite"
STAMPS: list[float] = []
parked = 0
DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{STORE}", "log_level": "ERROR", "application_version": "1"})


@DBOS.step()
async def noop(i: int) -> dict:
    return shared.small(i)


@DBOS.step()
async def grown(i: int) -> dict:
    return shared.large(i)


@DBOS.step()
async def slow(i: int) -> dict:
    shared.mark(shared.STEPS_LOG, i)
    await asyncio.sleep(shared.PAUSE6)
    return shared.small(i)


@DBOS.workflow()
async def sequence(steps: int) -> None:
    for i in range(steps):
        await noop(i)


@DBOS.workflow()
async def fan(items: int) -> int:
    return len(await asyncio.gather(*(noop(i) for i in range(items))))


@DBOS.workflow()
async def grow(steps: int) -> None:
    STAMPS.append(time.perf_counter())
    for i in range(steps):
        await grown(i)
        STAMPS.append(time.perf_counter())


@DBOS.workflow()
async def park() -> None:
    global parked
    await noop(0)
    parked += 1
    await DBOS.recv_async("go", timeout_seconds=3600)
    await noop(1)


@DBOS.workflow()
async def crashy() -> None:
    for i in range(shared.STEPS6):
        await slow(i)
    shared.mark(shared.DONE_LOG, 0)


async def main(workload: str) -> None:
    DBOS.launch()
    if workload == "crash-worker":
        if not shared.marks(shared.STEPS_LOG):
            await DBOS.start_workflow_async(crashy)
        await asyncio.sleep(300)
    for _ in range(shared.WARM1):
        await sequence(shared.STEPS1)
    match workload:
        case "W1":
            spent = []
            for _ in range(shared.RUNS1):
                began = time.perf_counter()
                await sequence(shared.STEPS1)
                spent.append(time.perf_counter() - began)
            shared.emit("W1", **shared.latency(spent))
        case "W2":
            limit = asyncio.Semaphore(shared.FLIGHT2)

            async def one() -> None:
                async with limit:
                    await (await DBOS.start_workflow_async(sequence, shared.STEPS2)).get_result()

            began = time.perf_counter()
            await asyncio.gather(*(one() for _ in range(shared.RUNS2)))
            shared.emit("W2", steps_per_s=shared.RUNS2 * shared.STEPS2 / (time.perf_counter() - began))
        case "W3":
            began = time.perf_counter()
            await fan(shared.ITEMS3)
            shared.emit("W3", seconds=time.perf_counter() - began)
        case "W4":
            before = shared.stored_bytes(STORE)
            await grow(shared.STEPS4)
            shared.emit("W4", last_to_first=shared.growth(STAMPS), bytes_per_step=(shared.stored_bytes(STORE) - before) / shared.STEPS4)
        case "W5":
            idle, began = shared.memory_mb(os.getpid()), time.perf_counter()
            handles = [await DBOS.start_workflow_async(park) for _ in range(shared.RUNS5)]
            while parked < shared.RUNS5:
                await asyncio.sleep(0.02)
            park_s, memory = time.perf_counter() - began, shared.memory_mb(os.getpid()) - idle
            began = time.perf_counter()
            for handle in handles:
                await DBOS.send_async(handle.get_workflow_id(), "x", "go")
            await asyncio.gather(*(handle.get_result() for handle in handles))
            shared.emit("W5", park_s=park_s, memory_mb=memory, resume_s=time.perf_counter() - began)
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "W6":
        shared.emit("W6", **shared.crash(lambda: shared.again("crash-worker")))
    else:
        asyncio.run(main(sys.argv[1]))
