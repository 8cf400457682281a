"""What durability costs: a durable append alone and many at once, by sync_interval and replicas: `just durability`."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from pathlib import Path

from noria import Noria
from noria.embedded import find_binary, free_port
from noria.errors import NoriaError
from noria.ports import ActorKey

LONE, MANY = 300, 5_000


def start(folder: Path, nodes: int, sync: str) -> tuple[list[subprocess.Popen[bytes]], str]:
    ports = [(free_port(), free_port()) for _ in range(nodes)]
    routes = ", ".join(f'"nats-route://127.0.0.1:{route}"' for _, route in ports)
    processes: list[subprocess.Popen[bytes]] = []
    for n, (client, route) in enumerate(ports):
        cluster = f'cluster {{ name: C1, listen: "127.0.0.1:{route}", routes: [{routes}] }}\n' if nodes > 1 else ""
        config = folder / f"n{n}.conf"
        config.write_text(
            f'server_name: n{n}\nlisten: "127.0.0.1:{client}"\n{cluster}jetstream {{ store_dir: "{folder}/n{n}", sync_interval: {sync} }}\n'
        )
        processes.append(subprocess.Popen([find_binary(), "-c", str(config), "-l", str(folder / f"n{n}.log")]))
    return processes, ",".join(f"nats://127.0.0.1:{client}" for client, _ in ports)


async def measure(url: str, replicas: int) -> tuple[float, float]:
    """(milliseconds of an append alone, median; appends per second with all of them in flight)."""
    async with asyncio.timeout(60):
        while True:
            try:
                async with Noria.connect(url, replicas=replicas) as noria:
                    await noria.broker.provision()
                    times: list[float] = []
                    for n in range(LONE):
                        began = time.perf_counter()
                        await noria.broker.log.append(ActorKey("w", f"lone-{n}"), b"x" * 300, 0)
                        times.append(time.perf_counter() - began)
                    began = time.perf_counter()
                    await asyncio.gather(*(noria.broker.log.append(ActorKey("w", f"many-{n}"), b"x" * 300, 0) for n in range(MANY)))
                    return sorted(times)[LONE // 2] * 1000, MANY / (time.perf_counter() - began)
            except NoriaError:
                await asyncio.sleep(0.3)


async def main() -> None:
    print("| nodes | sync_interval | alone, ms | in flight, per second |\n|---|---|---|---|")
    for nodes in (1, 3):
        for sync in ('"2m"', "always"):
            with tempfile.TemporaryDirectory() as folder:
                processes, url = start(Path(folder), nodes, sync)
                try:
                    alone, many = await measure(url, nodes)
                    print(f"| {nodes} | {sync} | {alone:.2f} | {many:,.0f} |", flush=True)
                finally:
                    for process in processes:
                        process.kill()
                        process.wait()


if __name__ == "__main__":
    asyncio.run(main())
