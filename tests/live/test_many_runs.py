"""Many runs: listed, deleted, forgotten in time, cancelled wherever they run."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest
from tests.conformance.doubles import fails, gives

from noria import Context, InvalidInput, Noria, NoWorker, Retry, RunAlreadyStarted, RunNotFound, RunStillActive, Workflow, step
from noria.actor import resting, retention
from noria.contract.subjects import Subjects
from noria.ports import RunKey


@step
async def ask(x: int, ctx: Context) -> int:
    return x if ctx.resume_data is not None else ctx.suspend()


quick = Workflow("quick").then(gives("one", lambda x: x)).commit()
parked = Workflow("parked").then(ask).commit()


async def many(noria: Noria, flow: Workflow, count: int, prefix: str) -> None:
    for at in range(0, count, 250):
        await asyncio.gather(*(noria.run(flow, n, run_id=f"{prefix}{at + n}", resource_id=f"u{n % 10}") for n in range(min(250, count - at))))


async def stored(noria: Noria, run_id: str) -> int:
    """Messages that a run has in the log and among the blobs."""
    subjects, total = Subjects(noria.namespace), 0
    for stream, wanted in ((subjects.runs, f"{noria.namespace}.*.*.{run_id}.>"), (subjects.blobs, f"{noria.namespace}.blob.*.{run_id}.>")):
        info = await noria.broker.connection.api(f"STREAM.INFO.{stream}", {"subjects_filter": wanted})
        total += sum((info["state"].get("subjects") or {}).values())
    return total


async def test_ten_thousand_runs_are_listed_in_under_two_seconds(noria: Noria) -> None:
    async with noria.worker(quick, parked):
        await many(noria, quick, 8_000, "q")
        await many(noria, parked, 2_000, "p")
    noria.registry[quick.id] = quick
    await asyncio.gather(*(noria.create_run(quick, f"pending{n}").start_async(n) for n in range(100)))
    for options, total in (
        ({}, 10_100), ({"limit": 100_000}, 10_100), ({"status": "suspended"}, 2_000), ({"status": "pending"}, 100),
        ({"resource_id": "u3", "offset": 500}, 1_000), ({"workflow": "parked"}, 2_000), ({"since": datetime.now(UTC)}, 0),
    ):  # fmt: skip
        began = time.perf_counter()
        page = await noria.runs.list(**options)
        took = time.perf_counter() - began
        print(f"{options}: {len(page.runs)} of {page.total} in {took:.3f} s")
        assert page.total == total and took < 2
    newest = (await noria.runs.list(limit=100_000)).runs
    assert [r.created_at for r in newest] == sorted((r.created_at for r in newest), reverse=True)
    pages = [r.run_id for n in range(3) for r in (await noria.runs.list(limit=50, offset=50 * n)).runs]
    assert pages == [r.run_id for r in newest[:150]]


async def test_a_list_reads_ones_own_writes(noria: Noria) -> None:
    async with noria.worker(parked, lease=5):
        run = noria.create_run(parked)
        await run.start(1)
        assert (await noria.runs.list()).runs[0].status == "suspended"
    await run.cancel()
    assert (await noria.runs.list()).runs[0].status == "canceled" and (await noria.runs.list(status="suspended")).total == 0
    for bad in ({"status": "done"}, {"limit": -1}, {"offset": -1}, {"since": datetime.now()}):
        with pytest.raises(InvalidInput):
            await noria.runs.list(**bad)


async def test_delete_removes_everything_also_of_children_and_timers(noria: Noria) -> None:
    big = Workflow("big").foreach(gives("item", lambda x: x), placement="spread").sleep(3600).commit()
    async with noria.worker(big, parked, lease=5):
        run = noria.create_run(big, "large")
        await run.start_async(["x" * 200_000] * 3)
        async with asyncio.timeout(20):
            while (record := await run.get()) is None or record.status != "waiting":
                await asyncio.sleep(0.05)
        with pytest.raises(RunStillActive):
            await noria.runs.delete("large")
        waiting = asyncio.create_task(noria.create_run("big", "large").result())
        await asyncio.sleep(0.1)
        assert await stored(noria, "large") > 5
        await noria.runs.delete("large", force=True)
        assert (await waiting).status == "canceled"
        assert await stored(noria, "large") == 0 and await noria.runs.get("large") is None and (await noria.runs.list()).total == 0
        with pytest.raises(RunAlreadyStarted):
            await run.start([])
        with pytest.raises(RunNotFound):
            await noria.runs.delete("large")
    await noria.create_run(parked, "nobody").start_async(1)
    await noria.runs.delete("nobody", force=True)
    assert (await noria.runs.list()).total == 0
    with pytest.raises(RunNotFound, match="deleted"):
        await noria.create_run(parked, "nobody").result(timeout=5)


async def test_two_workflows_may_share_a_run_id(noria: Noria) -> None:
    async with noria.worker(quick, parked, lease=5):
        await noria.run(quick, 1, run_id="same")
        await noria.run(parked, 1, run_id="same")
        with pytest.raises(InvalidInput, match="'parked', 'quick'"):
            await noria.runs.delete("same")
        assert (await noria.runs.get("same", "quick")).status == "success" and (await noria.runs.get("same", parked)).status == "suspended"


@pytest.mark.parametrize("kept", [0, 1.0, None])
async def test_an_ended_run_is_kept_as_long_as_its_workflow_says(
    noria: Noria, server_url: str, kept: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "RETENTION_GRACE_SECONDS", 3.0)
    swept = asyncio.Event()

    @step
    async def one(x: str) -> int:
        if x == "held":
            await swept.wait()
        return len(x)

    flow = Workflow("brief", retention=kept).then(gives("big", lambda x: x if x == "held" else "y" * 300_000)).then(one).commit()
    async with Noria.connect(server_url, namespace=noria.namespace) as other, noria.worker(flow, lease=5):
        run = noria.create_run(flow, "r1")
        assert (await run.start(1)).result == 300_000
        async with asyncio.timeout(5):
            while kept is not None and await noria.runs.get("r1") is not None:
                await asyncio.sleep(0.05)
        hidden = kept is not None
        assert (await other.runs.get("r1") is None) is hidden and ((await other.runs.list()).total == 0) is hidden
        with pytest.raises(RunAlreadyStarted):
            await run.start(1)
        assert await stored(noria, "r1") > 0
        if hidden:
            stored_record = await noria.broker.records.get(RunKey("brief", "r1"))
            assert stored_record is not None  # it vanishes by itself, after a grace for those who wait for its result
            async with asyncio.timeout(20):
                while (record := await noria.broker.records.get(RunKey("brief", "r1"))) is not None and record.body:
                    await asyncio.sleep(0.2)
            assert record is not None, "its id stays taken"
        held = noria.create_run(flow, "held")
        await held.start_async("held")
        assert await retention.sweep(noria.broker, flow) == (1 if hidden else 0), "what goes on is spared"
        swept.set()
        assert (await stored(noria, "r1") == 0) == hidden and (await held.result(timeout=10)).status == "success"


async def test_of_many_workers_one_sweeps(noria: Noria) -> None:
    flow = Workflow("claimed", retention=1).then(gives("one", 1)).commit()
    await noria.broker.provision()
    claims = [await retention._is_mine(noria.broker, flow, 60) for _ in range(3)]  # pyright: ignore[reportPrivateUsage]
    assert claims == [True, False, False] and (await noria.runs.list()).total == 0


async def test_cancel_reaches_spread_children_back_offs_and_sleeps_within_moments(noria: Noria, server_url: str) -> None:
    begun, stopped = asyncio.Semaphore(0), list[str]()

    async def hold(x: int, ctx: Context) -> int:
        begun.release()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.append(ctx.step_id or "")
            raise
        return x

    held = step(hold, id="held")
    flaky = fails("flaky", "again", retry=Retry(attempts=5, delay=1.9))
    inner = Workflow("inner").then(gives("pass", lambda x: x)).then(held)
    flow = Workflow("wide").parallel(
        Workflow("spread").foreach(inner, concurrency=6, placement="spread"), Workflow("back-off").then(flaky), Workflow("naps").sleep(1.9)
    )  # fmt: skip
    async with Noria.connect(server_url, namespace=noria.namespace) as other, noria.worker(flow, lease=5), other.worker(flow.commit(), lease=5):
        run = noria.create_run(flow)
        waiting = asyncio.create_task(run.start([1, 2, 3, 4, 5, 6], timeout=30))
        for _ in range(6):
            await asyncio.wait_for(begun.acquire(), 10)
        began = time.perf_counter()
        await other.create_run("wide", run.id).cancel()
        took = time.perf_counter() - began
        assert (await waiting).status == "canceled"
        async with asyncio.timeout(3):
            while len(stopped) < 6:
                await asyncio.sleep(0.005)
        print(f"cancel() {took * 1000:.0f} ms; all children stopped after {(time.perf_counter() - began) * 1000:.0f} ms")
        record = await run.get()
        assert record is not None and {r.status for r in record.steps.values()} <= {"canceled", "success"} and took < 2
        await asyncio.sleep(0.3)
        assert (await run.get()).status == "canceled"


async def test_a_completion_that_was_faster_wins(noria: Noria) -> None:
    flow = Workflow("races").then(gives("one", 1)).commit()
    async with noria.worker(flow, lease=5):
        for n in range(30):
            run = noria.create_run(flow)
            starting = asyncio.create_task(run.start(1, timeout=20))
            await asyncio.sleep(n * 0.0003)
            await run.cancel()
            result = await starting
            record = await run.get()
            assert record is not None and record.status == result.status and result.status in ("success", "canceled")


async def test_cancel_of_a_run_that_nobody_hosts(noria: Noria) -> None:
    flow = Workflow("alone").then(gives("one", 1)).commit()
    with pytest.raises(RunNotFound):
        await noria.create_run(flow, "unknown").cancel()
    run = noria.create_run(flow)
    await run.start_async(1)
    with pytest.raises(NoWorker):
        await run.cancel(timeout=0.3)
    async with noria.worker(flow, lease=5):
        assert (await run.result(timeout=10)).status in ("canceled", "success")  # the command stayed
