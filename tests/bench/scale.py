"""How Noria's cost grows: with workers, open runs, history, payload, workflows, replicas, and over 100,000 runs.

python tests/bench/scale.py [workers parked history payload workflows replicas memory] [--json] [--full]

Without --full: sizes that finish in about a minute each. On a shared machine compare the rows of one table only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from contenders.shared import all_of
from rich.console import Console
from rich.table import Table
from uvloop import run

from noria import Context, Noria, Workflow, step
from noria.embedded import find_binary, free_port

Row = dict[str, float]
FLIGHT, SLOTS, PAUSE = 100, 20, 0.02


@step
async def noop(x: Any) -> Any:
    return x


@step
async def pausing(x: Any) -> Any:
    await asyncio.sleep(PAUSE)
    return x


@step
async def counting(x: dict[str, Any]) -> dict[str, Any]:
    STAMPS.append(time.perf_counter())
    return {**x, "n": x["n"] + 1}


@step
async def park(x: Any, ctx: Context) -> Any:
    return x if ctx.resume_data is not None else ctx.suspend()


STAMPS: list[float] = []


def chain(name: str, unit: Any, steps: int = 5) -> Workflow:
    flow = Workflow(name)
    for n in range(steps):
        flow = flow.then(unit.clone(id=f"s{n}"))
    return flow.commit()


FIVE, PAUSING = chain("five", noop), chain("pausing", pausing)
PARK = Workflow("park").then(noop).then(park).commit()
LOOP = Workflow("loop").do_while(counting, lambda x: x["n"] < x["until"]).commit()
FLOWS = {f.id: f for f in (FIVE, PAUSING, PARK, LOOP)}


async def serve(url: str, name: str, slots: str) -> None:
    async with Noria.connect(url) as noria, noria.worker(FLOWS[name], concurrency=int(slots)):
        print("ready", flush=True)
        await asyncio.Event().wait()


@asynccontextmanager
async def workers(url: str, name: str, count: int, slots: int) -> AsyncIterator[list[int]]:
    """Worker processes; their ids."""
    spawned = [subprocess.Popen([sys.executable, __file__, "--serve", url, name, str(slots)], stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for process in spawned:
            assert process.stdout is not None and await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        yield [process.pid for process in spawned]
    finally:
        for process in spawned:
            process.terminate()
            process.wait()


async def latency(noria: Noria, runs: int = 60) -> float:
    """Median seconds of a 5-step run, one at a time."""
    spent = []
    for n in range(runs):
        began = time.perf_counter()
        assert (await noria.run(FIVE, n)).status == "success"
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


async def scale_workers(full: bool) -> list[Row]:
    """Runs per second of 5 steps that wait 20 ms each, by worker processes of 20 slots."""
    rows: list[Row] = []
    for count in (1, 2, 3):
        async with Noria.embedded() as noria, workers(noria.url, "pausing", count, SLOTS):
            runs = 400 * count if full else 200 * count
            await all_of(SLOTS * count, FLIGHT, lambda n: noria.run("pausing", n))
            seconds = await all_of(runs, SLOTS * count + 10, lambda n: noria.run("pausing", n))
            rate = runs / seconds
            rows.append({"workers": count, "runs_per_s": rate, "per_worker": rate / count / (rows[0]["runs_per_s"] if rows else rate)})
    return rows


async def scale_parked(full: bool) -> list[Row]:
    """A run's latency beside so many parked ones, and what they cost the server."""
    rows: list[Row] = []
    async with Noria.embedded() as noria, noria.worker(FIVE, PARK, concurrency=400):
        parked = 0
        for count in (0, 1_000, 10_000, *((100_000,) if full else ())):
            await all_of(count - parked, FLIGHT, lambda n, first=parked: noria.create_run(PARK, f"p{first + n}").start(n))
            parked = count
            began = time.perf_counter()
            await noria.runs.list(limit=10)
            listed = time.perf_counter() - began
            rows.append({"parked": count, "run_ms": await latency(noria) * 1e3, "list_s": listed, "server_mb": server_mb(noria.url)})
    return rows


def server_mb(url: str) -> float:
    port = url.rsplit(":", 1)[1]
    found = [p for p in psutil.process_iter(["name", "cmdline"]) if p.info["name"] == "nats-server" and port in p.info["cmdline"]]
    return sum(p.memory_info().rss for p in found) / 2**20


async def scale_history(full: bool) -> list[Row]:
    """Milliseconds a step at the end of a run of so many steps."""
    rows: list[Row] = []
    async with Noria.embedded() as noria, noria.worker(LOOP):
        for steps in (100, 1_000, 10_000 if full else 5_000):
            STAMPS.clear()
            await noria.run(LOOP, {"n": 0, "until": steps})
            last = STAMPS[-100:]
            rows.append({"steps": steps, "step_ms_at_the_end": (last[-1] - last[0]) / (len(last) - 1) * 1e3})
    return rows


