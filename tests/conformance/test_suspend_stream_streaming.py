"""Suspend and stream, areas streaming and writer. A legacy stream's rows hold for ours: no step-finish, open on a suspension by choice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from noria import Context, InvalidInput, Noria, RunResult, Step, StepNotSuspended, Workflow, step
from tests.conformance.conftest import Run
from tests.conformance.doubles import drained, gives, outputs, timed, told, types

NO_USAGE = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
TONE = {"toneScore": {"score": 0.8}, "completenessScore": {"score": 0.7}}
BETTER = {"toneScore": {"score": 0.9}, "completenessScore": {"score": 0.8}}
DATA = {"stepId": "promptAgent", "context": {"userInput": "test input"}}


def two() -> Workflow:
    return Workflow("two", validate=False).then(gives("step1", {"result": "success1"})).then(gives("step2", {"result": "success2"})).commit()


def prompting(calls: Counter[str]) -> Workflow:
    """A chain whose second step suspends without a payload until it is resumed."""

    @step(id="promptAgent")
    async def prompt(data: dict[str, str], ctx: Context) -> dict[str, str]:
        calls["promptAgent"] += 1
        return {"modelOutput": "test output"} if ctx.resume_data is not None else ctx.suspend()

    flow = Workflow("prompts").then(gives("getUserInput", {"userInput": "test input"}, calls)).then(prompt)
    flow = flow.then(gives("evaluateTone", TONE, calls)).then(gives("improveResponse", {"improvedOutput": "improved output"}, calls))
    return flow.then(gives("evaluateImproved", BETTER, calls)).commit()


def prompted(result: RunResult, calls: Counter[str]) -> None:
    """The chain came to its end by one resume with DATA."""
    assert result.status == "success" and result.input == {"input": "test"} and calls["promptAgent"] == 2 and calls["evaluateTone"] == 1
    assert list(outputs(result)) == ["getUserInput", "promptAgent", "evaluateTone", "improveResponse", "evaluateImproved"]
    record = result.steps["promptAgent"]
    assert (record.output, record.input, record.resume_payload) == ({"modelOutput": "test output"}, {"userInput": "test input"}, DATA)
    assert record.suspended_at and record.resumed_at and record.suspended_at <= record.resumed_at and record.suspend_payload is None
    timed(result, *result.steps)


@pytest.mark.row("stream-plain-run")
async def test_a_run_that_nobody_streams(run: Run) -> None:
    result = await run(two(), {})
    assert outputs(result) == {"step1": {"result": "success1"}, "step2": {"result": "success2"}}
    assert [r.input for r in result.steps.values()] == [{}, {"result": "success1"}]


@pytest.mark.row("stream-order")
async def test_steps_run_in_order(run: Run) -> None:
    log: list[str] = []

    def noting(id: str) -> Step:
        return gives(id, lambda _: log.append(id))

    result = await run(Workflow("ordered").then(noting("step1")).then(noting("step2")).then(noting("step3")), {})
    assert log == ["step1", "step2", "step3"] == list(outputs(result))


@pytest.mark.row("stream-parallel")
async def test_parallel_steps_finish(run: Run) -> None:
    flow = Workflow("parallel").parallel(*(gives(f"step{n}", {"result": f"parallel-{n}"}) for n in (1, 2, 3)))
    assert outputs(await run(flow, {})) == {f"step{n}": {"result": f"parallel-{n}"} for n in (1, 2, 3)}


@pytest.mark.row("stream-suspends")
async def test_a_suspension_is_the_result(run: Run) -> None:
    @step(id="step2")
    async def waits(ctx: Context) -> None:
        ctx.suspend({"reason": "waiting for input"})

    result = await run(Workflow("suspends").then(gives("step1", {"value": "step1-done"})).then(waits), {})
    assert result.status == "suspended" and result.steps["step1"].status == "success"
    assert (result.steps["step2"].status, result.steps["step2"].suspend_payload) == ("suspended", {"reason": "waiting for input"})


@pytest.mark.row("fs-stream", "stream-types", "stream-legacy-detail", "fs-legacy-stream")
async def test_two_steps_give_six_events(noria: Noria) -> None:
    flow = two()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow, "test-run-id")
        stream = run.stream({})
        events, result = await drained(stream), await stream.result()
    assert types(events) == ["start", "step-start", "step-result", "step-start", "step-result", "finish"]
    assert [e.step for e in events] == [None, "step1", "step1", "step2", "step2", None]
    assert all(e.run_id == "test-run-id" and e.workflow_id == "two" and e.path == () and e.time and e.time.tzinfo for e in events)
    assert events[0].data == {"input": {}, "resource_id": None}
    assert told(events, "step-start") == [{"input": i, "attempt": 0, "status": "running"} for i in ({}, {"result": "success1"})]
    for data, output in zip(told(events, "step-result"), ("success1", "success2"), strict=True):
        assert data == {"status": "success", "output": {"result": output}, "ended_at": data["ended_at"]}
    assert events[-1].data == {"status": "success", "result": {"result": "success2"}, "usage": NO_USAGE}
    assert len({e.id for e in events}) == 6 and result.status == "success"
    timed(result, "step1", "step2")


@pytest.mark.row("stream-suspend-resume")
async def test_a_stream_closes_on_suspend_and_another_finishes(noria: Noria, calls: Counter[str]) -> None:
    flow = prompting(calls)
    async with noria.worker(flow, lease=5):
        stream = noria.create_run(flow).stream({"input": "test"})
        events = await drained(stream)
        assert (await stream.result()).status == "suspended" and calls == {"getUserInput": 1, "promptAgent": 1}
        assert types(events) == ["start", "step-start", "step-result", "step-start", "step-suspended", "finish"]
        assert told(events, "step-suspended") == [{"input": {"userInput": "test input"}, "suspend_payload": None, "labels": [], "index": None}]
        assert events[-1].data["status"] == "suspended"
        again = noria.create_run(flow, events[0].run_id).resume_stream(DATA, step=flow.units["promptAgent"])
        after, result = await drained(again), await again.result()
    assert after[0].type == "workflow-step-start" and after[0].step == "promptAgent" and after[-1].type == "workflow-finish"
    assert after[0].data == {"input": {"userInput": "test input"}, "attempt": 0, "status": "running", "resume_payload": DATA}
    prompted(result, calls)


@pytest.mark.row("fs-stream-keep-open", "stream-legacy-resume-inside", "fs-legacy-suspend-resume")
async def test_a_stream_may_stay_open_over_a_suspension(noria: Noria, calls: Counter[str]) -> None:
    flow, seen = prompting(calls), []
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        stream, resuming = run.stream({"input": "test"}, close_on_suspend=False), None
        async for event in stream:
            seen.append(event)
            if event.type == "workflow-step-suspended":
                assert (calls["promptAgent"], calls["evaluateTone"]) == (1, 0)
                resuming = asyncio.create_task(run.resume(DATA, step="promptAgent"))
        assert resuming is not None and (await resuming).status == "success"
        prompted(await stream.result(), calls)
    assert [data["status"] for data in told(seen, "finish")] == ["suspended", "success"]
    assert types(seen).count("step-result") == 5 and types(seen).count("step-start") == 6


@pytest.mark.row("fs-legacy-second-stream", "ev-second-stream")
async def test_a_second_stream_joins_at_the_resumed_step(noria: Noria, calls: Counter[str]) -> None:
    flow = prompting(calls)
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert (await run.stream({"input": "test"}).result()).status == "suspended" and (calls["promptAgent"], calls["evaluateTone"]) == (1, 0)
        second = run.resume_stream(DATA, step="promptAgent")
        events = await drained(second)
        prompted(await second.result(), calls)
    assert (events[0].step, events[0].data["resume_payload"]) == ("promptAgent", DATA)


@pytest.mark.row("fs-stream-suspend-wrong-step")
async def test_a_wrong_step_rejects_the_result_and_ends_the_stream(noria: Noria, calls: Counter[str]) -> None:
    flow = prompting(calls)
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert types(await drained(run.stream({"input": "test"})))[-1] == "finish"
        wrong = run.resume_stream(DATA, step="getUserInput")
        assert await drained(wrong) == []
        with pytest.raises(StepNotSuspended, match=r"'getUserInput' was not suspended\. Available suspended steps: 'promptAgent'"):
            await wrong.result()
        right = run.resume_stream(DATA, step="promptAgent")
        assert types(await drained(right))[-1] == "finish"
        prompted(await right.result(), calls)


async def test_bad_input_rejects_the_result_and_starts_nothing(noria: Noria) -> None:
    flow = Workflow("typed", input=int).then(gives("step1", 1)).commit()
    async with noria.worker(flow, lease=5):
        stream = noria.create_run(flow, "bad").stream("no number")
        assert await drained(stream) == [] and await noria.runs.get("bad") is None
        with pytest.raises(InvalidInput):
            await stream.result()


@pytest.mark.row("nd-two-resume-streams")
async def test_two_resume_streams_at_once_both_end(noria: Noria) -> None:
    @step(id="suspending-step")
    async def suspending(ctx: Context) -> dict[str, bool]:
        return {"done": True} if ctx.resume_data is not None else ctx.suspend({"waiting": True})

    flow = Workflow("rivals").then(suspending).then(gives("final-step", {"final": True})).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert (await run.start({}, timeout=20)).status == "suspended"
        both = [run.resume_stream({}, step="suspending-step") for _ in range(2)]
        events = await asyncio.gather(*(drained(stream) for stream in both))
        results = await asyncio.gather(*(stream.result() for stream in both))
    assert [types(e)[-1] for e in events] == ["finish", "finish"] and [r.status for r in results] == ["success", "success"]
    assert [e.id for e in events[0]] == [e.id for e in events[1]]


@pytest.mark.row("fs-error-stream")
async def test_the_error_in_a_streams_result(noria: Noria) -> None:
    class RateLimited(Exception):
        def __init__(self) -> None:
            super().__init__("Rate limit exceeded")
            self.status_code, self.response_headers = 429, {"retry-after": "60"}

    @step(id="step1")
    async def limited(data: Any) -> None:
        raise RateLimited

    flow = Workflow("limited").then(limited).commit()
    async with noria.worker(flow, lease=5):
        stream = noria.create_run(flow).stream({})
        events, result = await drained(stream), await stream.result()
    error = result.error
    assert result.status == "failed" and error is not None and (error.type, error.message) == ("RateLimited", "Rate limit exceeded")
    assert error.attributes == {"status_code": 429, "response_headers": {"retry-after": "60"}} and error.stack is None
    assert events[-1].data["error"]["attributes"]["status_code"] == 429 and told(events, "step-result")[0]["status"] == "failed"


def added(id: str = "map") -> Step:
    return gives(id, lambda item: {"value": item["value"] + 11})


async def progress(noria: Noria, flow: Workflow) -> tuple[list[Any], RunResult]:
    async with noria.worker(flow, lease=5):
        stream = noria.create_run(flow).stream([{"value": 1}, {"value": 22}, {"value": 333}])
        events, result = await drained(stream), await stream.result()
    assert all(e.step == "map" for e in events if e.step)
    return told(events, "step-progress"), result


@pytest.mark.row("fe-progress")
async def test_one_progress_event_per_item(noria: Noria) -> None:
    seen, result = await progress(noria, Workflow("progress").foreach(added()).commit())
    assert seen == [
        {"completed": n + 1, "total": 3, "index": n, "status": "success", "output": {"value": value}}
        for n, value in enumerate((12, 33, 344))
    ]  # fmt: skip
    assert result.result == [{"value": 12}, {"value": 33}, {"value": 344}]


@pytest.mark.row("fe-progress-concurrent")
async def test_progress_with_concurrency(noria: Noria) -> None:
    seen, _ = await progress(noria, Workflow("progress").foreach(added(), concurrency=3).commit())
    assert [p["completed"] for p in seen] == [1, 2, 3] and {p["index"] for p in seen} == {0, 1, 2}
    assert all(p["total"] == 3 and p["status"] == "success" for p in seen)


@pytest.mark.row("fe-progress-fail")
async def test_progress_of_a_failing_item(noria: Noria) -> None:
    def work(item: dict[str, int]) -> dict[str, int]:
        if item["value"] == 22:
            raise ValueError("no")
        return item

    seen, result = await progress(noria, Workflow("progress").foreach(gives("map", work)).commit())
    assert result.status == "failed" and (seen[0]["index"], seen[0]["status"], seen[0]["completed"]) == (0, "success", 1)
    assert {"index": 1, "status": "failed"}.items() <= seen[1].items() and "output" not in seen[1]


def writing() -> Workflow:
    @step(id="promptAgent")
    async def prompt(data: dict[str, str], ctx: Context) -> dict[str, str]:
        given = (ctx.resume_data or data)["userInput"]
        await ctx.write({"type": "custom-event", "payload": {"input": given}})
        return {"modelOutput": "test output"} if ctx.resume_data else ctx.suspend({}, output={"modelOutput": "test output"})

    return Workflow("writing").then(gives("getUserInput", lambda data: {"userInput": data["input"]})).then(prompt).commit()


@pytest.mark.row("writer-write", "fs-writer-write")
async def test_what_a_step_writes_arrives_before_and_after_a_suspension(noria: Noria) -> None:
    flow, given = writing(), {"userInput": "test input for resumption"}
    async with noria.worker(flow, lease=5):
        stream = noria.create_run(flow).stream({"input": "test input for stream"})
        events = await drained(stream)
        assert (await stream.result()).status == "suspended"
        again = noria.create_run(flow, events[0].run_id).resume_stream(given, step=flow.units["promptAgent"])
        after, result = await drained(again), await again.result()
    assert told(events, "step-output") == [{"output": {"type": "custom-event", "payload": {"input": "test input for stream"}}}]
    assert told(after, "step-output") == [{"output": {"type": "custom-event", "payload": {"input": "test input for resumption"}}}]
    record = result.steps["promptAgent"]
    assert (record.status, record.output, record.input) == ("success", {"modelOutput": "test output"}, {"userInput": "test input for stream"})
    assert (record.resume_payload, record.suspend_payload, record.suspend_output) == (given, {}, {"modelOutput": "test output"})


@pytest.mark.row("cx-writer-from", "cx-writer-fields")
async def test_a_written_event_names_run_and_step(noria: Noria) -> None:
    @step(id="typedStep")
    async def typed(ctx: Context) -> None:
        await ctx.write({"status": "processing", "progress": 50})

    flow = Workflow("origin").then(typed).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        written = next(e for e in await drained(run.stream({})) if e.type == "workflow-step-output")
    assert (written.run_id, written.step, written.data) == (run.id, "typedStep", {"output": {"status": "processing", "progress": 50}})


@pytest.mark.row("cx-writer-parallel-2", "cx-writer-parallel-3")
@pytest.mark.parametrize("width", [2, 3])
async def test_parallel_steps_emit_events_of_their_own_type(noria: Noria, width: int) -> None:
    def logging(id: str) -> Step:
        async def work(ctx: Context) -> str:
            await ctx.emit("data-log", {"from": id})
            return id

        return step(work, id=id)

    names = [f"step{n}" for n in range(width)]
    flow = Workflow("custom").parallel(*map(logging, names)).commit()
    async with noria.worker(flow, lease=5):
        stream = noria.create_run(flow).stream({})
        events, result = await drained(stream), await stream.result()
    assert sorted((e.step, e.data["from"]) for e in events if e.type == "data-log") == [(n, n) for n in names]
    assert outputs(result) == {n: n for n in names}
