"""New versions of a workflow and of Noria itself, while runs are under way."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from noria import Context, Cron, Noria, Workflow, step
from noria.contract import commands, envelopes
from noria.contract.facts import HandedOver, TakenOver
from noria.errors import NewerFormat
from noria.ports import ActorKey
from noria.triggers import schedules

WORKER = textwrap.dedent(
    """
    import asyncio, sys
    from noria import Context, Noria, Workflow, step
    from noria.actor import load, resting
    from noria.contract import commands, envelopes
    url, namespace, journal, format, pause, lease, grace = *sys.argv[1:4], int(sys.argv[4]), *map(float, sys.argv[5:])
    commands.FORMAT = envelopes.FORMAT = load.RECORD_FORMAT = resting.RECORD_FORMAT = format
    @step
    async def work(x: int, ctx: Context) -> int:
        with open(journal, "a") as f:
            f.write(f"{ctx.run_id} {ctx.step_id} {format} {ctx.idempotency_key}\\n")
        await asyncio.sleep(pause)
        return x + 1
    @step
    async def ask(x: int, ctx: Context) -> int:
        return ctx.suspend() if ctx.resume_data is None else x + ctx.resume_data
    async def main():
        flow = Workflow("deployed").then(work).then(work.clone(id="more")).then(ask).then(work.clone(id="last"))
        async with Noria.connect(url, namespace=namespace) as noria:
            async with noria.worker(flow, lease=lease, grace=grace):
                print("ready", flush=True)
                stop = asyncio.Event()
                asyncio.get_running_loop().add_signal_handler(15, stop.set)
                await stop.wait()
    asyncio.run(main())
    """
)


def spawn(url: str, noria: Noria, journal: Path, *, format: int = 1, pause: float = 0.02, lease: float = 5, grace: float = 5):
    args = [url, noria.namespace, str(journal), str(format), str(pause), str(lease), str(grace)]
    process = subprocess.Popen([sys.executable, "-c", WORKER, *args], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


@step
async def one(x: int) -> int:
    return x + 1


@step
async def ask(x: int, ctx: Context) -> int:
    return ctx.suspend() if ctx.resume_data is None else x + ctx.resume_data


async def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, "it did not come to that in time"
        await asyncio.sleep(0.02)


OLD = Workflow("flow", version="1").then(one).then(ask).then(one.clone(id="two")).commit()
COMPATIBLE = Workflow("flow", version="2").then(one).then(ask).then(one.clone(id="other")).then(one.clone(id="two")).commit()
INCOMPATIBLE = {
    "inserted before": (Workflow("flow", version="2").then(one).then(one.clone(id="new")).then(ask).commit(), "'new' stands before 'ask'"),
    "removed": (Workflow("flow", version="2").then(ask).commit(), "'one' ran, and is gone"),
    "another kind": (
        Workflow("flow", version="2").then(one).then(Workflow("ask").then(one)).commit(), "'ask' ran as a step of its own"
    ),
    "reordered": (Workflow("flow", version="2").then(ask).then(one).commit(), "'ask' stands before 'one'"),
}  # fmt: skip


async def test_an_old_run_goes_on_with_a_compatible_change(noria: Noria) -> None:
    run = noria.create_run(OLD)
    async with noria.worker(OLD):
        assert (await run.start(1)).status == "suspended"
    async with noria.worker(COMPATIBLE):
        result = await run.resume(10)
    assert (result.status, result.result, list(result.steps)) == ("success", 14, ["one", "ask", "other", "two"])


@pytest.mark.parametrize("kind", INCOMPATIBLE)
async def test_an_incompatible_change_leaves_the_run_to_the_old_version(noria: Noria, kind: str) -> None:
    new, said = INCOMPATIBLE[kind]
    run, untouched = noria.create_run(OLD), noria.create_run(new)
    async with noria.worker(OLD):
        assert (await run.start(1)).status == "suspended"
    async with noria.worker(new):
        resumed = asyncio.create_task(run.resume(10))

        async def shown() -> bool:
            record = await run.get()
            return record is not None and record.error is not None

        await until(shown)
        await asyncio.sleep(1)  # it steps back again and again
        record = await run.get()
        assert record is not None and record.error is not None and record.error.type == "GraphMismatch" and said in record.error.message
        assert record.status == "running" and "version '2'" in record.error.message
        (line,) = [line for line in await noria.doctor() if line[0] == f"run {run.id}"]
        assert not line[1] and said in line[2]
        other = await untouched.start(1)
        assert other.status in ("success", "suspended"), "other runs are unaffected"
    async with noria.worker(OLD):
        result = await resumed
    assert (result.status, result.result) == ("success", 13)
    assert [line for line in await noria.doctor() if line[0].startswith("run ")] == []
    assert (await run.get()).error is None and await noria.dead.list() == []


async def test_a_run_that_does_not_fit_can_be_canceled(noria: Noria) -> None:
    new, _ = INCOMPATIBLE["removed"]
    run = noria.create_run(OLD)
    async with noria.worker(OLD):
        await run.start(1)
    async with noria.worker(new):
        await run.cancel()
    assert (await run.get()).status == "canceled"


async def test_rolling_upgrade_with_workers_of_two_formats(noria: Noria, server_url: str, tmp_path: Path, monkeypatch) -> None:
    """Both hosts run what they can read; the older one steps back from what the newer one wrote."""
    journal = tmp_path / "journal"
    workers = [spawn(server_url, noria, journal, format=1), spawn(server_url, noria, journal, format=2)]
    try:
        first = [noria.create_run("deployed") for _ in range(20)]
        results = await asyncio.gather(*(run.start(n, timeout=20) for n, run in enumerate(first)))
        assert {r.status for r in results} == {"suspended"}
        formats = {line.split()[2] for line in journal.read_text().splitlines()}
        assert formats == {"1", "2"}, "both took part"
        unreadable = 0
        for run in first:
            try:
                await run.get()
            except NewerFormat:
                unreadable += 1
        assert 0 < unreadable < 20, "a newer format is refused, not passed over"
        from noria.actor import load

        for module, name in ((commands, "FORMAT"), (envelopes, "FORMAT"), (load, "RECORD_FORMAT")):
            monkeypatch.setattr(module, name, 2)  # the clients are upgraded
        results = await asyncio.gather(*(run.resume(100) for run in first))
        assert [(r.status, r.result) for r in results] == [("success", n + 103) for n in range(20)]
        workers.pop(0).send_signal(signal.SIGTERM)
        assert (await noria.create_run("deployed").start(1, timeout=20)).status == "suspended"
        assert await noria.dead.list() == []
        calls = [line.rpartition(" ")[2] for line in journal.read_text().splitlines()]
        assert len(calls) == len(set(calls)), "no step ran twice"
    finally:
        for process in workers:
            process.kill()
            process.wait()


async def test_sigterm_drains(noria: Noria, server_url: str, tmp_path: Path) -> None:
    """Steps under way are finished within the grace time, the run goes on elsewhere at once, nothing runs twice."""
    journal = tmp_path / "journal"
    old = spawn(server_url, noria, journal, pause=0.4, lease=30)
    new = None
    try:
        runs = [noria.create_run("deployed") for _ in range(10)]
        waiting = [asyncio.create_task(run.start(n)) for n, run in enumerate(runs)]

        async def begun() -> bool:
            return journal.exists() and len(journal.read_text().splitlines()) >= 10

        await until(begun)
        began = time.monotonic()
        old.send_signal(signal.SIGTERM)
        new = spawn(server_url, noria, journal, pause=0.01, lease=30)
        results = await asyncio.gather(*waiting)
        assert old.wait(10) == 0 and time.monotonic() - began < 8
    finally:
        for process in (old, new):
            if process is not None:
                process.kill()
                process.wait()
    assert {r.status for r in results} == {"suspended"}
    calls = [line.rpartition(" ")[2] for line in journal.read_text().splitlines()]
    assert len(calls) == len(set(calls)) == 20, "a step that was under way is finished, not repeated"


async def test_eight_deploys_during_one_long_step_are_no_poison(noria: Noria, server_url: str, tmp_path: Path) -> None:
    """Each worker is replaced while the step runs, and says that it leaves: more often than a run may take its worker down."""
    journal, processes = tmp_path / "journal", list[subprocess.Popen[bytes]]()
    run = noria.create_run("deployed")

    def calls() -> list[str]:
        return journal.read_text().splitlines() if journal.exists() else []

    try:
        for n in range(8):
            processes.append(spawn(server_url, noria, journal, pause=3600, grace=0.05))
            if n == 0:
                await run.start_async(1)
            else:
                processes[n - 1].send_signal(signal.SIGTERM)
            await until(lambda n=n: asyncio.to_thread(lambda: len(calls()) == n + 1))
        processes.append(spawn(server_url, noria, journal, pause=0.01))
        processes[-2].send_signal(signal.SIGTERM)
        result = await run.result(timeout=20)
        assert [process.wait(10) for process in processes[:-1]] == [0] * 8
        assert result.status == "suspended" and len(calls()) == 8 + 2, "the step once for each worker"
        result = await run.resume(40)
        assert (result.status, result.result) == ("success", 44)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    told = [f for e in await noria.broker.log.read_tree(ActorKey("deployed", run.id)) for f in envelopes.decode(e.body).facts]
    assert sum(isinstance(f, HandedOver) for f in told) == 8 == sum(isinstance(f, TakenOver) for f in told)
    assert await noria.dead.list() == []


def planned(*crons: Cron) -> Workflow:
    return Workflow("planned", schedule=list(crons)).then(one).commit()


async def test_of_several_builds_the_newest_that_has_workers_declares_the_schedules(noria: Noria, server_url: str, monkeypatch) -> None:
    """Only the schedules differ: version and graph are those of the old build."""
    monkeypatch.setattr(schedules, "SETTLE_SECONDS", 0.5)
    old = planned(Cron("0 0 0 29 2 *", id="kept", input=1), Cron("0 0 0 29 2 *", id="gone"))
    new = planned(Cron("0 0 12 29 2 *", id="kept", input=2), Cron("0 0 12 29 2 *", id="added"))

    def stored_is(flow: Workflow) -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            found = {s.id: (s.cron, s.input) for s in await noria.schedules.list()}
            return found == {id: (c.expression, c.input) for id, c in flow.schedules_by_id.items()}

        return check

    async with contextlib.AsyncExitStack() as clients:
        first, second, third = [await clients.enter_async_context(Noria.connect(server_url, namespace=noria.namespace)) for _ in range(3)]
        async with first.worker(old):
            assert await stored_is(old)()
            async with second.worker(new):
                assert await stored_is(new)()
                await noria.schedules.pause("kept")
                async with third.worker(old):  # one of the old ones restarts
                    assert await stored_is(new)()
                    declared = [(s.id, s.revision) for s in await noria.broker.schedules.every()]
                await asyncio.sleep(2)  # all have looked again
                assert [(s.id, s.revision) for s in await noria.broker.schedules.every()] == declared
            await until(stored_is(old), 30)  # rolled back: nobody has the newer build any more
            async with second.worker(new):
                assert await stored_is(new)()
            await until(stored_is(old), 30)
        async with third.worker(new), first.worker(old):
            assert await stored_is(new)()
        assert [s.paused for s in await noria.schedules.list()] == [False, True]


async def test_a_build_without_schedules_keeps_them_away(noria: Noria, server_url: str) -> None:
    old, new = planned(Cron("0 0 0 29 2 *")), planned()
    async with Noria.connect(server_url, namespace=noria.namespace) as other:
        async with noria.worker(old):
            assert [s.id for s in await noria.schedules.list()] == ["planned"]
        async with noria.worker(new), other.worker(old):
            assert await noria.schedules.list() == []
        async with other.worker(old):
            assert [s.id for s in await noria.schedules.list()] == ["planned"]
