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
from noria.embedded import start_server

STEPS = 20

WORKER = textwrap.dedent(
    """
    import asyncio, os, sys
    from noria import Context, Noria, Workflow, step
    url, namespace, journal, pause, lease = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5])
    async def work(x: int, ctx: Context) -> int:
        with open(journal, "a") as f:
            f.write(f"{ctx.step_id} {os.getpid()} {ctx.idempotency_key} {ctx.recovered}\\n")
        await asyncio.sleep(pause)
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


def spawn(url: str, namespace: str, journal: Path, pause: float = 0.05, lease: float = 1.5) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", WORKER, url, namespace, str(journal), str(pause), str(lease)], stdout=subprocess.PIPE)
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
    first = spawn(server_url, noria.namespace, journal)
    second = None
    try:
        run = noria.create_run(twenty())
        await run.start_async(0)
        await until(lambda: len(lines(journal)) >= 8)
        second = spawn(server_url, noria.namespace, journal)
        first.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        result = await run.result(timeout=20)
        took = time.monotonic() - killed
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()
    assert (result.status, result.result) == ("success", STEPS)
    calls = [name for name, *_ in lines(journal)]
    twice = [name for name in set(calls) if calls.count(name) == 2]
    assert set(calls) == {f"s{n}" for n in range(STEPS)} and len(calls) - STEPS == len(twice) <= 1
    keys = {(name, key) for name, _, key, _ in lines(journal)}
    assert len(keys) == STEPS, "the key of a repeated call must be the same"
    if twice:
        assert [r for name, _, _, r in lines(journal) if name == twice[0]] == ["False", "True"]
    assert took < 1.5 + (STEPS - 7) * 0.05 + 2.0
    facts = await noria.broker.log.read_tree(run_key(noria, run.id))
    recorded = [fact.step for entry in facts for fact in decoded(entry.body) if type(fact).__name__ == "StepEnded"]
    assert sorted(recorded) == sorted(f"s{n}" for n in range(STEPS)), "each result is recorded once"


def run_key(noria: Noria, run: str):
    from noria.ports import ActorKey

    return ActorKey("twenty", run)


def decoded(body: bytes):
    from noria.contract.envelopes import decode

    return decode(body).facts


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
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()
    assert (result.status, result.result) == ("success", STEPS)
    calls = [name for name, *_ in lines(journal)]
    assert len(calls) - STEPS <= 1, f"run twice: {sorted(n for n in set(calls) if calls.count(n) > 1)}"
    facts = await noria.broker.log.read_tree(run_key(noria, run.id))
    recorded = [fact.step for entry in facts for fact in decoded(entry.body) if type(fact).__name__ == "StepEnded"]
    assert sorted(recorded) == sorted(f"s{n}" for n in range(STEPS))


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
