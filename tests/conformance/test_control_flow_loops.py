"""Control flow, areas loops, foreach and retry."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from noria import Context, Noria, Retry, Step, Workflow, step
from tests.conformance.conftest import Lag, Run
from tests.conformance.doubles import adds, failed, fails, gives, outputs, timed

ITEMS = [{"value": 1}, {"value": 22}, {"value": 333}]
MAPPED = [{"value": 12}, {"value": 33}, {"value": 344}]
WAIT = 0.25


class Item(BaseModel):
    value: int


class State(BaseModel):
    output: int


def final() -> Step:
    return gives("final", lambda data: {"finalValue": data["value"]})


def summed() -> Step:
    return gives("final", lambda data: {"finalValue": sum(item["value"] for item in data)})


async def looped(run: Run, calls: Counter[str], flow: Workflow) -> None:
    result = await run(flow.then(final()), {"target": 10, "value": 0})
    assert result.status == "success" and result.result == {"finalValue": 12} and calls == {"increment": 12}
    assert outputs(result) == {"increment": {"value": 12}, "final": {"finalValue": 12}}
    assert result.steps["increment"].iterations == 12


@pytest.mark.row("loops-until")
async def test_repeat_until(run: Run, calls: Counter[str]) -> None:
    flow = Workflow("until", validate=False).do_until(adds("increment", 1, calls), lambda out: out["value"] >= 12)
    await looped(run, calls, flow)


@pytest.mark.row("loops-while")
async def test_repeat_while(run: Run, calls: Counter[str]) -> None:
    flow = Workflow("while", validate=False).do_while(adds("increment", 1, calls), lambda out: out["value"] < 12)
    await looped(run, calls, flow)


@pytest.mark.row("loops-body-runs-once-at-least")
async def test_the_body_runs_before_the_condition(run: Run, calls: Counter[str]) -> None:
    flow = Workflow("once").do_while(adds("step1", 1, calls, key="count"), lambda out: out["count"] < 10)
    result = await run(flow, {"count": 10})
    assert result.status == "success" and calls == {"step1": 1} and outputs(result) == {"step1": {"count": 11}}


@pytest.mark.row("loops-accumulate")
async def test_each_round_gets_the_output_of_the_last(run: Run) -> None:
    def accumulate(data: Any) -> Any:
        items = data.get("items") or []
        return {"items": [*items, f"item-{len(items) + 1}"], "count": (data.get("count") or 0) + 1}

    flow = Workflow("items", validate=False).do_until(gives("accumulate", accumulate), lambda out: out["count"] >= 3)
    result = await run(flow, {})
    assert result.status == "success" and result.result == {"count": 3, "items": ["item-1", "item-2", "item-3"]}


async def each(run: Run, items: list[Any], **options: Any) -> tuple[Any, int, float]:
    """foreach over a slow step: (result, peak of calls at once, seconds from the first start to the last end)."""
    active, peaks, loop = 0, [0], asyncio.get_running_loop()
    times: list[float] = []

    @step(id="map")
    async def slow(data: dict[str, int]) -> dict[str, int]:
        nonlocal active
        active += 1
        peaks.append(active)
        times.append(loop.time())
        await asyncio.sleep(WAIT)
        active -= 1
        times.append(loop.time())
        return {"value": data["value"] + 11}

    result = await run(Workflow("each", validate=False).foreach(slow, **options).then(summed()), items)
    return result, max(peaks), max(times) - min(times)


@pytest.mark.row("foreach-sequential-default")
async def test_items_one_by_one(run: Run) -> None:
    result, peak, seconds = await each(run, ITEMS)
    assert peak == 1 and seconds > 2.8 * WAIT
    assert result.input == result.steps["map"].input == ITEMS
    assert outputs(result) == {"map": MAPPED, "final": {"finalValue": 389}} and result.steps["final"].input == MAPPED
    timed(result, "map", "final")


@pytest.mark.row("foreach-concurrent")
async def test_all_items_at_once(run: Run, lag: Lag) -> None:
    result, peak, seconds = await each(run, ITEMS, concurrency=3)
    assert peak == 3 and seconds < 2 * WAIT + 5 * lag()
    assert outputs(result) == {"map": MAPPED, "final": {"finalValue": 389}}


@pytest.mark.row("foreach-partial-concurrency")
async def test_the_limit_is_used_fully_and_never_passed(run: Run) -> None:
    result, peak, _ = await each(run, [{"value": n} for n in (1, 2, 3, 4)], concurrency=2)
    assert peak == 2
    assert outputs(result) == {"map": [{"value": n} for n in (12, 13, 14, 15)], "final": {"finalValue": 54}}


@pytest.mark.row("foreach-empty-list")
async def test_an_empty_list(run: Run, calls: Counter[str]) -> None:
    counts = gives("final", lambda data: {"count": len(data)})
    flow = Workflow("empty", validate=False).foreach(gives("map", {"value": 100}, calls)).then(counts)
    result = await run(flow, [])
    assert outputs(result) == {"map": [], "final": {"count": 0}} and not calls


@pytest.mark.row("foreach-after-generator-step")
async def test_a_list_made_by_a_step(run: Run, calls: Counter[str]) -> None:
    @step(id="transform")
    async def transform(item: Item) -> dict[str, int]:
        calls["transform"] += 1
        return {"doubled": item.value * 2}

    flow = (
        Workflow("generated").then(gives("generate", lambda data: [{"value": n + 1} for n in range(data["count"])]))
        .foreach(transform).then(gives("sum", lambda data: {"total": sum(item["doubled"] for item in data)}))
    )  # fmt: skip
    result = await run(flow, {"count": 3})
    assert result.status == "success" and calls == {"transform": 3}
    doubled = [{"doubled": n} for n in (2, 4, 6)]
    assert outputs(result) == {"generate": [{"value": n} for n in (1, 2, 3)], "transform": doubled, "sum": {"total": 12}}


@pytest.mark.row("foreach-bail")
async def test_bail_in_an_item_ends_the_run(run: Run) -> None:
    seen: list[int] = []

    @step(id="bail-step")
    async def bails(item: int, ctx: Context) -> int:
        seen.append(item)
        if ctx.state.output > 1:
            ctx.bail([15])
        ctx.set_state(output=item)
        return item

    result = await run(Workflow("bails", state=State).foreach(bails), [1, 2, 3, 4], state={"output": 0})
    assert (result.status, result.state, result.result, seen) == ("success", {"output": 2}, [15], [1, 2, 3])


@pytest.mark.row("foreach-aggregate")
async def test_results_are_collected_in_order(run: Run) -> None:
    def aggregate(data: Any) -> Any:
        return {"names": [d["name"] for d in data], "totalScore": sum(d["score"] for d in data), "count": len(data)}

    people = [{"name": "alice", "score": 5}, {"name": "bob", "score": 3}, {"name": "charlie", "score": 7}]
    process = gives("process", lambda data: {"name": data["name"].upper(), "score": data["score"] * 10})
    flow = Workflow("aggregate", validate=False).foreach(process).then(gives("aggregate", aggregate))
    result = await run(flow, people)
    assert result.status == "success"
    assert outputs(result) == {
        "process": [{"name": "ALICE", "score": 50}, {"name": "BOB", "score": 30}, {"name": "CHARLIE", "score": 70}],
        "aggregate": {"names": ["ALICE", "BOB", "CHARLIE"], "totalScore": 150, "count": 3},
    }


@pytest.mark.row("foreach-progress-failure")
async def test_a_failing_item_emits_progress_and_stops(noria: Noria) -> None:
    seen: list[int] = []

    @step(id="map")
    async def fussy(data: dict[str, int]) -> dict[str, int]:
        seen.append(data["value"])
        if data["value"] == 22:
            raise RuntimeError("Iteration failed for value 22")
        return {"value": data["value"] + 11}

    flow = Workflow("progress", validate=False).foreach(fussy).then(summed())
    async with noria.worker(flow, lease=5):
        stream = noria.create_run(flow).stream(ITEMS, timeout=20)
        events = [event async for event in stream if event.type == "workflow-step-progress"]
        result = await stream.result()
    first = {"completed": 1, "total": 3, "index": 0, "status": "success", "output": {"value": 12}}
    assert {e.step for e in events} == {"map"} and {k: events[0].data.get(k) for k in first} == first
    assert [(e.data["index"], e.data["status"], e.data["completed"]) for e in events[1:]] == [(1, "failed", 2)]
    assert seen == [1, 22]
    failed(result, "map", "Iteration failed for value 22")


async def retried(run: Run, calls: Counter[str], retry: Retry, tries: int) -> None:
    first, second = gives("step1", {"result": "success"}, calls), fails("step2", "Step failed", calls)
    flow = Workflow("retries", retry=retry).then(first).then(second)
    result = await run(flow, {})
    assert calls == {"step1": 1, "step2": tries} and result.steps["step2"].attempts == tries
    assert result.steps["step1"].output == result.steps["step2"].input == {"result": "success"}
    assert result.steps["step1"].status == "success" and result.steps["step1"].input == {}
    failed(result, "step2", "Step failed")


@pytest.mark.row("retry-default-none")
async def test_no_retry_by_default(run: Run, calls: Counter[str]) -> None:
    await retried(run, calls, Retry(), 1)


@pytest.mark.row("retry-workflow-config")
async def test_the_workflow_retry_applies_to_each_step(run: Run, calls: Counter[str]) -> None:
    await retried(run, calls, Retry(attempts=5, delay=0.01), 6)


@pytest.mark.row("retry-count-zero-first-run")
async def test_attempt_is_zero_at_first(run: Run) -> None:
    def counting(id: str) -> Step:
        async def count(ctx: Context) -> dict[str, int]:
            return {"count": ctx.attempt}

        return step(count, id=id)

    result = await run(Workflow("attempts").then(counting("step1")).then(counting("step2")), {})
    assert result.status == "success" and outputs(result) == {"step1": {"count": 0}, "step2": {"count": 0}}


@pytest.mark.row("retry-two-loops-in-a-row")
async def test_two_loops_in_a_row(run: Run, calls: Counter[str]) -> None:
    first, second = adds("step1", 1, calls, key="count"), adds("step2", 1, calls, key="count")
    flow = Workflow("loops").do_while(first, lambda out: out["count"] < 3).do_until(second, lambda out: out["count"] == 10)
    result = await run(flow, {"count": 0})
    assert result.status == "success" and outputs(result) == {"step1": {"count": 3}, "step2": {"count": 10}}
    assert calls == {"step1": 3, "step2": 7}
