"""Suspend and stream, area state: one state for the whole run, kept over suspensions, merged key by key."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from noria import Context, Noria, Step, Workflow, step
from tests.conformance.conftest import Host, Run
from tests.conformance.doubles import gives, outputs, statuses, timed, waits

GIVEN = {"value": "test-state", "otherValue": "test-other-state"}


class Narrow(BaseModel):
    value: str


class Wide(Narrow):
    otherValue: str


class Counting(BaseModel):
    count: int
    items: list[str]


class Counted(BaseModel):
    counter: int


def reads(id: str, calls: Counter[str] | None = None, key: str = "value") -> Step:
    async def work(ctx: Context) -> Any:
        if calls is not None:
            calls[id] += 1
        return {"result": "success", key: ctx.state.value}

    return step(work, id=id, state=Narrow)


def writes(id: str, calls: Counter[str] | None = None) -> Step:
    async def work(ctx: Context) -> Any:
        if calls is not None:
            calls[id] += 1
        ctx.set_state(value=ctx.state.value + "!!!")
        return {"result": "success", "value": ctx.state.value}

    return step(work, id=id, state=Narrow)


@pytest.mark.row("suspend-after-set-state")
async def test_state_is_written_with_the_suspension(host: Host, calls: Counter[str]) -> None:
    @step(id="step2")
    async def modifies(ctx: Context) -> None:
        calls["step2"] += 1
        ctx.set_state({**ctx.state.model_dump(), "value": ctx.state.value + "-modified"})
        ctx.suspend({"reason": "waiting"})

    flow = Workflow("written", state=Narrow).then(gives("step1", {"value": "step1-done"}, calls)).then(modifies).then(reads("step3", calls))
    run = await host(flow)
    result = await run.start({}, state={"value": "initial"})
    assert result.status == "suspended" and calls == {"step1": 1, "step2": 1} and statuses(result) == {"step1": "success", "step2": "suspended"}
    assert result.steps["step2"].suspend_payload == {"reason": "waiting"}
    record = await run.get()
    assert record is not None and result.state == record.state == {"value": "initial-modified"}


@pytest.mark.row("resume-keeps-state", "fs-state-cycles")
async def test_state_set_before_is_there_after_the_resume(host: Host) -> None:
    log: list[Any] = []

    @step(id="step1")
    async def step1(ctx: Context) -> Any:
        log.append(ctx.state.model_dump())
        if ctx.resume_data is None:
            ctx.set_state(count=ctx.state.count + 1, items=[*ctx.state.items, "item-1"])
            ctx.suspend({})
        return {}

    @step(id="step2")
    async def step2(ctx: Context) -> Any:
        log.append(ctx.state.model_dump())
        return {"finalCount": ctx.state.count, "itemCount": len(ctx.state.items)}

    run = await host(Workflow("cycles", state=Counting).then(step1).then(step2))
    first = await run.start({}, state={"count": 0, "items": []})
    assert first.status == "suspended" and log == [{"count": 0, "items": []}]
    result = await run.resume({"proceed": True}, step="step1")
    assert result.status == "success" and log[1:] == [{"count": 1, "items": ["item-1"]}] * 2
    assert result.result == {"finalCount": 1, "itemCount": 1} and result.state == {"count": 1, "items": ["item-1"]}


@pytest.mark.row("stream-state")
async def test_state_written_by_one_step_is_seen_by_the_next(run: Run) -> None:
    @step(id="step1")
    async def first(ctx: Context) -> Any:
        ctx.set_state(counter=ctx.state.counter + 1)
        return {"value": "step1-done"}

    @step(id="step2")
    async def second(ctx: Context) -> Any:
        final = ctx.state.counter
        ctx.set_state(counter=final + 1)
        return {"finalCounter": final}

    result = await run(Workflow("counted", state=Counted).then(first).then(second), {}, state={"counter": 0})
    assert outputs(result) == {"step1": {"value": "step1-done"}, "step2": {"finalCounter": 1}} and result.state == {"counter": 2}


@pytest.mark.row("fs-stream-state")
async def test_a_stream_gives_the_state_and_runs_share_none(host: Host) -> None:
    flow = Workflow("streamed", state=Wide).then(reads("step1"))
    for _ in range(2):
        run = await host(flow)
        stream = run.stream({}, state=GIVEN)
        async for _event in stream:
            pass
        result = await stream.result()
        assert result.steps["step1"].output == {"result": "success", "value": "test-state"} and result.state == GIVEN


@pytest.mark.row("fs-state-single")
async def test_a_patch_keeps_the_keys_that_it_does_not_name(run: Run, calls: Counter[str]) -> None:
    result = await run(Workflow("patched", state=Wide).then(writes("step1", calls)), {}, state=GIVEN)
    assert calls == {"step1": 1} and result.steps["step1"].output == {"result": "success", "value": "test-state!!!"}
    assert result.state == {"value": "test-state!!!", "otherValue": "test-other-state"}


@pytest.mark.row("fs-state-nested-read")
async def test_a_nested_workflow_reads_it(run: Run, calls: Counter[str]) -> None:
    result = await run(Workflow("outer", state=Wide).then(Workflow("nested", state=Narrow).then(reads("step1", calls))), {}, state=GIVEN)
    record = result.steps["nested"]
    assert (record.status, record.input, record.output) == ("success", {}, {"result": "success", "value": "test-state"}) and calls == {"step1": 1}
    assert (record.suspend_payload, record.resume_payload, record.suspended_at, record.resumed_at, record.error) == (None,) * 5
    timed(result, "nested")


@pytest.mark.row("fs-state-nested-write")
async def test_a_nested_workflow_writes_it(run: Run, calls: Counter[str]) -> None:
    nested = Workflow("nested", state=Narrow).then(writes("step1", calls)).then(reads("step2", calls))
    result = await run(Workflow("outer", state=Wide).then(nested).then(reads("after", calls)), {}, state=GIVEN)
    assert outputs(result) == {id: {"result": "success", "value": "test-state!!!"} for id in ("nested", "after")}
    assert calls == {"step1": 1, "step2": 1, "after": 1} and result.state["value"] == "test-state!!!"


@pytest.mark.row("fs-state-parallel-read")
async def test_parallel_members_read_it(run: Run) -> None:
    flow = Workflow("read", state=Narrow).parallel(reads("step1", key="value2"), reads("step2", key="value2"))
    result = await run(flow, {}, state={"value": "test-state"})
    assert outputs(result) == {id: {"result": "success", "value2": "test-state"} for id in ("step1", "step2")}
    timed(result, "step1", "step2")


@pytest.mark.row("fs-foreach-bail")
async def test_a_bail_in_an_item_keeps_what_was_written(run: Run) -> None:
    @step(id="step1")
    async def bails(data: int, ctx: Context) -> int:
        if ctx.state["output"] > 1:
            ctx.bail([15])
        ctx.set_state(output=data)
        return data

    result = await run(Workflow("bailed").foreach(bails), [1, 2, 3, 4], state={"output": 0})
    assert (result.status, result.state, result.result) == ("success", {"output": 2}, [15])


@pytest.mark.row("fs-state-branch")
async def test_branch_arms_and_what_follows_read_it(run: Run, calls: Counter[str]) -> None:
    flow = (
        Workflow("arms", state=Narrow).then(reads("step1"))
        .branch((lambda prev: prev["result"] == "success", reads("step2")), (lambda prev: prev["result"] == "failed", reads("step3", calls)))
        .map(lambda prev: prev["step2"]).then(reads("step4"))
    )  # fmt: skip
    result = await run(flow, {"status": "success"}, state={"value": "test-state"})
    said = {"result": "success", "value": "test-state"}
    assert outputs(result) == {"step1": said, "step2": said, "mapping-2": said, "step4": said} and not calls


@pytest.mark.row("fs-resume-chain-state")
async def test_state_of_the_second_suspension_without_a_declared_type(host: Host) -> None:
    tone = {"toneScore": {"score": 0.8}, "completenessScore": {"score": 0.7}}

    @step(id="improveResponse")
    async def improve(ctx: Context) -> Any:
        if ctx.resume_data is None:
            ctx.set_state(value="test state")
            ctx.suspend()
        return {"improvedOutput": "improved output"}

    @step(id="evaluateImprovedResponse")
    async def evaluate(ctx: Context) -> Any:
        return {**tone, "value": ctx.state["value"]}

    flow = Workflow("chain").then(waits("promptAgent", {"modelOutput": "test output"}, payload={"testPayload": "hello"}))
    run = await host(flow.then(gives("evaluateToneConsistency", tone)).then(improve).then(evaluate))
    await run.start({"input": "test"})
    second = await run.resume({"userInput": "R1"}, step="promptAgent")
    assert second.steps["improveResponse"].status == "suspended" and second.state == {"value": "test state"}
    assert (await run.resume({"R2": 2}, step=improve)).result == {**tone, "value": "test state"}


def sets(key: str, seconds: float) -> Step:
    async def work(ctx: Context) -> Any:
        await asyncio.sleep(seconds)
        ctx.set_state({key: 1})
        return {"set": key}

    return step(work, id=f"set-{key}")


@pytest.mark.row("ev-merge-slow", "ev-merge-fast", "ev-merge-branch", "ev-merge-after")
@pytest.mark.parametrize("block", ["parallel", "branch", "nested", "spread"])
@pytest.mark.parametrize("slow", ["first", "second"])
async def test_patches_of_members_are_merged_whatever_their_timing(run: Run, block: str, slow: str) -> None:
    steps = [sets(key, 0.05 if key == slow else 0.01) for key in ("first", "second")]

    @step(id="after-step")
    async def after(ctx: Context) -> Any:
        return dict(ctx.state)

    flow = Workflow("merged")
    match block:
        case "branch":
            flow = flow.branch(*((lambda _: True, s) for s in steps))
        case "nested":
            flow = flow.parallel(*(Workflow(f"in-{s.id}").then(s) for s in steps))
        case _:
            flow = flow.parallel(*steps, placement="spread" if block == "spread" else "auto")
    result = await run(flow.then(after), {}, state={"first": 0, "second": 0})
    assert result.status == "success" and result.state == result.result == {"first": 1, "second": 1}
    assert sorted(str(r.output) for k, r in result.steps.items() if k != "after-step") == ["{'set': 'first'}", "{'set': 'second'}"]


async def test_an_attempt_that_fails_leaves_nothing_and_one_that_suspends_does(host: Host) -> None:
    from noria import Retry

    @step(id="tries", retry=Retry(attempts=1))
    async def tries(ctx: Context) -> Any:
        ctx.set_state({f"try-{ctx.attempt}": True})
        ctx.request_context[f"try-{ctx.attempt}"] = True
        if ctx.attempt == 0:
            raise RuntimeError("again")
        if ctx.resume_data is None:
            ctx.suspend()
        return dict(ctx.state)

    run = await host(Workflow("attempts").then(tries))
    first = await run.start({})
    record = await run.get()
    assert first.state == {"try-1": True} and record is not None and record.request_context == {"try-1": True}
    # the resumed call begins to count its tries anew: the first fails again and leaves nothing
    assert (await run.resume(True)).result == {"try-1": True}


async def test_runs_side_by_side_share_nothing(noria: Noria) -> None:
    @step(id="marks")
    async def marks(data: int, ctx: Context) -> Any:
        ctx.set_state({f"n{data}": data})
        ctx.request_context[f"c{data}"] = data
        if ctx.resume_data is None:
            ctx.suspend()
        return [dict(ctx.state), dict(ctx.request_context)]

    flow = Workflow("isolated").then(marks).commit()
    async with noria.worker(flow, lease=5):
        runs = [noria.create_run(flow) for _ in range(10)]
        await asyncio.gather(*(run.start(n) for n, run in enumerate(runs)))
        results = await asyncio.gather(*(run.resume(True) for run in runs))
    assert [r.result for r in results] == [[{f"n{n}": n}, {f"c{n}": n}] for n in range(10)]


class Keyed(BaseModel):
    count: int
    name: str
    tags: list[int] = []


@pytest.mark.parametrize("declared", ["workflow", "step", "nested"])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_what_is_set_is_validated_key_by_key(noria: Noria, declared: str, elsewhere: bool) -> None:
    """Required keys may come one after the other; one that does not fit fails the step that sets it."""
    sets: list[dict[str, Any]] = [{"count": 1}, {"tags": [1]}, {"name": "x", "other": 1}]

    async def work(n: int, ctx: Context) -> int:
        ctx.set_state(sets[n])
        return n + 1

    def flow(id: str, steps: int) -> Workflow:
        flow = Workflow(id, state=Keyed if declared != "step" else None)
        for n in range(steps):
            flow = flow.then(step(work, id=f"set-{n}", state=Keyed if declared == "step" else None))
        return (Workflow(f"{id}-outer").then(flow) if declared == "nested" else flow).commit()

    good, bad = flow("good", 3), flow("bad", 2)
    async with noria.worker(good, bad, steps=not elsewhere, lease=5), noria.worker(good, bad, runs=False):
        result = await noria.run(good, 0, timeout=10)
        assert result.status == "success" and result.state == {"count": 1, "tags": [1], "name": "x", "other": 1}
        sets[1] = {"tags": [1, "two"]}
        result = await noria.run(bad, 0, timeout=10)
    assert result.status == "failed" and result.state == {"count": 1} and result.error is not None
    assert result.error.type == "InvalidInput" and "Invalid state: " in result.error.message and "- tags.1: " in result.error.message


async def test_what_conditions_and_sleeps_write_is_kept(run: Run) -> None:
    """As what a step writes is, in state and request context."""
    seen: list[int] = []

    def counts(answer: Any) -> Any:
        def ask(_: Any, ctx: Context) -> Any:
            ctx.set_state(counter=ctx.state.counter + 1)
            ctx.request_context["counter"] = ctx.state.counter
            return answer(ctx) if callable(answer) else answer

        return ask

    async def look(value: Any, ctx: Context) -> Any:
        seen.append(ctx.state.counter)
        assert ctx.request_context.get("counter", 0) == ctx.state.counter
        return value

    def sees(id: str) -> Step:
        return step(look, id=id)

    body = Workflow("body", state=Counted).then(sees("inside"))
    flow = Workflow("asking", state=Counted).branch((counts(True), sees("arm")), (lambda _: False, gives("other", 0))).map(lambda _: 0)
    flow = flow.do_while(sees("looped"), counts(lambda ctx: ctx.iteration < 2)).then(sees("behind"))
    flow = flow.do_until(body, counts(lambda ctx: ctx.iteration == 2)).map(lambda _: [1]).foreach(sees("item"), concurrency=counts(1))
    flow = flow.sleep(counts(0.01)).then(sees("rested")).sleep(counts(2.2)).then(sees("woken"))
    result = await run(flow, 0, state={"counter": 0})
    assert result.status == "success" and result.state == {"counter": 8} and seen == [1, 1, 2, 3, 3, 4, 6, 7, 8]
