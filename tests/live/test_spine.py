"""A workflow end to end: what issue "The wheel turns" promises, on a real server."""

from __future__ import annotations

import asyncio
import json

import nats
import pytest
from pydantic import BaseModel

from noria import (
    Context,
    InvalidInput,
    NonRetryable,
    Noria,
    NoWorker,
    Retry,
    RunAlreadyStarted,
    RunStillActive,
    StepTimeout,
    Workflow,
    WorkflowNotCommitted,
    WorkflowNotFound,
    step,
)  # fmt: skip
from noria.actor import perform, sleeping


class Order(BaseModel):
    sku: str
    quantity: int = 1


@step
async def reserve(order: Order, ctx: Context) -> dict[str, int]:
    ctx.set_state(reserved=order.quantity)
    return {"total": order.quantity * 10}


@step
def double(data: dict[str, int]) -> int:
    return data["total"] * 2


order = Workflow("order", input=Order, output=int).then(reserve).then(double).commit()


async def test_a_run_gives_its_result_its_state_and_its_records(noria: Noria) -> None:
    async with noria.worker(order):
        result = await noria.run(order, {"sku": "wheel", "quantity": 3}, resource_id="shop-1")
    assert (result.status, result.unwrap(), result.state) == ("success", 60, {"reserved": 3})
    assert result.input == {"sku": "wheel", "quantity": 3}
    assert [(k, v.status, v.output) for k, v in result.steps.items()] == [("reserve", "success", {"total": 30}), ("double", "success", 60)]
    assert result.steps["double"].input == {"total": 30}
    assert result.started_at and result.ended_at and result.started_at.tzinfo and result.started_at <= result.ended_at


async def test_a_run_id_starts_once(noria: Noria) -> None:
    async with noria.worker(order):
        run = noria.create_run(order, "r-1")
        await run.start({"sku": "a"})
        with pytest.raises(RunAlreadyStarted):
            await run.start({"sku": "a"})
        answers = await asyncio.gather(*(noria.create_run(order, "r-2").start_async({"sku": "a"}) for _ in range(8)), return_exceptions=True)
    assert sorted(type(a).__name__ for a in answers) == ["RunAlreadyStarted"] * 7 + ["str"]


async def test_bad_input_is_refused_and_nothing_is_recorded(noria: Noria) -> None:
    async with noria.worker(order):
        with pytest.raises(InvalidInput, match="sku") as caught:
            await noria.run(order, {"quantity": 1}, run_id="bad")
        assert caught.value.errors()[0]["loc"] == ("sku",)
        assert await noria.runs.get("bad", order) is None
        with pytest.raises(InvalidInput, match="run id"):
            noria.create_run(order, "no spaces or.dots")


async def test_unknown_and_uncommitted_workflows_are_named(noria: Noria) -> None:
    with pytest.raises(WorkflowNotFound, match="nothing-here"):
        await noria.run("nothing-here", 1)
    with pytest.raises(WorkflowNotCommitted):
        await noria.run(Workflow("draft").then(double), {"total": 1})


async def test_a_start_without_a_worker_waits_for_one(noria: Noria) -> None:
    run = noria.create_run(order)
    with pytest.raises(NoWorker):
        await run.start({"sku": "a"}, timeout=0.3)
    record = await run.get()
    assert record is not None and record.status == "pending"
    assert [r.status for r in (await noria.runs.list()).runs] == ["pending"]
    async with noria.worker(order):
        assert (await run.result(timeout=10)).status == "success"


async def test_a_step_input_that_does_not_fit_fails_the_run(noria: Noria) -> None:
    calls = []

    @step(retry=Retry(attempts=3))
    async def strict(data: Order) -> str:
        calls.append(data)
        return "never"

    flow = Workflow("strict-flow").then(strict).commit()
    async with noria.worker(flow):
        result = await noria.run(flow, {"quantity": "many"})
    assert result.status == "failed" and not calls
    assert result.error is not None and result.error.type == "InvalidInput"
    assert result.error.message.startswith("Step input validation failed: ") and "- sku:" in result.error.message


async def test_retries_back_off_and_keep_the_key(noria: Noria) -> None:
    seen: list[tuple[int, str]] = []

    @step(retry=Retry(attempts=3, delay=0.01, backoff=2))
    async def flaky(x: int, ctx: Context) -> int:
        seen.append((ctx.attempt, ctx.idempotency_key))
        ctx.set_state(tries=ctx.attempt)
        if ctx.attempt < 2:
            raise ConnectionError("again")
        return x

    @step(retry=Retry(attempts=5))
    async def hopeless(x: int) -> int:
        seen.append((99, "hopeless"))
        raise NonRetryable("never")

    flow = Workflow("flaky-flow").then(flaky).then(hopeless).commit()
    async with noria.worker(flow):
        result = await noria.run(flow, 1)
    assert [a for a, _ in seen] == [0, 1, 2, 99] and len({k for a, k in seen if a < 99}) == 1
    assert result.steps["flaky"].attempts == 3 and result.state == {"tries": 2}
    assert (result.status, result.error.type, result.error.message) == ("failed", "NonRetryable", "never")


