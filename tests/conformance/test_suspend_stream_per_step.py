"""Suspend and stream, area per-step: one step runs, then the run is paused; a resume without data goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from noria import Context, Noria, Run, RunNotSuspended, RunResult, Workflow
from tests.conformance.chains import looping, nesting, prompting
from tests.conformance.doubles import drained, gives, outputs, types, waits
from tests.conformance.test_suspend_stream_time_travel import picking


@asynccontextmanager
async def stepping(noria: Noria, flow: Workflow, input: Any) -> AsyncIterator[tuple[Run, RunResult]]:
    """A run after its first step."""
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        result = await run.start(input, per_step=True, timeout=20)
        assert result.status == "paused" and result.result is None and result.error is None
        yield run, result


async def to_the_end(run: Run) -> tuple[int, RunResult]:
    """(pauses, result) of a run that goes on step by step."""
    result, pauses = await run.resume(per_step=True), 0
    while result.status == "paused":
        result, pauses = await run.resume(per_step=True), pauses + 1
    return pauses, result


def chain(calls: Counter[str]) -> Workflow:
    return Workflow("chain").then(gives("step1", {"result": "success1"}, calls)).then(gives("step2", {"result": "success2"}, calls)).commit()


@pytest.mark.row("perstep-first-only", "perstep-continue")
async def test_the_first_step_only(noria: Noria, calls: Counter[str]) -> None:
    async with stepping(noria, chain(calls), {"input": "test"}) as (run, result):
        assert outputs(result) == {"step1": {"result": "success1"}} and calls == {"step1": 1}
        result = await run.resume()
        assert result.status == "success" and calls == {"step1": 1, "step2": 1}


@pytest.mark.row("perstep-parallel", "fs-perstep-parallel")
async def test_the_first_member_only_in_storage_too(noria: Noria, calls: Counter[str]) -> None:
    members = [gives(id, {"id": id}, calls) for id in ("stepA", "stepB")]
    flow = Workflow("members").parallel(*members).then(gives("stepC", lambda data: data, calls)).commit()
    async with stepping(noria, flow, {}) as (run, result):
        stored = await run.get()
        assert stored is not None and stored.status == "paused" and outputs(stored) == outputs(result) == {"stepA": {"id": "stepA"}}
        assert (await noria.runs.list(flow, status="paused")).total == 1 and calls == {"stepA": 1}
        assert await to_the_end(run) == (2, await run.result()) and calls == {"stepA": 1, "stepB": 1, "stepC": 1}


@pytest.mark.row("perstep-nested")
async def test_it_stops_before_a_nested_workflow(noria: Noria, calls: Counter[str]) -> None:
    async with stepping(noria, nesting(calls), {}) as (run, result):
        assert outputs(result) == {"step1": {"step1Result": 2}} and calls == {"step1": 1}
        pauses, result = await to_the_end(run)
        assert (pauses, result.result) == (3, {"final": 5})


@pytest.mark.row("cx-nested-paused")
async def test_it_stops_inside_a_nested_workflow(noria: Noria, calls: Counter[str]) -> None:
    inner = Workflow("inner").then(gives("step1", {"a": 1}, calls)).then(gives("step2", {"b": 2}, calls))
    flow = Workflow("outer").then(inner).then(gives("after", {"c": 3}, calls)).commit()
    async with stepping(noria, flow, {"x": 1}) as (run, result):
        record = result.steps["inner"]
        assert list(result.steps) == ["inner"] and calls == {"step1": 1}
        assert (record.status, record.input, record.output, record.ended_at) == ("paused", {"x": 1}, None, None) and record.started_at
        assert (await run.resume(per_step=True)).steps["inner"].status == "paused" and calls == {"step1": 1, "step2": 1}
        result = await run.resume()
        assert result.status == "success" and outputs(result) == {"inner": {"b": 2}, "after": {"c": 3}}


@pytest.mark.row("fs-stream-per-step", "ev-perstep-stream")
async def test_its_events(noria: Noria, calls: Counter[str]) -> None:
    flow = chain(calls)
    async with noria.worker(flow, lease=5):
        stream = noria.create_run(flow).stream({}, per_step=True)
        events, result = await drained(stream), await stream.result()
    assert types(events) == ["start", "step-start", "step-result", "paused", "finish"]
    assert events[-2].data == {} and events[-1].data["status"] == "paused" and "result" not in events[-1].data
    assert result.status == "paused" and list(result.steps) == ["step1"] and calls == {"step1": 1}


@pytest.mark.row("fs-perstep-branch")
async def test_the_first_of_two_true_arms(noria: Noria, calls: Counter[str]) -> None:
    async with stepping(noria, picking(calls), {"status": "success"}) as (run, _):
        result = await run.resume(per_step=True)
        assert list(result.steps) == ["step1", "step2"] and calls == {"step1": 1, "step2": 1}
        assert (await run.resume()).result == {"result": "step2step5"}


@pytest.mark.row("fs-resume-per-step")
async def test_a_resume_of_one_step(noria: Noria, calls: Counter[str]) -> None:
    flow = prompting(calls)
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start({"input": "test"})
        result = await run.resume({"userInput": "R1"}, step="promptAgent", per_step=True)
        assert (result.status, list(result.steps)) == ("paused", ["getUserInput", "promptAgent"])
        assert result.steps["promptAgent"].resume_payload == {"userInput": "R1"} and calls["evaluateTone"] == 0
        result = await run.resume()
        assert result.status == "suspended" and (await run.resume({})).status == "success"


async def test_through_loops_and_items(noria: Noria, calls: Counter[str]) -> None:
    rounds: list[int] = []
    async with stepping(noria, looping(calls, rounds), {}) as (run, _):
        pauses, result = await to_the_end(run)
        assert (result.result, pauses, rounds) == ({"value": 10}, 21, list(range(1, 11)))
    each = Workflow("each").map(lambda _: [1, 2, 3]).foreach(gives("item", lambda n: n * 2, calls), concurrency=2).map(sum).commit()
    async with stepping(noria, each, {}) as (run, result):
        assert calls["item"] == 1 and result.steps["item"].status == "paused"
        pauses, result = await to_the_end(run)
        assert (result.result, pauses, calls["item"]) == (12, 2, 3)
    again = Workflow("again").do_until(gives("once", lambda n: n + 1, calls), lambda n: n >= 3).commit()
    async with stepping(noria, again, 0) as (run, _):
        pauses, result = await to_the_end(run)
        assert (result.result, pauses, result.steps["once"].iterations) == (3, 2, 3)


async def test_data_for_a_paused_run_goes_to_what_waits_for_it_or_is_refused(noria: Noria, calls: Counter[str]) -> None:
    flow = Workflow("asks").parallel(waits("a", lambda _, data: data, calls), waits("b", lambda _, data: data, calls)).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert (await run.start(1, per_step=True, timeout=20)).status == "suspended"
        assert (await run.resume("of a", step="a", per_step=True)).status == "paused" and calls == {"a": 2}
        with pytest.raises(RunNotSuspended, match=r"it is paused; resume\(\) without data goes on"):
            await run.resume("lost")
        assert calls == {"a": 2} and (await run.resume(per_step=True)).status == "suspended"
        result = await run.resume("of b")
        assert result.result == {"a": "of a", "b": "of b"} and calls == {"a": 2, "b": 2}


async def test_what_was_resumed_and_has_to_wait_is_paused(noria: Noria, calls: Counter[str]) -> None:
    """One resume for two items, of which one goes on: nothing runs while the run is paused."""
    flow = Workflow("items").foreach(waits("item", lambda n, data: n + data, calls), concurrency=2).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert len((await run.start([1, 2], timeout=20)).suspended) == 2
        result = await run.resume(10, per_step=True)
        record = await run.get()
        assert record is not None and result.status == record.status == "paused" and calls == {"item": 3}
        assert result.steps["item"].status == record.steps["item"].status == "paused" and result.suspended == []
        assert (await run.resume()).result == [11, 12] and calls == {"item": 4}


@pytest.mark.parametrize("target", ["doubled", "sleep-1", "inner.inside", "sleep-3"])
async def test_a_mapping_or_sleep_that_is_travelled_to_is_the_step_that_runs(noria: Noria, calls: Counter[str], target: str) -> None:
    inner = Workflow("inner").map(lambda n: n, id="inside").then(gives("step1", lambda n: n, calls))
    flow = Workflow("plain").map(lambda n: n * 2, id="doubled").sleep(0.01).then(inner).sleep(2.2).then(gives("step2", lambda n: n, calls)).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        result = await run.time_travel(target, input=4, per_step=True)
        assert result.status == "paused" and not calls and list(result.steps)[-1] == target.partition(".")[0]
        assert (await run.resume(per_step=True)).status == "paused" and calls.total() == 1
        assert (await run.resume()).result == (8 if target == "doubled" else 4)


async def test_conditions_are_asked_when_the_run_goes_on(noria: Noria, calls: Counter[str]) -> None:
    """With what it goes on with: who resumes may have changed the request context."""

    def chosen(id: str) -> Any:
        return lambda _, ctx: ctx.request_context.get("arm") == id

    def width(_: Any, ctx: Context) -> int:
        calls["width"] += 1
        return ctx.request_context["width"]

    flow = Workflow("chosen").then(gives("first", 1, calls)).branch((chosen("a"), gives("a", "a", calls)), (chosen("b"), gives("b", "b", calls)))
    flow = flow.map(lambda out: list(out.values())).foreach(gives("item", lambda x: x, calls), concurrency=width).commit()
    async with stepping(noria, flow, 0) as (run, _):
        assert (await run.resume(per_step=True, request_context={"arm": "b"})).status == "paused"
        assert calls == {"first": 1, "b": 1}
        assert (await run.resume(request_context={"width": 2})).result == ["b"] and calls["width"] == 1
