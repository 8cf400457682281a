"""Three nats-servers on loopback that are one cluster; any of them can be killed and comes back with its store."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

from noria import Noria
from noria.broker.connection import Connection
from noria.embedded import find_binary, free_port
from noria.errors import NoriaError


class Cluster:
    """Async context manager; `urls` name all nodes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = [(free_port(), free_port()) for _ in range(3)]
        self._nodes: list[subprocess.Popen[bytes]] = []

    @property
    def urls(self) -> str:
        return ",".join(f"nats://127.0.0.1:{client}" for client, _ in self._ports)

    def _start(self, n: int) -> subprocess.Popen[bytes]:
        client, route = self._ports[n]
        routes = ", ".join(f'"nats-route://127.0.0.1:{r}"' for _, r in self._ports)
        config = self._folder / f"n{n}.conf"
        config.write_text(
            f'server_name: n{n}\nlisten: "127.0.0.1:{client}"\njetstream {{ store_dir: "{self._folder}/n{n}" }}\n'
            f'cluster {{ name: C1, listen: "127.0.0.1:{route}", routes: [{routes}] }}\n'
        )
        return subprocess.Popen([find_binary(), "-c", str(config), "-l", str(self._folder / f"n{n}.log")])

    async def __aenter__(self) -> Cluster:
        self._nodes = [self._start(n) for n in range(3)]
        async with asyncio.timeout(60):
            while True:  # a first election takes some seconds
                try:
                    async with Noria.connect(self.urls, namespace="probe", replicas=3) as probe:
                        await probe.broker.provision()
                        return self
                except NoriaError:
                    await asyncio.sleep(0.2)

    async def __aexit__(self, *_: object) -> None:
        for node in self._nodes:
            node.kill()
            node.wait()

    async def leader(self, connection: Connection, stream: str) -> int:
        """Number of the node that leads the stream."""
        while True:
            info: dict[str, Any] = await connection.api(f"STREAM.INFO.{stream}")
            name = info.get("cluster", {}).get("leader")
            if name:
                return int(name[1:])
            await asyncio.sleep(0.1)

    def kill(self, n: int) -> None:
        self._nodes[n].kill()
        self._nodes[n].wait()

    def revive(self, n: int) -> None:
        self._nodes[n] = self._start(n)

    async def whole(self, connection: Connection, stream: str) -> None:
        """Wait until every replica of the stream is there and current."""
        async with asyncio.timeout(60):
            while True:
                info: dict[str, Any] = await connection.api(f"STREAM.INFO.{stream}")
                others = info.get("cluster", {}).get("replicas") or []
                if len(others) == 2 and all(o.get("current") and not o.get("offline") for o in others):
                    return
                await asyncio.sleep(0.2)
