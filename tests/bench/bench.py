"""Speed of Noria against the raw JetStream append, interleaved in the same run.

python tests/bench/bench.py [serial many fanout loop] [--json] [--smoke]

serial: a 10-step no-op run, one at a time, per step, against an awaited `js.publish` of the same size.
many:   2,000 runs x 5 steps, 200 in flight, the worker in a process of its own; durable steps per second, and their ratio
        to raw appends.
fanout: foreach of 1,000 no-op items, concurrency 100, in place.
loop:   a 1,000-step loop: the last 100 steps against the first 100.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import nats
from rich.console import Console
from rich.table import Table

from noria import Noria, Workflow, step

BODY = {"text": "x" * 80, "n": 1}
# gross regressions only: double of what the issues ask for
BOUNDS = {"serial": 5.0, "many": 1 / 6, "fanout": 1.0, "loop": 2.6}


@step
async def noop(x: Any) -> Any:
    return x


@step
async def count(x: int) -> int:
    STAMPS.append(time.perf_counter())
    return x + 1


STAMPS: list[float] = []


def chain(name: str, steps: int) -> Workflow:
    flow = Workflow(name)
    for n in range(steps):
        flow = flow.then(noop.clone(id=f"s{n}"))
    return flow.commit()


TEN, FIVE = chain("ten", 10), chain("five", 5)
FANOUT = Workflow("fanout").foreach(noop, concurrency=100, placement="local").commit()
LOOP = Workflow("loop").do_while(count, lambda n: n < 1000).commit()


async def serial(noria: Noria, rounds: int = 150) -> dict[str, float]:
    """Per step, and the ratio to a raw append; the two take turns."""
    client = await nats.connect(noria.url)
    stream = client.jetstream()
    await stream.add_stream(name="FLOOR", subjects=["floor.>"])
    body, runs, floors = json.dumps({"pad": "y" * 500, **BODY}).encode(), [], []
    async with noria.worker(TEN):
        for n in range(rounds + 20):
            at = time.perf_counter()
            await noria.run(TEN, BODY)
            middle = time.perf_counter()
            for _ in range(10):
                await stream.publish(f"floor.{n}", body)
            end = time.perf_counter()
            if n >= 20:
                runs.append((middle - at) / 10 * 1e3)
                floors.append((end - middle) / 10 * 1e3)
    await client.close()
    run, floor = statistics.median(runs), statistics.median(floors)
    return {"step_ms": run, "floor_ms": floor, "ratio": run / floor}


async def many(noria: Noria, runs: int = 2000) -> dict[str, float]:
    """Durable steps per second with the worker in another process, and raw appends per second, as many in flight."""
    floor = await flood(noria.url)
    worker = subprocess.Popen([sys.executable, __file__, "--worker", noria.url, noria.namespace], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    await asyncio.to_thread(worker.stdout.readline)
    try:
        for _ in range(20):
            await noria.run("five", BODY)
        limit = asyncio.Semaphore(200)

        async def one() -> None:
            async with limit:
                result = await noria.run("five", BODY)
                assert result.status == "success"

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(runs)))
        spent = time.perf_counter() - began
    finally:
        worker.terminate()
        worker.wait()
    return {"steps_per_s": runs * 5 / spent, "floor_per_s": floor, "ratio": runs * 5 / spent / floor}


async def flood(url: str, messages: int = 5000) -> float:
    """Raw `js.publish` per second, 200 in flight."""
    client = await nats.connect(url)
    stream = client.jetstream()
    await stream.add_stream(name="FLOOD", subjects=["flood.>"])
    body, limit = json.dumps({"pad": "y" * 500, **BODY}).encode(), asyncio.Semaphore(200)

    async def one(n: int) -> None:
        async with limit:
            await stream.publish(f"flood.{n % 500}", body)

    began = time.perf_counter()
    await asyncio.gather(*(one(n) for n in range(messages)))
    spent = time.perf_counter() - began
    await client.close()
    return messages / spent


async def fanout(noria: Noria) -> dict[str, float]:
    """Wall time of the foreach."""
    async with noria.worker(FANOUT):
        await noria.run(FANOUT, [BODY] * 100)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            result = await noria.run(FANOUT, [{"n": n} for n in range(1000)])
            times.append(time.perf_counter() - began)
            assert result.status == "success" and len(result.result) == 1000
    return {"seconds": statistics.median(times)}


async def loop(noria: Noria) -> dict[str, float]:
    """How the cost of a step grows with history."""
    ratios = []
    async with noria.worker(LOOP):
        for _ in range(5):
            STAMPS.clear()
            result = await noria.run(LOOP, 0)
            assert result.result == 1000
            ratios.append((STAMPS[-1] - STAMPS[-101]) / (STAMPS[100] - STAMPS[0]))
    return {"last_to_first": statistics.median(ratios)}


WORKLOADS = {"serial": (serial, "ratio"), "many": (many, "ratio"), "fanout": (fanout, "seconds"), "loop": (loop, "last_to_first")}


async def serve(url: str, namespace: str) -> None:
    async with Noria.connect(url, namespace=namespace) as noria, noria.worker(TEN, FIVE, concurrency=400):
        print("ready", flush=True)
        await asyncio.Event().wait()


async def measure(names: list[str]) -> dict[str, dict[str, float]]:
    found = {}
    for name in names:
        async with Noria.embedded() as noria:
            await noria.broker.provision()
            found[name] = await WORKLOADS[name][0](noria)
    return found


def is_gross(name: str, figures: dict[str, float]) -> bool:
    value = figures[WORKLOADS[name][1]]
    return value < BOUNDS[name] if name == "many" else value > BOUNDS[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", choices=[[], *WORKLOADS], help="all without")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="fail on gross regressions (double of the bounds)")
    parser.add_argument("--worker", nargs=2, metavar=("URL", "NAMESPACE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    if options.worker:
        return run(serve(*options.worker))
    found = run(measure(options.workloads or list(WORKLOADS)))
    if options.json:
        print(json.dumps(found))
    else:
        table = Table("workload", "figures")
        for name, figures in found.items():
            table.add_row(name, ", ".join(f"{k} {v:,.3f}" for k, v in figures.items()))
        Console().print(table)
    gross = [name for name, figures in found.items() if options.smoke and is_gross(name, figures)]
    if gross:
        sys.exit(f"gross regression: {', '.join(gross)}")
    return None


if __name__ == "__main__":
    main()