async def test_a_long_back_off_waits_behind_a_timer(noria: Noria) -> None:
    @step(retry=Retry(attempts=1, delay=2.3))
    async def slow_retry(x: int, ctx: Context) -> int:
        if ctx.attempt == 0:
            raise ConnectionError("later")
        return x + 1

    flow = Workflow("slow-retry").then(slow_retry).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        waiting = asyncio.create_task(run.start(1))
        async with asyncio.timeout(20):
            while (record := await run.get()) is None or record.status != "waiting":
                assert not waiting.done()
                await asyncio.sleep(0.02)
        result = await waiting
    assert (result.status, result.result, result.steps["slow-retry"].attempts) == ("success", 2, 2)


async def test_a_step_past_its_timeout_fails(noria: Noria) -> None:
    @step(timeout=0.05)
    async def sleepy(x: int) -> int:
        await asyncio.sleep(5)
        return x

    flow = Workflow("sleepy-flow").then(sleepy).commit()
    async with noria.worker(flow):
        result = await noria.run(flow, 1)
    assert result.status == "failed" and result.error.type == StepTimeout.__name__ and "sleepy" in result.error.message


async def test_nested_workflows_and_mappings(noria: Noria) -> None:
    @step
    async def inc(x: int, ctx: Context) -> int:
        ctx.set_state({f"at{x}": ctx.init_data})
        return x + 1

    inner = Workflow("inner", input=int).then(inc).then(inc.clone(id="inc2")).commit()
    flow = Workflow("outer").then(inner).map(lambda x: {"x": x}).map(lambda p: p["x"] * 2, id="twice").commit()
    async with noria.worker(flow):
        result = await noria.run(flow, 5)
        record = await noria.runs.get(result.run_id)
    assert (result.status, result.result, list(result.steps)) == ("success", 14, ["inner", "mapping-1", "twice"])
    assert record is not None and list(record.steps) == ["inner", "inner.inc", "inner.inc2", "mapping-1", "twice"]
    assert result.state == {"at5": 5, "at6": 5}


async def test_callbacks_come_before_the_caller_gets_the_result(noria: Noria) -> None:
    seen: list[str] = []

    async def finished(result) -> None:
        seen.append(f"finish {result.status} {result.result}")

    def failed(result, ctx: Context) -> None:
        seen.append(f"error {result.error.message} {ctx.run_id}")
        raise RuntimeError("ignored")

    @step
    async def maybe(x: int) -> int:
        if x < 0:
            raise ValueError("negative")
        return x

    flow = Workflow("called-back", on_finish=finished, on_error=failed).then(maybe).commit()
    async with noria.worker(flow):
        assert (await noria.run(flow, 1)).status == "success"
        assert seen == ["finish success 1"]
        assert (await noria.run(flow, -1, run_id="neg")).status == "failed"
    assert seen == ["finish success 1", "finish failed None", "error negative neg"]


async def test_a_stream_shows_the_six_events_and_observe_shows_them_again(noria: Noria) -> None:
    async with noria.worker(order):
        run = noria.create_run(order)
        stream = run.stream({"sku": "a", "quantity": 2})
        events = [e async for e in stream]
        result = await stream.result()
        again = [e async for e in run.observe()]
    expected = ["workflow-start", "workflow-step-start", "workflow-step-result", "workflow-step-start", "workflow-step-result", "workflow-finish"]
    assert [e.type for e in events] == expected and [e.step for e in events] == [None, "reserve", "reserve", "double", "double", None]
    assert [e.id for e in again] == [e.id for e in events] and result.result == 40
    assert events[2].data["output"] == {"total": 20} and events[-1].data["result"] == 40
    assert [e.sequence for e in events] == sorted(e.sequence for e in events)


async def test_anybody_can_subscribe_and_sees_cloudevents(noria: Noria, server_url: str) -> None:
    client = await nats.connect(server_url)
    seen = []

    async def note(msg) -> None:
        assert msg.headers["Content-Type"].startswith("application/cloudevents")
        body = json.loads(msg.data)
        seen.extend(body if isinstance(body, list) else [body])

    await client.subscribe(f"{noria.namespace}.run.>", cb=note)
    await client.flush()
    async with noria.worker(order):
        result = await noria.run(order, {"sku": "a"})
    await client.flush()
    await asyncio.sleep(0.1)
    await client.close()
    types = ["workflow-start", "workflow-step-result", "workflow-step-result", "workflow-finish"]
    assert [e["type"] for e in seen] == [f"io.noria.{t}.v1" for t in types]
    for event in seen:
        assert event["specversion"] == "1.0" and event["source"] == f"/{noria.namespace}/order" and event["subject"] == result.run_id
    assert len({e["id"] for e in seen}) == len(seen)


