"""Control flow, areas conditions and branching."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from noria import Context, Step, Workflow, from_step, step
from tests.conformance.conftest import Run
from tests.conformance.doubles import failed, fails, gives, outputs, timed


def starts(calls: Counter[str]) -> Step:
    return gives("start", lambda data: {"newValue": (data.get("startValue") or 0) + 1}, calls)


def small(prev: Any) -> bool:
    return not prev["newValue"] or prev["newValue"] < 5


def large(prev: Any) -> bool:
    return prev["newValue"] >= 5


@pytest.mark.row("conditions-follow-chain")
async def test_the_mapping_takes_the_arm_that_ran(run: Run, calls: Counter[str]) -> None:
    second, third = gives("step2", {"result": "step2"}, calls), gives("step3", {"result": "step3"}, calls)
    flow = (
        Workflow("chain").then(gives("step1", {"status": "success"}, calls))
        .branch((lambda prev: prev["status"] == "success", second), (lambda prev: prev["status"] == "failed", third))
        .map({"result": from_step([third, second], "result")})
        .then(gives("step4", lambda data: {"result": data["result"]}))
    )  # fmt: skip
    result = await run(flow, {"status": "success"})
    assert calls == {"step1": 1, "step2": 1} and result.input == {"status": "success"} and "step3" not in result.steps
    assert outputs(result)["step1"] == {"status": "success"}
    assert outputs(result)["step2"] == outputs(result)["step4"] == {"result": "step2"}


@pytest.mark.row("conditions-failing-dependency")
async def test_a_raising_step_stops_the_chain(run: Run, calls: Counter[str]) -> None:
    result = await run(Workflow("stops").then(fails("step1", "Failed", calls)).then(gives("step2", {}, calls)), {})
    assert calls == {"step1": 1} and list(result.steps) == ["step1"] and result.input == result.steps["step1"].input == {}
    failed(result, "step1", "Failed")
    timed(result, "step1")
    assert result.steps["step1"].error is not None and result.steps["step1"].error.message == "Failed"


@pytest.mark.row("branch-if-path")
async def test_the_first_arm(run: Run, calls: Counter[str]) -> None:
    start, other = starts(calls), gives("other", {"other": 26}, calls)

    def final(id: str) -> Step:
        async def add(ctx: Context) -> Any:
            calls["final"] += 1
            return {"finalValue": ctx.step_result(start, {}).get("newValue", 0) + ctx.step_result(other, {}).get("other", 0)}

        return step(add, id=id)

    nested = Workflow("branch-if-then-else-nested").then(other).then(final("finalElse"))
    result = await run(Workflow("if").then(start).branch((small, final("finalIf")), (large, nested)), {"startValue": 1})
    assert calls == {"start": 1, "final": 1} and outputs(result) == {"start": {"newValue": 2}, "finalIf": {"finalValue": 2}}


@pytest.mark.row("branch-else-nested-workflow")
async def test_the_second_arm_is_a_nested_workflow(run: Run, calls: Counter[str]) -> None:
    def final(id: str) -> Step:
        return gives(id, lambda data: {"finalValue": data.get("newValue", 0) + data.get("other", 0)}, calls, name="final")

    other = gives("other", lambda data: {"newValue": data["newValue"], "other": 26}, calls)
    nested = Workflow("branch-else-nested").then(other).then(final("finalElse"))
    result = await run(Workflow("else").then(starts(calls)).branch((small, final("finalIf")), (large, nested)), {"startValue": 6})
    assert calls == {"start": 1, "other": 1, "final": 1}
    assert outputs(result) == {"start": {"newValue": 7}, "branch-else-nested": {"finalValue": 33}}


async def three_ways(run: Run, calls: Counter[str], number: int, arm: str) -> None:
    low, medium, high = (gives(id, {"result": id}, calls) for id in ("low", "medium", "high"))
    flow = (
        Workflow("three-ways").then(gives("check", lambda data: {"category": data["value"]}, calls))
        .branch(
            (lambda prev: prev["category"] < 33, low),
            (lambda prev: 33 <= prev["category"] < 66, medium),
            (lambda prev: prev["category"] >= 66, high),
        )
    )  # fmt: skip
    result = await run(flow, {"value": number})
    assert result.status == "success" and calls == {"check": 1, arm: 1}
    assert outputs(result) == {"check": {"category": number}, arm: {"result": arm}} and result.result == {arm: {"result": arm}}


@pytest.mark.row("branch-three-way-low")
async def test_three_ways_low(run: Run, calls: Counter[str]) -> None:
    await three_ways(run, calls, 10, "low")


@pytest.mark.row("branch-three-way-medium")
async def test_three_ways_medium(run: Run, calls: Counter[str]) -> None:
    await three_ways(run, calls, 50, "medium")


@pytest.mark.row("branch-three-way-high")
async def test_three_ways_high(run: Run, calls: Counter[str]) -> None:
    await three_ways(run, calls, 80, "high")


@pytest.mark.row("branch-data-false")
async def test_the_arm_gets_the_full_previous_output(run: Run, calls: Counter[str]) -> None:
    initial = gives("initial", lambda data: {"processedValue": data["rawValue"] * 2, "flag": data["rawValue"] > 50}, calls)
    yes = gives("truePath", lambda data: {"final": f"processed: {data['processedValue']}, flag: {data['flag']}"}, calls)
    no = gives("falsePath", lambda data: {"final": f"small: {data['processedValue']}"}, calls)
    flow = Workflow("data").then(initial).branch((lambda prev: prev["flag"], yes), (lambda prev: not prev["flag"], no))
    result = await run(flow, {"rawValue": 25})
    assert result.status == "success" and calls == {"initial": 1, "falsePath": 1}
    assert outputs(result) == {"initial": {"processedValue": 50, "flag": False}, "falsePath": {"final": "small: 50"}}


@pytest.mark.row("branch-nested-else-then-if")
async def test_branches_inside_a_branch(run: Run, calls: Counter[str]) -> None:
    start = starts(calls)
    other = gives("other", lambda data: {"newValue": data.get("newValue") or 0, "other": 26}, calls)

    @step(id="final")
    async def final(ctx: Context) -> Any:
        calls["final"] += 1
        return {"finalValue": ctx.step_result(start, {}).get("newValue", 0) + ctx.step_result(other, {}).get("other", 0)}

    def inner(id: str) -> Workflow:
        return Workflow(id, validate=False)

    def pick(data: Any) -> Any:
        chosen = data.get("nested-workflow-c") or data.get("nested-workflow-d") or {}
        return {"newValue": chosen.get("newValue", 0), "other": chosen.get("other", 0)}

    a = inner("branch-nested-wf-a").then(start).then(other).then(final)
    c, d = inner("nested-workflow-c").then(other), inner("nested-workflow-d").then(other)
    b = (
        inner("branch-nested-wf-b").then(start).branch((lambda: True, c), (lambda: False, d))
        .then(gives("map-results", pick)).then(final)
    )  # fmt: skip
    first = gives("first-step", {"success": True}, calls, name="first")
    last = gives("last-step", {"success": True}, calls, name="last")
    flow = inner("outer").then(first).branch((lambda: False, a), (lambda: True, b)).then(last)
    result = await run(flow, {"startValue": 1})
    assert calls == {"start": 1, "other": 1, "final": 1, "first": 1, "last": 1}
    done = {"success": True}
    assert outputs(result) == {"first-step": done, "branch-nested-wf-b": {"finalValue": 1}, "last-step": done}
    timed(result, "first-step", "last-step")
