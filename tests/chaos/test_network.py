"""Connections that are cut, slow or silent; a store that is full; a host that is frozen: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from noria import Noria, Workflow, step
from noria.broker import appends
from noria.embedded import find_binary, free_port
from noria.errors import NoriaError
from tests.chaos.harness import Load, Server, Workers
from tests.chaos.journal import Mishap, calls, repeated
from tests.chaos.proxy import Proxy

pytestmark = pytest.mark.skipif(bool(os.environ.get("NORIA_TEST_NATS")), reason="needs a server of its own")


async def test_connections_are_cut_slow_and_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "journal"
    async with (
        Server(tmp_path / "store") as server, Proxy(server.url) as ours, Proxy(server.url) as theirs,
        Noria.connect(ours.url) as noria, Workers(theirs.url, "noria", journal),
    ):  # fmt: skip
        load, began = Load(noria, 3), time.time()
        driving = asyncio.create_task(load.drive(30, 3))
        for _ in range(3):
            await asyncio.sleep(0.5)
            await asyncio.gather(ours.cut(0.2), theirs.cut(0.4))
        theirs.delay_seconds = ours.delay_seconds = 0.02
        await asyncio.sleep(1)
        await theirs.silence(2)  # beyond the lease
        ended = time.time()
        await driving
        said = await load.check(journal, [Mishap(began, ended)])
    with capsys.disabled():
        print(f"\nsix cuts, slow and silent connections: {said}")


async def test_a_full_store_refuses_and_goes_on_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, config = free_port(), tmp_path / "nats.conf"

    def start(limit: str) -> subprocess.Popen[bytes]:
        config.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{tmp_path}/store", max_file_store: {limit} }}\n')
        return subprocess.Popen([find_binary(), "-c", str(config), "-l", str(tmp_path / "log")])

    @step
    async def grow(x: str) -> int:
        return len(x)

    flow = Workflow("grows").then(grow).then(step(lambda n: n + 1, id="more")).commit()
    monkeypatch.setattr(appends, "PATIENCE_SECONDS", 2.0)
    server, begun, refused = start("2MB"), list[str](), list[NoriaError]()
    try:
        async with await _opened(port) as noria:
            async with noria.worker(flow, lease=2):
                await asyncio.sleep(0)
            for n in range(60):  # no worker: they pile up
                try:
                    begun.append(await asyncio.wait_for(noria.create_run(flow, f"r{n}").start_async("x" * 50_000), 30))
                except NoriaError as error:
                    refused.append(error)
                    break
            assert refused and "resources" in str(refused[0]).lower() and len(begun) > 5
            async with noria.worker(flow, lease=2):
                await asyncio.sleep(1)  # nothing can be recorded; the worker lives
                server.terminate()
                await asyncio.to_thread(server.wait)
                server = start("1GB")
                results = await asyncio.gather(*(noria.create_run(flow, run).result(timeout=40) for run in begun))
                assert [(r.status, r.result) for r in results] == [("success", 50_001)] * len(begun)
    finally:
        server.kill()
        server.wait()


async def _opened(port: int):
    async with asyncio.timeout(10):
        while True:
            try:
                async with Noria.connect(f"nats://127.0.0.1:{port}"):
                    return Noria.connect(f"nats://127.0.0.1:{port}")
            except NoriaError:
                await asyncio.sleep(0.05)


async def test_a_frozen_host_is_fenced(noria: Noria, server_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGSTOP beyond the lease under load, then SIGCONT: at most one repeated step per step in flight when frozen."""
    journal = tmp_path / "journal"
    async with Workers(server_url, noria.namespace, journal, count=2, lease=5) as workers:  # beyond what a busy machine stands still
        load = Load(noria, 5)
        driving = asyncio.create_task(load.drive(30, 2))
        in_flight = set[str]()
        while not in_flight:
            frozen = await workers.busy(random.Random(1))
            began = time.time()
            frozen.send_signal(signal.SIGSTOP)
            while psutil.Process(frozen.pid).status() != psutil.STATUS_STOPPED:
                await asyncio.sleep(0.001)
            in_flight = await load.in_flight(journal, frozen.pid)
            if in_flight:
                await asyncio.sleep(7)
            frozen.send_signal(signal.SIGCONT)
        thawed = time.time()
        await driving
        await asyncio.sleep(0.5)  # it may come too late, and must not
        said = await load.check(journal, [Mishap(began, thawed, frozen.pid)])
    again = Counter(call.key for _, call in repeated(calls(journal)))
    with capsys.disabled():
        print(f"\nfrozen with {len(in_flight)} steps in flight, {len(again)} of them executed twice: {said}")
    assert set(again) <= in_flight and set(again.values()) <= {1}, "at most one repetition per step in flight when frozen"