async def scale_payload(full: bool) -> list[Row]:
    """A 5-step run's latency by the size of what its steps hand on; above 128 KiB values live in the blobs."""
    rows: list[Row] = []
    async with Noria.embedded() as noria, noria.worker(FIVE):
        for size in (100, 1_000, 10_000, 100_000, 1_000_000):
            data, spent = {"data": "x" * size}, []
            for _ in range(30):
                began = time.perf_counter()
                assert (await noria.run(FIVE, data)).status == "success"
                spent.append(time.perf_counter() - began)
            rows.append({"bytes": size, "run_ms": statistics.median(spent) * 1e3})
    return rows


async def scale_workflows(full: bool) -> list[Row]:
    """Runs per second and the worker's memory by the number of workflows that one worker hosts, load spread evenly."""
    rows: list[Row] = []
    for count in (1, 10, 100):
        flows = [chain(f"five-{n}", noop) for n in range(count)]
        async with Noria.embedded() as noria, noria.worker(*flows, concurrency=400):
            seconds = await all_of(1_000, FLIGHT, lambda n, flows=flows, count=count: noria.run(flows[n % count], n))
            rows.append({"workflows": count, "runs_per_s": 1_000 / seconds, "worker_mb": psutil.Process().memory_info().rss / 2**20})
    return rows


@asynccontextmanager
async def cluster() -> AsyncIterator[str]:
    """Three servers on loopback; their addresses with commas."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        ports, routes = [free_port() for _ in range(3)], [free_port() for _ in range(3)]
        peers = ", ".join(f'"nats-route://127.0.0.1:{r}"' for r in routes)
        spawned = []
        for n in range(3):
            config = Path(folder) / f"n{n}.conf"
            config.write_text(
                f'server_name: n{n}\nlisten: "127.0.0.1:{ports[n]}"\njetstream {{ store_dir: "{folder}/n{n}" }}\n'
                f'cluster {{ name: scale, listen: "127.0.0.1:{routes[n]}", routes: [{peers}] }}\n'
            )
            spawned.append(subprocess.Popen([find_binary(), "-c", str(config)], stderr=subprocess.DEVNULL))
        try:
            await asyncio.sleep(6)  # the first election
            yield ",".join(f"nats://127.0.0.1:{p}" for p in ports)
        finally:
            for process in spawned:
                process.kill()
                process.wait()


async def scale_replicas(full: bool) -> list[Row]:
    """One server against three with replicas=3, all on this machine."""
    rows: list[Row] = []

    async def measure(noria: Noria, replicas: int) -> None:
        async with noria.worker(FIVE, concurrency=400):
            await all_of(100, FLIGHT, lambda n: noria.run(FIVE, n))
            alone = await latency(noria)
            seconds = await all_of(1_000, FLIGHT, lambda n: noria.run(FIVE, n))
            rows.append({"replicas": replicas, "run_ms": alone * 1e3, "steps_per_s": 5_000 / seconds})

    async with Noria.embedded() as noria:
        await measure(noria, 1)
    async with cluster() as urls, Noria.connect(urls, replicas=3) as noria:
        await measure(noria, 3)
    return rows


async def scale_memory(full: bool) -> list[Row]:
    """Memory of a worker after so many runs, and what a finished run of 5 steps leaves on the server."""
    rows: list[Row] = []
    async with Noria.embedded() as noria, workers(noria.url, "five", 1, 400) as pids:
        done = 0
        for runs in (1_000, 10_000, *((100_000,) if full else ())):
            await all_of(runs - done, FLIGHT, lambda n: noria.run("five", n))
            done = runs
            stored = 0
            for stream in (noria.broker.subjects.runs, f"KV_{noria.broker.subjects.records}"):
                stored += (await noria.broker.connection.api(f"STREAM.INFO.{stream}"))["state"]["bytes"]
            worker = psutil.Process(pids[0]).memory_info().rss / 2**20
            rows.append({"runs": runs, "worker_mb": worker, "server_mb": server_mb(noria.url), "bytes_per_run": stored / runs})
    return rows


TABLES = {
    "workers": scale_workers, "parked": scale_parked, "history": scale_history, "payload": scale_payload,
    "workflows": scale_workflows, "replicas": scale_replicas, "memory": scale_memory,
}  # fmt: skip


async def measure(names: list[str], full: bool) -> dict[str, list[Row]]:
    found = {}
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        found[name] = await TABLES[name](full)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all without")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true", help="100,000 runs, 10,000 steps")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return run(serve(*options.serve))
    if unknown := [t for t in options.tables if t not in TABLES]:
        parser.error(f"unknown table {unknown[0]!r}; there are {', '.join(TABLES)}")
    found = run(measure(options.tables or list(TABLES), options.full))
    if options.json:
        print(json.dumps(found))
        return None
    for name, rows in found.items():
        table = Table(*rows[0])
        Console().print(f"\n[b]{name}[/]: {TABLES[name].__doc__}")
        for row in rows:
            table.add_row(*(f"{v:,.0f}" if v >= 1000 or float(v).is_integer() else f"{v:.3g}" for v in row.values()))
        Console().print(table)
    return None


if __name__ == "__main__":
    main()
