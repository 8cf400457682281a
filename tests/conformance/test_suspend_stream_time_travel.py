"""Suspend and stream, area time-travel."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from noria import InvalidInput, Noria, RunResult, RunStillActive, Step, StepNotFound, Workflow, from_step, step
from tests.conformance.chains import counting, looping, nesting, prompting, record, shown
from tests.conformance.doubles import drained, gives, types

ONE = {"step1": record({"value": 0}, {"step1Result": 2})}


async def travel(noria: Noria, flow: Workflow, step: Any, **options: Any) -> RunResult:
    """To a step, of a run that never ran."""
    async with noria.worker(flow, lease=5):
        return await noria.create_run(flow).time_travel(step, **options)


def joined(calls: Counter[str]) -> Workflow:
    both = [gives(id, {"value": id}, calls) for id in ("step1", "step2")]
    final = gives("final", lambda data: {"combined": f"{data['step1']['value']}-{data['step2']['value']}"}, calls)
    return Workflow("joined").parallel(*both).then(final).commit()


@pytest.mark.row("tt-parallel")
async def test_to_the_step_after_a_parallel_block(noria: Noria, calls: Counter[str]) -> None:
    context = {f"step{n}": record({}, {"value": f"pre-step{n}"}) for n in (1, 2)}
    result = await travel(noria, joined(calls), "final", context=context)
    assert (result.status, result.result, calls) == ("success", {"combined": "pre-step1-pre-step2"}, {"final": 1})


@pytest.mark.row("tt-per-step", "fs-tt-per-step")
async def test_step_by_step_only_the_target_runs(noria: Noria, calls: Counter[str]) -> None:
    result = await travel(noria, counting(calls), "step2", context=ONE, per_step=True)
    assert (result.status, result.result, result.input, calls) == ("paused", None, {"value": 0}, {"step2": 1})
    assert shown(result.steps) == {"step1": ({"value": 0}, {"step1Result": 2}), "step2": ({"step1Result": 2}, {"step2Result": 3})}


@pytest.mark.row("tt-previous-run", "tt-previous-run-per-step")
@pytest.mark.parametrize("per_step", [False, True])
async def test_after_an_ordinary_run(noria: Noria, calls: Counter[str], per_step: bool) -> None:
    flow = counting(calls)
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert (await run.start({"value": 1})).result == {"final": 4} and calls == {"step1": 1, "step2": 1, "step3": 1}
        result = await run.time_travel("step2", context={"step1": record({"value": 0}, {"step1Result": 10})}, per_step=per_step)
    assert calls == {"step1": 1, "step2": 2, "step3": 1 if per_step else 2}
    assert result.steps["step2"].output == {"step2Result": 11}
    assert (result.status, result.result) == (("paused", None) if per_step else ("success", {"final": 12}))
    assert list(result.steps) == (["step1", "step2"] if per_step else ["step1", "step2", "step3"])


@pytest.mark.row("tt-nested")
async def test_to_a_nested_workflow(noria: Noria, calls: Counter[str]) -> None:
    flow = nesting(calls)
    result = await travel(noria, flow, flow.units["nested"], context=ONE)
    assert (result.status, result.result, calls) == ("success", {"final": 5}, {"step2": 1, "step3": 1, "step4": 1})


def forked(calls: Counter[str]) -> Workflow:
    arms = [(lambda data, x=x: data["branch"] == x, gives(f"branch{x}", {"result": f"from {x}"}, calls)) for x in "AB"]
    return Workflow("arms").then(gives("check", {"branch": "A"}, calls)).branch(*arms).commit()


@pytest.mark.row("tt-branch", "tt-branch-per-step")
@pytest.mark.parametrize("per_step", [False, True])
async def test_to_an_arm_of_a_branch(noria: Noria, calls: Counter[str], per_step: bool) -> None:
    result = await travel(noria, forked(calls), "branchA", context={"check": record({}, {"branch": "A"})}, per_step=per_step)
    assert calls == {"branchA": 1} and result.steps["branchA"].output == {"result": "from A"} and "branchB" not in result.steps
    assert (result.status, result.result) == (("paused", None) if per_step else ("success", {"branchA": {"result": "from A"}}))


@pytest.mark.row("tt-loop")
async def test_to_the_step_after_a_loop(noria: Noria, calls: Counter[str]) -> None:
    again = gives("loopStep", lambda data: {"counter": data["counter"] + 1}, calls)
    flow = Workflow("loop").do_until(again, lambda out: out["counter"] >= 3)
    flow = flow.then(gives("finalStep", lambda data: {"final": data["counter"]}, calls)).commit()
    result = await travel(noria, flow, "finalStep", context={"loopStep": record({"counter": 2}, {"counter": 3})})
    assert (result.status, result.result, calls) == ("success", {"final": 3}, {"finalStep": 1})


@pytest.mark.row("tt-parallel-per-step")
async def test_step_by_step_to_a_member(noria: Noria, calls: Counter[str]) -> None:
    members = [gives(id, {"value": id}, calls) for id in ("p1", "p2")]
    flow = Workflow("members").then(gives("initStep", {}, calls)).parallel(*members).then(gives("final", {"done": True}, calls)).commit()
    context = {"initStep": record({}, {}), "p2": record({}, {"value": "p2"})}
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        result = await run.time_travel("p1", context=context, per_step=True)
        assert (result.status, calls) == ("paused", {"p1": 1}) and result.steps["p1"].output == {"value": "p1"}
        bare = await noria.create_run(flow).time_travel("p1", per_step=True)
        assert list(bare.steps) == ["initStep", "p1"] and bare.status == "paused", "other members get no record"
        assert shown((await run.resume()).steps)["final"] == ({"p1": {"value": "p1"}, "p2": {"value": "p2"}}, {"done": True})


@pytest.mark.row("tt-unknown-step", "fs-tt-unknown")
async def test_an_unknown_target(noria: Noria, calls: Counter[str]) -> None:
    flow = nesting(calls)
    async with noria.worker(flow, lease=5):
        for handle in (noria.create_run(flow), noria.create_run(flow.id)):
            for target in ("nonExistent", "nested.step1", ["step1", "step2"]):
                with pytest.raises(StepNotFound, match=r"'nested', 'nested\.step2', 'nested\.step3', 'step1', 'step4'"):
                    await handle.time_travel(target, input={"step1Result": 2})
            assert await handle.get() is None, "nothing was recorded"
    assert calls == {}


@pytest.mark.row("tt-still-running")
async def test_a_run_that_is_active(noria: Noria, calls: Counter[str]) -> None:
    flow, inside, go = counting(calls), asyncio.Event(), asyncio.Event()

    async def wait(_: Any) -> Any:
        inside.set()
        await go.wait()
        return {"step1Result": 2}

    flow = Workflow("counting").then(step(wait, id="step1")).then(flow.units["step2"]).commit()
    waiting = noria.create_run(flow, "pending")
    await waiting.start_async({})
    with pytest.raises(RunStillActive, match="pending"):
        await waiting.time_travel("step2", input={"step1Result": 2})
    async with noria.worker(flow, lease=5):
        await inside.wait()
        with pytest.raises(RunStillActive, match="wait, or cancel it"):
            await waiting.time_travel("step2", input={"step1Result": 2})
        go.set()
        assert (await waiting.result(timeout=20)).result == {"step2Result": 3}
    assert calls["step2"] == 1


@pytest.mark.row("tt-invalid-input")
async def test_the_targets_input_is_validated(noria: Noria, calls: Counter[str]) -> None:
    flow = counting(calls)
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        with pytest.raises(InvalidInput, match="step1Result") as refusal:
            await run.time_travel("step2", input={"invalidPayload": 2})
        assert refusal.value.errors()[0]["loc"] == ("step1Result",) and await run.get() is None
    assert calls == {}


@pytest.mark.row("tt-suspended-run", "fs-tt-suspended-run")
async def test_a_suspended_run_back_to_an_earlier_step_with_resume_data(noria: Noria, calls: Counter[str]) -> None:
    flow = prompting(calls)
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        first = await run.start({"input": "test input"})
        assert [s.path for s in first.suspended] == [("promptAgent",)]
        result = await run.time_travel("getUserInput", resume={"userInput": "go on"})
        assert result.status == "suspended" and [s.path for s in result.suspended] == [("improveResponse",)]
        prompt = result.steps["promptAgent"]
        assert (prompt.status, prompt.output, prompt.input) == ("success", {"modelOutput": "test output"}, {"userInput": "test input"})
        assert (prompt.suspend_payload, prompt.resume_payload) == ({"testPayload": "hello"}, {"userInput": "go on"})
        assert prompt.suspended_at == first.steps["promptAgent"].suspended_at and prompt.resumed_at is not None
        assert (calls["getUserInput"], calls["promptAgent"], calls["evaluateTone"], calls["improveResponse"]) == (2, 2, 1, 1)
        assert (await run.resume({})).status == "success"


@pytest.mark.row("fs-tt-basic")
async def test_the_whole_result(noria: Noria, calls: Counter[str]) -> None:
    flow = counting(calls)
    result = await travel(noria, flow, flow.units["step2"], context=ONE)
    chain = {"step2": ({"step1Result": 2}, {"step2Result": 3}), "step3": ({"step2Result": 3}, {"final": 4})}
    assert (result.status, result.input, result.result) == ("success", {"value": 0}, {"final": 4})
    assert shown(result.steps) == {"step1": ({"value": 0}, {"step1Result": 2}), **chain}
    assert result.steps["step1"].started_at and result.steps["step1"].started_at.timestamp() == ONE["step1"]["started_at"]

    result = await travel(noria, flow, "step2", input={"step1Result": 2})
    assert (result.input, result.result) == ({}, {"final": 4})
    assert shown(result.steps) == {"step1": ({}, {"step1Result": 2}), **chain}
    assert calls == {"step2": 2, "step3": 2}


@pytest.mark.row("fs-tt-previous", "fs-tt-previous-per-step")
async def test_a_failed_run_is_repaired(noria: Noria, calls: Counter[str]) -> None:
    flow = counting(calls, fussy=True)
    async with noria.worker(flow, lease=5):
        run, other = noria.create_run(flow), noria.create_run(flow)
        failed = await run.start({"value": 0})
        assert failed.status == failed.steps["step2"].status == "failed" and failed.error and failed.error.message == "Simulated error"
        first = await run.time_travel(flow.units["step2"], context={"step1": {"status": "success", "output": {"step1Result": 3}}})
        assert (first.status, first.input, first.result, first.error) == ("success", {"value": 0}, {"final": 5}, None)
        assert shown(first.steps)["step1"] == ({"value": 0}, {"step1Result": 3})
        second = await run.time_travel("step2", input={"step1Result": 4})
        assert (second.input, second.result) == ({"value": 0}, {"final": 6})
        assert shown(second.steps)["step1"] == ({"value": 0}, {"step1Result": 4}) and calls["step1"] == 1
        await other.start({"value": 0})
        paused = await other.time_travel("step2", input={"step1Result": 4}, per_step=True)
        assert paused.status == "paused" and paused.error is None
        assert shown(paused.steps) == {"step1": ({"value": 0}, {"step1Result": 4}), "step2": ({"step1Result": 4}, {"step2Result": 5})}


@pytest.mark.row("fs-tt-nested")
async def test_into_a_nested_workflow(noria: Noria, calls: Counter[str]) -> None:
    flow = nesting(calls)
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        result = await run.time_travel("nested.step3", context={**ONE, "nested.step2": record({"step1Result": 2}, {"step2Result": 3})})
        assert (result.status, result.result) == ("success", {"final": 5})
        assert shown(result.steps)["nested"] == ({"step1Result": 2}, {"nestedFinal": 4}) and calls == {"step3": 1, "step4": 1}
        stored = await run.get()
        assert stored is not None
        inner = {id: record for id, record in shown(stored.steps).items() if "." in id}
        assert inner == {"nested.step2": ({"step1Result": 2}, {"step2Result": 3}), "nested.step3": ({"step2Result": 3}, {"nestedFinal": 4})}

        calls.clear()
        run = noria.create_run(flow)
        result = await run.time_travel([flow.units["nested"], "step3"], input={"step2Result": 3})
        assert (result.input, result.result, calls) == ({}, {"final": 5}, {"step3": 1, "step4": 1})
        assert shown(result.steps)["step1"] == ({}, {}) and result.steps["nested"].input == {}
        stored = await run.get()
        assert stored is not None and shown(stored.steps)["nested.step2"] == ({}, {"step2Result": 3})

        calls.clear()
        result = await noria.create_run(flow).time_travel("nested", input={"step1Result": 2})
        assert shown(result.steps)["step1"] == ({}, {"step1Result": 2}) and result.steps["nested"].input == {"step1Result": 2}
        assert calls == {"step2": 1, "step3": 1, "step4": 1}


@pytest.mark.row("fs-tt-suspend-resume")
async def test_a_travelled_run_suspends_and_is_resumed(noria: Noria, calls: Counter[str]) -> None:
    flow = prompting(calls)
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        result = await run.time_travel("promptAgent", input={"userInput": "test input"})
        assert (result.status, result.input, list(result.steps)) == ("suspended", {}, ["getUserInput", "promptAgent"])
        assert (result.steps["getUserInput"].input, result.steps["getUserInput"].output) == ({}, {"userInput": "test input"})
        assert result.steps["promptAgent"].suspend_payload == {"testPayload": "hello"}
        result = await run.resume({"userInput": "R1"}, step="promptAgent")
        assert [s.path for s in result.suspended] == [("improveResponse",)] and result.steps["promptAgent"].status == "success"
    assert calls == {"promptAgent": 2, "evaluateTone": 1, "improveResponse": 1}


@pytest.mark.row("fs-tt-loop")
async def test_into_a_loops_body(noria: Noria, calls: Counter[str]) -> None:
    rounds: list[int] = []
    flow = looping(calls, rounds)
    context = {"first-step": record({"value": 0}, {"value": 0}), "body.increment": record({"value": 5}, {"value": 6})}
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        result = await run.time_travel("body.next", context=context)
        stored = await run.get()
    assert (result.status, result.input, result.result) == ("success", {"value": 0}, {"value": 10})
    body = result.steps["body"]
    assert (body.input, body.output, body.iterations, rounds) == ({"value": 9}, {"value": 10}, 5, [1, 2, 3, 4, 5])
    assert stored is not None and shown(stored.steps)["body.increment"] == ({"value": 9}, {"value": 10})
    assert shown(stored.steps)["body.next"] == ({"value": 10}, {"value": 10}) and calls == {"next": 5, "increment": 4, "final": 1}


def picking(calls: Counter[str]) -> Workflow:
    def arm(id: str, wanted: str) -> tuple[Any, Step]:
        return (lambda data: data["status"] == wanted), gives(id, {"result": id}, calls)

    flow = Workflow("picking").then(gives("step1", {"status": "success"}, calls))
    flow = flow.branch(arm("step2", "success"), arm("step5", "success"), arm("step3", "failed"))
    flow = flow.map({"result": from_step(["step3", "step2", "step5"], "result"), "step5Result": from_step("step5", "result")})
    return flow.then(gives("step4", lambda data: {"result": data["result"] + data["step5Result"]}, calls)).commit()


@pytest.mark.row("fs-tt-branch")
async def test_other_true_arms_count_as_done(noria: Noria, calls: Counter[str]) -> None:
    result = await travel(noria, picking(calls), "step5", input={"status": "success"})
    assert (result.status, result.input, result.result) == ("success", {}, {"result": "step5step5"})
    assert calls == {"step5": 1, "step4": 1} and "step3" not in result.steps
    records = shown(result.steps)
    assert records["step1"][1] == {"status": "success"} and records["step2"] == ({"status": "success"}, {})


@pytest.mark.row("fs-tt-branch-per-step")
async def test_other_arms_wait_step_by_step(noria: Noria, calls: Counter[str]) -> None:
    flow = picking(calls)
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        result = await run.time_travel("step5", input={"status": "success"}, per_step=True)
        assert (result.status, list(result.steps), calls) == ("paused", ["step1", "step5"], {"step5": 1})
        assert (await run.resume()).result == {"result": "step2step5"} and calls["step2"] == 1


@pytest.mark.row("nd-two-time-travel-streams")
async def test_two_streams_at_once_both_end(noria: Noria, calls: Counter[str]) -> None:
    flow = Workflow("two").then(gives("first-step", {"result": "first"}, calls)).then(gives("second-step", {"result": "second"}, calls)).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start({})
        streams = [run.time_travel_stream("second-step", input={"result": "first"}) for _ in range(2)]
        for events in await asyncio.gather(*(drained(stream) for stream in streams)):
            assert types(events) == ["step-start", "step-result", "finish"]
    assert calls["first-step"] == 1
