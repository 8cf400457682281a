"""Restate: its server as a child process (BENCH_RESTATE_SERVER), the service and the client in this one. Its log fsyncs."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from typing import Any

import aiohttp
import restate
import shared
from hypercorn.asyncio import serve
from hypercorn.config import Config

STAMPS: list[float] = []
parked = finished = 0
bench, parking = restate.Service("bench"), restate.Workflow("park")


async def noop(i: int) -> dict[str, Any]:
    return shared.small(i)


async def grown(i: int) -> dict[str, Any]:
    return shared.large(i)


async def slow(i: int) -> dict[str, Any]:
    shared.mark(shared.STEPS_LOG, i)
    await asyncio.sleep(shared.PAUSE6)
    return shared.small(i)


@bench.handler()
async def sequence(ctx: restate.Context, steps: int) -> int:
    for i in range(steps):
        await ctx.run_typed("noop", noop, i=i)
    return steps


@bench.handler()
async def fan(ctx: restate.Context, items: int) -> int:
    await restate.gather(*[ctx.run_typed("noop", noop, i=i) for i in range(items)])
    return items


@bench.handler()
async def grow(ctx: restate.Context, steps: int) -> int:
    STAMPS[:] = [time.perf_counter()]
    for i in range(steps):
        await ctx.run_typed("grown", grown, i=i)
        STAMPS.append(time.perf_counter())
    return steps


@bench.handler()
async def crashy(ctx: restate.Context, steps: int) -> int:
    for i in range(steps):
        await ctx.run_typed("slow", slow, i=i)
    shared.mark(shared.DONE_LOG, 0)
    return steps


async def before() -> dict[str, Any]:
    global parked
    parked += 1
    return shared.small(0)


async def after() -> dict[str, Any]:
    global finished
    finished += 1
    return shared.small(1)


@parking.main()
async def run(ctx: restate.WorkflowContext, n: int) -> dict[str, Any]:
    await ctx.run_typed("a", before)
    await ctx.promise("go").value()
    return await ctx.run_typed("b", after)


@parking.handler()
async def go(ctx: restate.WorkflowSharedContext, n: int) -> None:
    await ctx.promise("go").resolve("x")


async def host(port: int) -> None:
    config = Config()
    config.bind, config.loglevel, config.accesslog = [f"127.0.0.1:{port}"], "ERROR", None
    config.h2_max_concurrent_streams, config.keep_alive_max_requests = 100_000, 10**9
    await serve(restate.app([bench, parking]), config, mode="asgi")


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [p.getsockname()[1] for p in probes]
    for probe in probes:
        probe.close()
    return ports


class Server:
    """restate-server on loopback ports of its own."""

    def __init__(self) -> None:
        self.ingress, self.admin, self.node, self.service = free_ports(4)
        sections = (
            ("", {"node-name": "n1", "cluster-name": "bench", "base-dir": str(shared.FOLDER / "restate"), "listen-mode": "tcp",
                  "bind-address": f"127.0.0.1:{self.node}", "advertised-address": f"http://127.0.0.1:{self.node}", "log-filter": "warn"}),
            ("[admin]", {"bind-address": f"127.0.0.1:{self.admin}", "advertised-address": f"http://127.0.0.1:{self.admin}"}),
            ("[ingress]", {"bind-address": f"127.0.0.1:{self.ingress}", "advertised-address": f"http://127.0.0.1:{self.ingress}"}),
        )  # fmt: skip
        lines = [line for head, values in sections for line in (head, *(f'{k} = "{v}"' for k, v in values.items()))]
        config = shared.FOLDER / "restate.toml"
        config.write_text("\n".join(["disable-telemetry = true", *lines]))
        self.process = subprocess.Popen(
            [os.environ["BENCH_RESTATE_SERVER"], "-c", str(config)], env={**os.environ, "DO_NOT_TRACK": "1"}, cwd=shared.FOLDER,
            stdout=(shared.FOLDER / "server.log").open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    async def ready(self, session: aiohttp.ClientSession) -> None:
        """Healthy, and our service registered."""
        for _ in range(300):
            try:
                async with session.get(f"http://127.0.0.1:{self.ingress}/restate/health") as health:
                    if health.status == 200:
                        async with session.post(
                            f"http://127.0.0.1:{self.admin}/deployments", json={"uri": f"http://127.0.0.1:{self.service}"}
                        ) as registered:
                            if registered.status < 300:
                                return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
        sys.exit("restate-server did not come up")


async def measure(workload: str, server: Server, session: aiohttp.ClientSession) -> None:
    async def post(path: str, body: Any) -> None:
        async with session.post(f"http://127.0.0.1:{server.ingress}/{path}", json=body) as answer:
            assert answer.status < 300, await answer.text()
            await answer.read()

    for _ in range(shared.WARM1):
        await post("bench/sequence", shared.STEPS1)
    match workload:
        case "W1":
            spent = []
            for _ in range(shared.RUNS1):
                began = time.perf_counter()
                await post("bench/sequence", shared.STEPS1)
                spent.append(time.perf_counter() - began)
            shared.emit("W1", **shared.latency(spent))
        case "W2":
            seconds = await shared.all_of(shared.RUNS2, shared.FLIGHT2, lambda n: post("bench/sequence", shared.STEPS2))
            shared.emit("W2", steps_per_s=shared.RUNS2 * shared.STEPS2 / seconds)
        case "W3":
            began = time.perf_counter()
            await post("bench/fan", shared.ITEMS3)
            shared.emit("W3", seconds=time.perf_counter() - began)
        case "W4":
            store = shared.FOLDER / "restate"
            stored = shared.stored_bytes(store)
            await post("bench/grow", shared.STEPS4)
            # RocksDB allocates ahead, so this may well be 0
            shared.emit("W4", last_to_first=shared.growth(STAMPS), bytes_per_step=(shared.stored_bytes(store) - stored) / shared.STEPS4)
        case "W5":
            idle, began = shared.memory_mb(os.getpid()), time.perf_counter()
            await shared.all_of(shared.RUNS5, shared.FLIGHT5, lambda n: post(f"park/k{n}/run/send", n))
            while parked < shared.RUNS5:
                await asyncio.sleep(0.02)
            park_s, memory = time.perf_counter() - began, shared.memory_mb(os.getpid()) - idle
            began = time.perf_counter()
            await shared.all_of(shared.RUNS5, shared.FLIGHT5, lambda n: post(f"park/k{n}/go", 0))
            while finished < shared.RUNS5:
                await asyncio.sleep(0.02)
            shared.emit("W5", park_s=park_s, memory_mb=memory, resume_s=time.perf_counter() - began)


async def main(workload: str) -> None:
    server = Server()
    limits = {"connector": aiohttp.TCPConnector(limit=200), "timeout": aiohttp.ClientTimeout(total=280)}
    try:
        async with aiohttp.ClientSession(**limits) as session:
            if workload == "W6":
                first = [shared.again("crash-worker", str(server.service))]
                await server.ready(session)

                def begin() -> None:
                    url = f"http://127.0.0.1:{server.ingress}/bench/crashy/send"
                    urllib.request.urlopen(urllib.request.Request(url, str(shared.STEPS6).encode(), {"Content-Type": "application/json"}))

                spawn = lambda: first.pop() if first else shared.again("crash-worker", str(server.service))
                shared.emit("W6", **await asyncio.to_thread(shared.crash, spawn, begin))
            else:
                hosting = asyncio.create_task(host(server.service))
                await server.ready(session)
                await measure(workload, server, session)
                hosting.cancel()
    finally:
        server.process.kill()
        server.process.wait()
        os._exit(0)


if __name__ == "__main__":
    asyncio.run(host(int(sys.argv[2])) if sys.argv[1] == "crash-worker" else main(sys.argv[1]))
