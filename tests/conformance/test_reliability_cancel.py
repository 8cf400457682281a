"""Area cancel of reliability.yaml."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from noria import Context, Noria, Workflow, step
from noria.errors import NoriaError
from tests.conformance.doubles import closed_store, drained, fails, gives, types
from tests.conformance.test_reliability_concurrency import again, all_acknowledged, asks


@pytest.mark.row("CN-01")
@pytest.mark.row("CN-08")
async def test_canceling_a_run_that_ended_changes_nothing(noria: Noria) -> None:
    good, bad = Workflow("good").then(gives("one", 1)).commit(), Workflow("bad").then(fails("one", "no")).commit()
    async with noria.worker(good, bad):
        for flow, end in ((good, "success"), (bad, "failed")):
            await noria.create_run(flow, end).start(1)
            handle = noria.create_run(flow, end)
            assert (await handle.get()).status == end
            await handle.cancel()
            assert (await handle.get()).status == end


@pytest.mark.row("CN-02")
@pytest.mark.not_applicable(6, "every run is recorded")
async def test_canceling_without_snapshots() -> None: ...


@pytest.mark.row("CN-04")
async def test_the_cascade_spares_what_ended_and_what_is_unrelated(noria: Noria) -> None:
    inner = Workflow("inner").then(asks).commit()
    flow = Workflow("flow").parallel(inner, Workflow("done").then(gives("one", 1))).commit()
    async with noria.worker(flow, inner):
        parent, unrelated = noria.create_run(flow), noria.create_run(inner)
        assert (await parent.start(1)).status == (await unrelated.start(1)).status == "suspended"
        await parent.cancel()
        record = await parent.get()
        assert record is not None and record.status == "canceled"
        assert (record.steps["inner"].status, record.steps["done"].status) == ("canceled", "success")
        assert (await unrelated.get()).status == "suspended"


@pytest.mark.row("CN-05")
@pytest.mark.row("CN-07")
async def test_a_cancel_meets_a_run_that_moves(noria: Noria) -> None:
    """Whichever of the two the log orders first wins, and everybody is told the same."""
    flow = Workflow("flow").then(Workflow("inner").then(asks)).commit()
    async with noria.worker(flow):
        for _ in range(20):
            run = noria.create_run(flow)
            await run.start(1)
            resumed, _ = await asyncio.gather(run.resume("go"), noria.create_run(flow, run.id).cancel(), return_exceptions=True)
            record = await run.get()
            assert record is not None and record.status in ("success", "canceled")
            assert isinstance(resumed, NoriaError) or resumed.status == record.status
            assert record.steps["inner"].status == record.status


@pytest.mark.parametrize("hosted", [True, False])
async def test_many_cancels_from_anywhere_are_one(noria: Noria, server_url: str, hosted: bool) -> None:
    """Of a run that is suspended two workflows deep, from another process that knows its id, at once and again."""
    flow = Workflow("parent").then(Workflow("child").then(Workflow("grandchild").then(asks))).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert (await run.start(1)).status == "suspended"
        if hosted:
            await canceled_at_once(server_url, noria.namespace, run.id)
    if not hosted:
        await canceled_at_once(server_url, noria.namespace, run.id)
    async with noria.worker(flow, lease=5):
        events = await drained(run.observe())
        assert (await run.result()).status == "canceled"
    assert types(events)[-2:] == ["canceled", "finish"] and types(events).count("canceled") == 1


async def canceled_at_once(server_url: str, namespace: str, id: str) -> None:
    async with Noria.connect(server_url, namespace=namespace) as other:
        await asyncio.gather(*(other.create_run("parent", id).cancel() for _ in range(5)))
        await other.create_run("parent", id).cancel()
        record = await other.runs.get(id)
    assert record is not None and record.status == "canceled" and record.suspended == []
    assert {name: step.status for name, step in record.steps.items()} == dict.fromkeys(
        ["child", "child.grandchild", "child.grandchild.asks"], "canceled"
    )


@pytest.mark.row("CN-06")
@pytest.mark.parametrize("until", [False, True])
async def test_a_cancel_wakes_a_sleeping_run(noria: Noria, calls: Counter[str], until: bool) -> None:
    begun = Workflow("flow")
    slept = begun.sleep_until(datetime.now(UTC) + timedelta(seconds=60)) if until else begun.sleep(60)
    flow = slept.then(gives("after", 1, calls)).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        waiting = asyncio.create_task(run.start(1))
        await asyncio.sleep(0.2)
        await run.cancel()
        assert (await asyncio.wait_for(waiting, 5)).status == "canceled"
        await asyncio.sleep(0.2)
        assert (await run.get()).status == "canceled" and not calls


@pytest.mark.row("CN-10")
async def test_a_cancel_that_cannot_be_stored_says_so(noria: Noria) -> None:
    flow = Workflow("flow").then(asks).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start(1)
        async with closed_store(noria):
            with pytest.raises(NoriaError, match="exceeds maximum allowed"):
                await run.cancel()
        assert (await run.get()).status == "suspended"


@pytest.mark.row("CN-11")
@pytest.mark.row("CN-12")
async def test_a_canceled_run_has_one_end_and_ignores_what_comes(noria: Noria, calls: Counter[str]) -> None:
    started = asyncio.Event()

    @step
    async def slow(x: int) -> int:
        started.set()
        await asyncio.sleep(60)
        return x

    flow = Workflow("flow").then(slow).then(gives("after", 1, calls)).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start_async(1)
        await started.wait()
        await run.cancel()
        await again(noria, "flow", run.id)
        with pytest.raises(NoriaError):
            await run.resume(1)
        await all_acknowledged(noria, "flow")
        ends = [e for e in [e async for e in run.observe()] if e.type == "workflow-finish"]
        record = await run.get()
    assert [e.data["status"] for e in ends] == ["canceled"] and record is not None and record.status == "canceled" and not calls


@pytest.mark.row("CN-13")
async def test_every_step_sees_that_it_is_canceled(noria: Noria, calls: Counter[str]) -> None:
    signals, running = Counter[str](), asyncio.Event()

    def waits(id: str):
        async def wait(x: Any, ctx: Context) -> None:
            calls["began"] += 1
            if calls["began"] == 3:
                running.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                signals[id] += ctx.cancelled.is_set()
                raise

        return step(wait, id=id)

    inner = Workflow("inner").then(waits("deep")).then(gives("later", 1, calls)).commit()
    flow = Workflow("flow").parallel(waits("a"), waits("b"), inner).then(gives("last", 1, calls)).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start_async(1)
        await asyncio.wait_for(running.wait(), 10)
        await run.cancel()
    assert signals == {"a": 1, "b": 1, "deep": 1} and calls == {"began": 3}
