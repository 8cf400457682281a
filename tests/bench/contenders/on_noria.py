"""Noria. Client and worker in this one process, as with the peers; W5 and the spread part of W3 have workers apart.

W1 and W2 take turns with the raw append in the same process: the ratio is what counts on a noisy machine.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

from on_jetstream import Floor
from shared import (
    DONE_LOG,
    FLIGHT2,
    FLIGHT5,
    ITEMS3,
    PAUSE6,
    RUNS1,
    RUNS2,
    RUNS5,
    STEPS1,
    STEPS2,
    STEPS4,
    STEPS6,
    STEPS_LOG,
    WARM1,
    again,
    crash,
    emit,
    growth,
    large,
    latency,
    mark,
    memory_mb,
    small,
)  # fmt: skip
from uvloop import run

from noria import Context, Noria, Workflow, step

STAMPS: list[float] = []


@step
async def noop(x: Any) -> Any:
    return small(0)


@step
async def grow(x: Any) -> Any:
    STAMPS.append(time.perf_counter())
    return large(x["i"] + 1)


@step
async def park(x: Any, ctx: Context) -> Any:
    return x if ctx.resume_data is not None else ctx.suspend()


@step
async def slow(x: int) -> int:
    mark(STEPS_LOG, x)
    await asyncio.sleep(PAUSE6)
    if x == STEPS6 - 1:
        mark(DONE_LOG, x)
    return x + 1


def chain(name: str, unit: Any, steps: int) -> Workflow:
    flow = Workflow(name)
    for n in range(steps):
        flow = flow.then(unit.clone(id=f"s{n}"))
    return flow.commit()


TEN, FIVE, CRASHY = chain("ten", noop, STEPS1), chain("five", noop, STEPS2), chain("crashy", slow, STEPS6)
FAN = Workflow("fan").foreach(noop, concurrency=ITEMS3, placement="local").commit()
SPREAD = Workflow("spread").foreach(noop, concurrency=ITEMS3, placement="spread").commit()
LOOP = Workflow("loop").do_while(grow, lambda x: x["i"] < STEPS4).commit()
PARK = Workflow("park").then(noop.clone(id="a")).then(park).then(noop.clone(id="b")).commit()
FLOWS = {f.id: f for f in (TEN, FIVE, CRASHY, FAN, SPREAD, LOOP, PARK)}


async def serve(url: str, *names: str) -> None:
    """A worker apart."""
    async with Noria.connect(url) as noria, noria.worker(*(FLOWS[n] for n in names), concurrency=400):
        print("ready", flush=True)
        await asyncio.Event().wait()


def worker(url: str, *names: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, sys.argv[0], "worker", url, *names], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


async def all_of(count: int, flight: int, work: Any) -> float:
    """Seconds for `count` calls of work(n), `flight` at once."""
    limit = asyncio.Semaphore(flight)

    async def one(n: int) -> None:
        async with limit:
            await work(n)

    began = time.perf_counter()
    await asyncio.gather(*(one(n) for n in range(count)))
    return time.perf_counter() - began


async def one_at_a_time(noria: Noria) -> None:
    floor, runs, floors = await Floor.on(noria.url), list[float](), list[float]()
    async with noria.worker(TEN):
        for n in range(WARM1 + RUNS1):
            began = time.perf_counter()
            assert (await noria.run(TEN, small(n))).status == "success"
            middle = time.perf_counter()
            await floor.sequence(STEPS1)
            end = time.perf_counter()
            if n >= WARM1:
                runs.append(middle - began)
                floors.append(end - middle)
    raw = latency(floors)["p50_ms"]
    emit("W1", **latency(runs), floor_p50_ms=raw, ratio=latency(runs)["p50_ms"] / raw)
    await floor.client.close()


async def many_at_once(noria: Noria) -> None:
    floor = await Floor.on(noria.url)

    async def one(n: int) -> None:
        assert (await noria.run("five", small(n))).status == "success"

    async def measure() -> float:
        await all_of(WARM1, FLIGHT2, one)
        return RUNS2 * STEPS2 / await all_of(RUNS2, FLIGHT2, one)

    async with noria.worker(FIVE, concurrency=400):
        await floor.many()
        before, rate, after = await floor.many(), await measure(), await floor.many()
    apart = await asyncio.to_thread(worker, noria.url, "five")
    try:
        apart_rate = await measure()
    finally:
        apart.terminate()
        apart.wait()
    raw = (before + after) / 2
    emit("W2", steps_per_s=rate, apart_steps_per_s=apart_rate, floor_steps_per_s=raw, ratio=max(rate, apart_rate) / raw)
    await floor.client.close()


async def fan_out(noria: Noria) -> None:
    items = [small(n) for n in range(ITEMS3)]

    async def timed(flow: Workflow) -> float:
        began = time.perf_counter()
        result = await noria.run(flow, items)
        assert result.status == "success" and len(result.result) == ITEMS3
        return time.perf_counter() - began

    async with noria.worker(FAN):
        await noria.run(FAN, items[:100])
        local = sorted([await timed(FAN) for _ in range(3)])[1]
    workers = [await asyncio.to_thread(worker, noria.url, "spread") for _ in range(2)]
    try:
        await noria.run("spread", items[:100])
        spread = sorted([await timed(SPREAD) for _ in range(3)])[1]
    finally:
        for each in workers:
            each.terminate()
            each.wait()
    emit("W3", seconds=local, spread_seconds=spread)


async def grow_a_run(noria: Noria) -> None:
    async with noria.worker(LOOP):
        await noria.run(LOOP, large(STEPS4 - 50))
        ratios = []
        for _ in range(3):
            STAMPS.clear()
            before = await bytes_of(noria)
            assert (await noria.run(LOOP, large(0))).status == "success"
            ratios.append(growth(STAMPS))
            spent = await bytes_of(noria) - before
    emit("W4", last_to_first=sorted(ratios)[1], bytes_per_step=spent / STEPS4)


async def bytes_of(noria: Noria) -> int:
    subjects, total = noria.broker.subjects, 0
    for stream in (subjects.runs, subjects.blobs, f"KV_{subjects.records}"):
        total += (await noria.broker.connection.api(f"STREAM.INFO.{stream}"))["state"]["bytes"]
    return total


async def park_and_resume(noria: Noria) -> None:
    apart = await asyncio.to_thread(worker, noria.url, "park")
    try:
        warm = noria.create_run("park")
        await warm.start(small(0))
        await warm.resume("x")
        idle, parked, ids = memory_mb(apart.pid), 0, [f"p{n}" for n in range(RUNS5)]
        done = asyncio.Event()

        def rested(*_: Any) -> None:
            nonlocal parked
            parked += 1
            if parked >= RUNS5:
                done.set()

        stop = await noria.broker.news.on_rests("park", rested)

        async def start(n: int) -> None:
            await noria.create_run("park", ids[n]).start_async(small(n))

        async def resume(n: int) -> None:
            assert (await noria.create_run("park", ids[n]).resume("x")).status == "success"

        began = time.perf_counter()
        await all_of(RUNS5, FLIGHT5, start)
        await done.wait()
        park_s = time.perf_counter() - began
        await stop()
        await asyncio.sleep(1)
        emit("W5", park_s=park_s, memory_mb=memory_mb(apart.pid) - idle, resume_s=await all_of(RUNS5, FLIGHT5, resume))
    finally:
        apart.terminate()
        apart.wait()


async def take_over(noria: Noria) -> None:
    os.environ["BENCH_NATS"] = noria.url
    await noria.broker.provision()
    loop = asyncio.get_running_loop()

    def begin() -> None:
        asyncio.run_coroutine_threadsafe(noria.create_run(CRASHY).start_async(0), loop).result()

    restarted = await asyncio.to_thread(crash, lambda: again("crash-worker"), begin)
    for log in (STEPS_LOG, DONE_LOG):
        log.unlink()
    heir = await asyncio.to_thread(crash, lambda: again("crash-worker"), begin, heir=True)
    emit("W6", **restarted, **{f"heir_{k}": v for k, v in heir.items()})


WORKLOADS = {
    "W1": one_at_a_time, "W2": many_at_once, "W3": fan_out, "W4": grow_a_run, "W5": park_and_resume, "W6": take_over,
}  # fmt: skip


async def main(workload: str, *rest: str) -> None:
    if workload == "worker":
        await serve(*rest)
    elif workload == "crash-worker":
        async with Noria.connect(os.environ["BENCH_NATS"]) as noria:
            await noria.serve(CRASHY)
    else:
        async with Noria.embedded() as noria:
            await WORKLOADS[workload](noria)


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
