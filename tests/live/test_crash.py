"""Processes that die: workers by SIGKILL, the server too, parents of embedded servers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from noria import Context, Noria, Workflow, step
from noria.contract.envelopes import decode
from noria.contract.facts import StepEnded
from noria.embedded import start_server
from noria.ports import ActorKey

STEPS = 20

WORKER = textwrap.dedent(
    """
    import asyncio, os, sys
    from noria import Context, Noria, Workflow, step
    url, namespace, journal, pause, lease, hangs = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5]), sys.argv[6]
    async def work(x: int, ctx: Context) -> int:
        with open(journal, "a") as f:
            f.write(f"{ctx.step_id} {os.getpid()} {ctx.idempotency_key} {ctx.recovered}\\n")
        await asyncio.sleep(60 if ctx.step_id == hangs and not ctx.recovered else pause)
        return x + 1
    flow = Workflow("twenty")
    for n in range(20):
        flow = flow.then(step(work, id=f"s{n}"))
    async def main():
        async with Noria.connect(url, namespace=namespace) as noria:
            print("ready", flush=True)
            await noria.serve(flow, lease=lease)
    asyncio.run(main())
    """
)


async def nothing(x: int, ctx: Context) -> int:
    return x


def twenty() -> Workflow:
    flow = Workflow("twenty")
    for n in range(STEPS):
        flow = flow.then(step(nothing, id=f"s{n}"))
    return flow.commit()


def spawn(url: str, namespace: str, journal: Path, pause: float = 0.05, lease: float = 1.5, hangs: str = "") -> subprocess.Popen[bytes]:
    """A worker process. `hangs`: the step that takes a minute when it is begun for the first time."""
    words = [url, namespace, str(journal), str(pause), str(lease), hangs]
    process = subprocess.Popen([sys.executable, "-c", WORKER, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


def lines(journal: Path) -> list[list[str]]:
    return [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []


async def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that in time"
        await asyncio.sleep(0.01)


async def test_another_worker_takes_over_a_killed_one(noria: Noria, server_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    first = spawn(server_url, noria.namespace, journal, hangs="s8")
    second = None
    try:
        run = noria.create_run(twenty())
        await run.start_async(0)
        await until(lambda: len(lines(journal)) == 9)
        second = spawn(server_url, noria.namespace, journal)
        first.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        result = await run.result(timeout=20)
        took = time.monotonic() - killed
    finally:
        stop(first, second)
    assert (result.status, result.result) == ("success", STEPS)
    names = [f"s{n}" for n in range(STEPS)]
    assert [(name, int(pid)) for name, pid, _, _ in lines(journal)] == [(n, first.pid) for n in names[:9]] + [(n, second.pid) for n in names[8:]]
    assert len({(name, key) for name, _, key, _ in lines(journal)}) == STEPS, "the key of a repeated call must be the same"
    assert [recovered for name, _, _, recovered in lines(journal) if name == "s8"] == ["False", "True"]
    assert took < 1.5 + (STEPS - 7) * 0.05 + 2.0
    await each_is_recorded_once(noria, run.id)


def stop(*processes: subprocess.Popen[bytes] | None) -> None:
    for process in processes:
        if process is not None:
            process.kill()
            process.wait()


async def each_is_recorded_once(noria: Noria, run: str) -> None:
    entries = await noria.broker.log.read_tree(ActorKey("twenty", run))
    recorded = [fact.step for entry in entries for fact in decode(entry.body).facts if isinstance(fact, StepEnded)]
    assert sorted(recorded) == sorted(f"s{n}" for n in range(STEPS)), "each result is recorded once"


async def test_a_frozen_worker_is_fenced(noria: Noria, server_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    first = spawn(server_url, noria.namespace, journal, 0.1, 1.0)
    second = None
    try:
        run = noria.create_run(twenty())
        await run.start_async(0)
        await until(lambda: len(lines(journal)) >= 5)
        first.send_signal(signal.SIGSTOP)
        second = spawn(server_url, noria.namespace, journal, 0.1, 1.0)
        await until(lambda: len({pid for _, pid, *_ in lines(journal)}) == 2)
        first.send_signal(signal.SIGCONT)
        result = await run.result(timeout=20)
    finally:
        stop(first, second)
    assert (result.status, result.result) == ("success", STEPS)
    calls = [name for name, *_ in lines(journal)]
    assert len(calls) - STEPS <= 1, f"run twice: {sorted(n for n in set(calls) if calls.count(n) > 1)}"
    await each_is_recorded_once(noria, run.id)


@pytest.mark.skipif(bool(os.environ.get("NORIA_TEST_NATS")), reason="kills the server: needs one of its own")
async def test_a_caller_and_a_worker_survive_the_servers_death(tmp_path: Path) -> None:
    server = await start_server(tmp_path / "store")
    port = int(server.url.rpartition(":")[2])

    async def slow(x: int) -> int:
        await asyncio.sleep(0.05)
        return x + 1

    flow = Workflow("server-dies")
    for n in range(STEPS):
        flow = flow.then(step(slow, id=f"s{n}"))
    flow = flow.commit()
    async with Noria.connect(server.url, namespace=f"t{uuid.uuid4().hex[:8]}") as noria, noria.worker(flow, lease=2):
        runs = [asyncio.create_task(noria.run(flow, 0)) for _ in range(10)]
        await asyncio.sleep(0.4)
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait()
        again = await start_server(tmp_path / "store", port)
        results = await asyncio.gather(*runs)
        assert [(r.status, r.result) for r in results] == [("success", STEPS)] * 10
    await again.stop()


async def test_an_embedded_server_does_not_outlive_a_killed_parent() -> None:
    script = "\n".join([
        "import asyncio", "from noria import Noria", "async def main():", "  async with Noria.embedded() as n:",
        "    print(n.url, flush=True)", "    await asyncio.sleep(60)", "asyncio.run(main())",
    ])  # fmt: skip
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    url = parent.stdout.readline().decode().strip()
    host, port = url.removeprefix("nats://").split(":")

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            return True
        except OSError:
            return False

    assert await answers()
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not await answers():
            return
        await asyncio.sleep(0.05)
    pytest.fail("the server is an orphan")


async def test_leaving_the_worker_hands_over_at_once(noria: Noria, server_url: str) -> None:
    started = asyncio.Event()

    @step
    async def stuck(x: int, ctx: Context) -> int:
        started.set()
        await asyncio.sleep(0 if ctx.recovered else 60)
        return x

    flow = Workflow("handed-over").then(stuck).commit()
    run = noria.create_run(flow)
    async with noria.worker(flow, lease=30, grace=0.1):
        await run.start_async(7)
        await started.wait()
    began = time.monotonic()
    async with noria.worker(flow, lease=30):
        result = await run.result(timeout=10)
    assert (result.status, result.result) == ("success", 7) and time.monotonic() - began < 5
