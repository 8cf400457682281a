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

import shared
from on_jetstream import Floor
from uvloop import run

from noria import Context, Noria, Workflow, step

STAMPS: list[float] = []


@step
async def noop(x: Any) -> Any:
    return shared.small(0)


@step
async def grow(x: Any) -> Any:
    STAMPS.append(time.perf_counter())
    return shared.large(x["i"] + 1)


@step
async def park(x: Any, ctx: Context) -> Any:
    return x if ctx.resume_data is not None else ctx.suspend()


@step
async def slow(x: int) -> int:
    shared.mark(shared.STEPS_LOG, x)
    await asyncio.sleep(shared.PAUSE6)
    if x == shared.STEPS6 - 1:
        shared.mark(shared.DONE_LOG, x)
    return x + 1


def chain(name: str, unit: Any, steps: int) -> Workflow:
    flow = Workflow(name)
    for n in range(steps):
        flow = flow.then(unit.clone(id=f"s{n}"))
    return flow.commit()


TEN, FIVE, CRASHY = chain("ten", noop, shared.STEPS1), chain("five", noop, shared.STEPS2), chain("crashy", slow, shared.STEPS6)
FAN = Workflow("fan").foreach(noop, concurrency=shared.ITEMS3, placement="local").commit()
SPREAD = Workflow("spread").foreach(noop, concurrency=shared.ITEMS3, placement="spread").commit()
LOOP = Workflow("loop").do_while(grow, lambda x: x["i"] < shared.STEPS4).commit()
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


async def one_at_a_time(noria: Noria) -> None:
    floor, runs, floors = await Floor.on(noria.url), list[float](), list[float]()
    async with noria.worker(TEN):
        for n in range(shared.WARM1 + shared.RUNS1):
            began = time.perf_counter()
            assert (await noria.run(TEN, shared.small(n))).status == "success"
            middle = time.perf_counter()
            await floor.sequence(shared.STEPS1)
            end = time.perf_counter()
            if n >= shared.WARM1:
                runs.append(middle - began)
                floors.append(end - middle)
    raw = shared.latency(floors)["p50_ms"]
    shared.emit("W1", **shared.latency(runs), floor_p50_ms=raw, ratio=shared.latency(runs)["p50_ms"] / raw)
    await floor.client.close()


async def many_at_once(noria: Noria) -> None:
    floor = await Floor.on(noria.url)

    async def one(n: int) -> None:
        assert (await noria.run("five", shared.small(n))).status == "success"

    async def measure() -> float:
        await shared.all_of(shared.WARM1, shared.FLIGHT2, one)
        return shared.RUNS2 * shared.STEPS2 / await shared.all_of(shared.RUNS2, shared.FLIGHT2, one)

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
    shared.emit("W2", steps_per_s=rate, apart_steps_per_s=apart_rate, floor_steps_per_s=raw, ratio=max(rate, apart_rate) / raw)
    await floor.client.close()


async def fan_out(noria: Noria) -> None:
    items, floor = [shared.small(n) for n in range(shared.ITEMS3)], await Floor.on(noria.url)

    async def timed(flow: Workflow) -> float:
        began = time.perf_counter()
        result = await noria.run(flow, items)
        assert result.status == "success" and len(result.result) == shared.ITEMS3
        return time.perf_counter() - began

    async with noria.worker(FAN):
        await noria.run(FAN, items[:100])
        await floor.fan()
        pairs = [(await timed(FAN), await floor.fan()) for _ in range(5)]
        local, raw = (sorted(column)[2] for column in zip(*pairs, strict=True))
    workers = [await asyncio.to_thread(worker, noria.url, "spread") for _ in range(2)]
    try:
        await noria.run("spread", items[:100])
        spread = sorted([await timed(SPREAD) for _ in range(3)])[1]
    finally:
        for each in workers:
            each.terminate()
            each.wait()
    shared.emit("W3", seconds=local, floor_seconds=raw, ratio=local / raw, spread_seconds=spread)
    await floor.client.close()


async def grow_a_run(noria: Noria) -> None:
    async with noria.worker(LOOP):
        await noria.run(LOOP, shared.large(shared.STEPS4 - 50))
        ratios = []
        for _ in range(3):
            STAMPS.clear()
            before = await bytes_of(noria)
            assert (await noria.run(LOOP, shared.large(0))).status == "success"
            ratios.append(shared.growth(STAMPS))
            spent = await bytes_of(noria) - before
    shared.emit("W4", last_to_first=sorted(ratios)[1], bytes_per_step=spent / shared.STEPS4)


async def bytes_of(noria: Noria) -> int:
    subjects, total = noria.broker.subjects, 0
    for stream in (subjects.runs, subjects.blobs, f"KV_{subjects.records}"):
        total += (await noria.broker.connection.api(f"STREAM.INFO.{stream}"))["state"]["bytes"]
    return total


async def park_and_resume(noria: Noria) -> None:
    apart = await asyncio.to_thread(worker, noria.url, "park")
    try:
        warm = noria.create_run("park")
        await warm.start(shared.small(0))
        await warm.resume("x")
        idle, parked, ids = shared.memory_mb(apart.pid), 0, [f"p{n}" for n in range(shared.RUNS5)]
        done = asyncio.Event()

        def rested(*_: Any) -> None:
            nonlocal parked
            parked += 1
            if parked >= shared.RUNS5:
                done.set()

        stop = await noria.broker.news.on_rests("park", rested)

        async def start(n: int) -> None:
            await noria.create_run("park", ids[n]).start_async(shared.small(n))

        async def resume(n: int) -> None:
            assert (await noria.create_run("park", ids[n]).resume("x")).status == "success"

        began = time.perf_counter()
        await shared.all_of(shared.RUNS5, shared.FLIGHT5, start)
        await done.wait()
        park_s = time.perf_counter() - began
        await stop()
        await asyncio.sleep(1)
        memory = shared.memory_mb(apart.pid) - idle
        shared.emit("W5", park_s=park_s, memory_mb=memory, resume_s=await shared.all_of(shared.RUNS5, shared.FLIGHT5, resume))
    finally:
        apart.terminate()
        apart.wait()


async def take_over(noria: Noria) -> None:
    os.environ["BENCH_NATS"] = noria.url
    await noria.broker.provision()
    loop = asyncio.get_running_loop()

    def begin() -> None:
        asyncio.run_coroutine_threadsafe(noria.create_run(CRASHY).start_async(0), loop).result()

    restarted = await asyncio.to_thread(shared.crash, lambda: shared.again("crash-worker"), begin)
    for log in (shared.STEPS_LOG, shared.DONE_LOG):
        log.unlink()
    heir = await asyncio.to_thread(shared.crash, lambda: shared.again("crash-worker"), begin, heir=True)
    shared.emit("W6", **restarted, **{f"heir_{k}": v for k, v in heir.items()})


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