async def test_runs_are_listed_and_deleted(noria: Noria) -> None:
    async with noria.worker(order):
        for n in range(5):
            await noria.run(order, {"sku": "a"}, run_id=f"r{n}", resource_id="even" if n % 2 == 0 else "odd")
        page = await noria.runs.list(order, limit=2)
        assert (page.total, [r.run_id for r in page.runs]) == (5, ["r4", "r3"])
        assert {r.run_id for r in (await noria.runs.list(resource_id="odd")).runs} == {"r1", "r3"}
        assert (await noria.runs.list(status="failed")).total == 0
        await noria.runs.delete("r1")
        assert await noria.runs.get("r1") is None and (await noria.runs.list()).total == 4
        with pytest.raises(RunAlreadyStarted):
            await noria.run(order, {"sku": "a"}, run_id="r1")
    await noria.create_run(order, "waits").start_async({"sku": "a"})
    with pytest.raises(RunStillActive):
        await noria.runs.delete("waits")


async def test_large_values_travel_through_the_blobs(noria: Noria) -> None:
    @step
    async def grow(x: str) -> str:
        return x * 3

    flow = Workflow("large").then(grow).then(grow.clone(id="shrink")).map(lambda x: len(x)).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        result = await run.start("y" * 400_000)
        events = [e.type async for e in run.observe()]
    assert (result.status, result.result) == ("success", 3_600_000)
    assert len(result.steps["shrink"].output) == 3_600_000 and events[-1] == "workflow-finish"


async def test_a_workflow_past_its_timeout_fails_and_suspensions_do_not_count(noria: Noria) -> None:
    @step
    async def waits(x: float, ctx: Context) -> float:
        if ctx.resume_data is None and x < 0:
            ctx.suspend()
        await asyncio.sleep(max(x, 0))
        return x

    flow = Workflow("bounded", timeout=1.5).then(waits).commit()
    async with noria.worker(flow):
        late = await noria.run(flow, 30.0)
        run = noria.create_run(flow)
        assert (await run.start(-1.0)).status == "suspended"
        await asyncio.sleep(1.6)
        in_time = await run.resume(1)
    assert late.status == "failed" and late.error.type == "StepTimeout" and "bounded" in late.error.message
    assert in_time.status == "success"


@pytest.mark.parametrize("shape", ["sleep", "retry", "nested", "spread", "parallel"])
async def test_a_run_that_rests_behind_a_timer_fails_at_its_timeout(noria: Noria, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (perform, sleeping):
        monkeypatch.setattr(room, "LINGER_SECONDS", 0.5)

    @step(retry=Retry(attempts=1, delay=60))
    async def breaks(x: object) -> None:
        raise ValueError("later perhaps")

    sleeps, bounded = Workflow("sleeps").sleep(60), Workflow("bounded", timeout=1.4)
    flow = {
        "sleep": bounded.sleep(60), "retry": bounded.then(breaks), "nested": bounded.then(sleeps), "parallel": bounded.parallel(sleeps, breaks),
        "spread": bounded.map(lambda x: [x, x]).foreach(sleeps, concurrency=2, placement="spread"),
    }[shape].commit()  # fmt: skip
    free = Workflow("free", timeout=3600).sleep(1.7).commit()
    async with noria.worker(flow, free):
        run, other = noria.create_run(flow), asyncio.create_task(noria.run(free, 1, timeout=20))
        await run.start_async(1)
        async with asyncio.timeout(5):
            while (record := await run.get()) is None or record.status not in ("waiting", "failed"):
                await asyncio.sleep(0.02)
        assert record.status == "waiting"
        result = await run.result(timeout=8)
        assert (await other).status == "success"
    assert result.status == "failed" and result.error is not None and result.error.type == "StepTimeout" and "bounded" in result.error.message
    assert "waiting" not in {r.status for r in result.steps.values()}


async def test_a_timeout_stops_spread_children(noria: Noria) -> None:
    began, stopped = asyncio.Event(), asyncio.Event()

    @step
    async def hangs(x: int) -> int:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
        return x

    flow = Workflow("hanging", timeout=0.7).foreach(hangs, placement="spread").commit()
    async with noria.worker(flow, lease=30, grace=0):
        result = await noria.run(flow, [1], timeout=10)
        assert result.status == "failed" and result.error is not None and result.error.type == "StepTimeout" and began.is_set()
        await asyncio.wait_for(stopped.wait(), 5)
