"""Control flow, areas nested and clone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from noria import Context, Workflow, step
from tests.conformance.conftest import Run
from tests.conformance.doubles import gives, outputs, timed


class Narrow(BaseModel):
    value: str


class Wide(Narrow):
    otherValue: str


@pytest.mark.row("nested-as-step")
async def test_a_workflow_is_a_step(run: Run, calls: Counter[str]) -> None:
    one, two, three = (gives(id, {"value": id}, calls) for id in ("step1", "step2", "step3"))
    result = await run(Workflow("outer").then(one).then(Workflow("nested-basic-inner").then(two).then(three)), {})
    assert calls == {"step1": 1, "step2": 1, "step3": 1}
    assert outputs(result) == {"step1": {"value": "step1"}, "nested-basic-inner": {"value": "step3"}}


@pytest.mark.row("nested-data-passing")
async def test_data_flows_in_and_out(run: Run) -> None:
    outer = gives("outer-step", lambda data: {"value": data["input"] + "-outer"})
    inner = gives("inner-step", lambda data: {"result": data["value"] + "-inner"})
    result = await run(Workflow("outer").then(outer).then(Workflow("nested-data-passing-inner").then(inner)), {"input": "test"})
    assert outputs(result) == {"outer-step": {"value": "test-outer"}, "nested-data-passing-inner": {"result": "test-outer-inner"}}


@pytest.mark.row("nested-with-branch")
async def test_a_nested_workflow_ending_in_a_branch(run: Run) -> None:
    a, b, c = (gives(f"step{x}", {"value": x.lower()}) for x in "ABC")
    inner = Workflow("nested-conditions-inner").then(b).branch((lambda prev: prev["value"] == "b", c))
    result = await run(Workflow("outer").then(a).then(inner), {})
    assert outputs(result) == {"stepA": {"value": "a"}, "nested-conditions-inner": {"stepC": {"value": "c"}}}


@pytest.mark.row("nested-three-levels")
async def test_three_levels(run: Run) -> None:
    two, three = (gives(f"step{n}", lambda data, n=n: {"value": f"{data['value']}-level{n}"}) for n in (2, 3))
    middle = Workflow("nested-multi-middle").then(two).then(Workflow("nested-multi-inner").then(three))
    result = await run(Workflow("outer").then(gives("step1", {"value": "level1"})).then(middle), {})
    assert result.status == "success"
    assert outputs(result) == {"step1": {"value": "level1"}, "nested-multi-middle": {"value": "level1-level2-level3"}}


@step(id="reads")
async def reads(ctx: Context) -> Any:
    return {"result": "success", "value": ctx.state.value}


async def stateful(run: Run, inner: Workflow, value: str) -> None:
    result = await run(Workflow("outer", state=Wide).then(inner), {}, state={"value": "test-state", "otherValue": "other"})
    assert result.status == "success" and outputs(result) == {inner.id: {"result": "success", "value": value}}
    assert result.state == {"value": value, "otherValue": "other"}


@pytest.mark.row("nested-reads-state")
async def test_a_narrower_state(run: Run) -> None:
    await stateful(run, Workflow("nested-with-state-inner", state=Narrow).then(reads.clone(id="step1")), "test-state")


@pytest.mark.row("nested-writes-state")
async def test_state_written_inside(run: Run) -> None:
    @step(id="step1")
    async def writes(ctx: Context) -> Any:
        ctx.set_state(value=ctx.state.value + "!!!")
        return {}

    inner = Workflow("nested-setstate-inner", state=Narrow).then(writes).then(reads.clone(id="step2"))
    await stateful(run, inner, "test-state!!!")


@pytest.mark.row("nested-chains-in-parallel")
async def test_two_chains_side_by_side(run: Run) -> None:
    steps = [gives(f"step{n}", {"result": f"success{n}"}) for n in range(1, 6)]
    a = Workflow("nested-a").then(steps[0]).then(steps[1]).then(steps[2])
    b = Workflow("nested-b").then(steps[3]).then(steps[4])
    result = await run(Workflow("outer").parallel(a, b), {})
    assert outputs(result) == {"nested-a": {"result": "success3"}, "nested-b": {"result": "success5"}}
    assert result.steps["nested-a"].input == result.steps["nested-b"].input == {}
    timed(result, "nested-a", "nested-b")


class Spec(BaseModel):
    finalValue: int


@pytest.mark.row("clone-nested-output-schema-reuse")
async def test_an_output_type_is_the_next_input_type(run: Run, calls: Counter[str]) -> None:
    start = gives("start", lambda data: {"newValue": (data.get("startValue") or 0) + 1}, calls)

    @step(id="final")
    async def final(ctx: Context) -> Any:
        calls["final"] += 1
        return {"finalValue": ctx.step_result("start")["newValue"] + ctx.step_result("other")["other"]}

    other = gives("other", {"other": 26}, calls)
    nested = Workflow("nested-spec-workflow", output=Spec, validate=False).then(start).then(other).then(final)
    last = gives("last-step", {"success": True}, calls, name="last", input=Spec)
    result = await run(Workflow("outer", validate=False).then(nested).then(last), {"startValue": 0})
    assert result.status == "success" and calls == {"start": 1, "other": 1, "final": 1, "last": 1}
    assert outputs(result) == {"nested-spec-workflow": {"finalValue": 27}, "last-step": {"success": True}}
    assert result.steps["last-step"].input == {"finalValue": 27}
