"""The system of infra/compose without its containers: the same configuration, variables and command lines, on loopback."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from noria.embedded import find_binary, free_port
from tests.infra.test_files import NODES, SERVICES, certificates, env_file
from tests.infra.test_manifests import INFRA

__all__ = ["certificates"]  # a fixture
CLI = [sys.executable, "-c", "from noria.cli.main import main; main()"]
TIP = r"docker compose exec worker-1 noria (run .*)"


class System:
    """Where everything is in place of the containers' own addresses and folders."""

    def __init__(self, folder: Path, certs: Path) -> None:
        self.folder, self.certs, self.processes = folder, certs, list[subprocess.Popen[bytes]]()
        wanted = [*((name, port) for name in NODES for port in (4222, 6222, 8222)), ("worker-1", 8080), ("worker-2", 8080), ("collector", 4318)]
        self.ports = {place: free_port() for place in wanted}

    def here(self, service: str, text: str) -> str:
        """A value of the compose file as it is here."""
        for (name, port), free in self.ports.items():
            text = text.replace(f"{name}:{port}", f"127.0.0.1:{free}")
            if name == service:
                text = re.sub(rf"(0\.0\.0\.0|127\.0\.0\.1):{port}\b|^{port}$", lambda m, p=free: f"127.0.0.1:{p}" if m[1] else str(p), text)
        text = text.replace("/certs/", f"{self.certs}/").replace("/etc/nats/", f"{INFRA}/nats/").replace("examples/", f"{INFRA.parent}/examples/")
        return f"{self.folder}/{service}" if text == "/data" else text

    def environment(self, service: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NATS_", "NORIA_", "OTEL_"))}
        own = {k: re.sub(r"\$\{(\w+)[^}]*\}", lambda m: env_file()[m[1]], str(v)) for k, v in SERVICES[service]["environment"].items()}
        return {**kept, **(env_file() if service in NODES else {}), **{k: self.here(service, v) for k, v in own.items()}}

    def start(self, service: str, command: list[str]) -> subprocess.Popen[bytes]:
        words = [self.here(service, word) for word in command]
        log = (self.folder / f"{service}.log").open("ab")
        process = subprocess.Popen(words, env=self.environment(service), stdout=log, stderr=log)
        self.processes.append(process)
        return process

    async def until_healthy(self, service: str, check: list[str], seconds: float) -> None:
        """By the compose file's own check."""
        assert check[0] == "CMD"
        words = [self.here(service, word) for word in check[1:]]
        words[0] = sys.executable if words[0] == "python" else words[0]
        async with asyncio.timeout(seconds):
            while (await asyncio.to_thread(subprocess.run, words, capture_output=True)).returncode != 0:
                await asyncio.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(f"== {p.name}\n{p.read_text()[-3000:]}" for p in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.mark.timeout(240)
async def test_it_runs_an_order(tmp_path: Path, certificates: Path) -> None:
    system, received = System(tmp_path, certificates), Counter[str]()

    async def collect(request: web.Request) -> web.Response:
        body = await request.read()
        received[request.path] += len(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body) > 0
        return web.Response()

    site = web.Application()
    site.add_routes([web.post("/v1/{signal}", collect)])
    collector = web.AppRunner(site)
    await collector.setup()
    await web.TCPSite(collector, "127.0.0.1", system.ports["collector", 4318]).start()
    try:
        for name in NODES:
            system.start(name, [find_binary(), *SERVICES[name]["command"]])
        for name in NODES:
            await system.until_healthy(name, SERVICES[name]["healthcheck"]["test"], 60)
        command = [*CLI, *SERVICES["provision"]["command"][1:]]
        for _ in range(20):  # restart: on-failure
            if await asyncio.to_thread(system.start("provision", command).wait, 60) == 0:
                break
            await asyncio.sleep(0.5)
        workers = [system.start(name, [*CLI, *SERVICES[name]["command"][1:]]) for name in ("worker-1", "worker-2")]
        for name in ("worker-1", "worker-2"):
            await system.until_healthy(name, SERVICES[name]["healthcheck"]["test"], 60)
        (line,) = re.findall(TIP, (INFRA / "compose" / "compose.yaml").read_text())
        words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", line)]
        result = await _cli(system, "worker-1", [*words, "--json"])
        assert (result["status"], result["result"]["message"]) == ("success", "Thank you: 4 reserved, 160.00 charged")
        assert await _cli(system, "provision", ["infra", "plan", "--json"]) == []  # all there is has three replicas
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        assert [await asyncio.to_thread(worker.wait, 40) for worker in workers] == [0, 0]
        assert received["/v1/traces"] and received["/v1/metrics"]
    except BaseException:
        print(system.logs())
        raise
    finally:
        system.stop()
        await collector.cleanup()


async def _cli(system: System, service: str, words: list[str]) -> Any:
    done = await asyncio.to_thread(
        subprocess.run, [*CLI, *words], env=system.environment(service), capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
