"""Control flow, area basic. Noria has no tools and agents: a tool is a step, an agent a step with a stub model."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from noria import Context, EmptyWorkflow, Noria, Step, Workflow, WorkflowNotCommitted, step
from tests.conformance.conftest import Run
from tests.conformance.doubles import gives, outputs


class Value(BaseModel):
    value: float


class Named(BaseModel):
    name: str


class Input(BaseModel):
    foo: str
    bar: int


class State(BaseModel):
    value: str


class Prompt(BaseModel):
    prompt: str


class Both(Value, Prompt):
    pass


def single(calls: Counter[str]) -> Workflow:
    return Workflow("single").then(gives("step1", {"result": "success"}, calls)).commit()


def typed(id: str, model: type[BaseModel], work: Any) -> Step:
    """A step whose function gets the model itself."""

    async def body(data: Any) -> Any:
        return work(data)

    body.__annotations__["data"] = model
    return step(body, id=id, input=model, description=id)


@pytest.mark.row("basic-single-step")
async def test_single_step(run: Run, calls: Counter[str]) -> None:
    result = await run(single(calls), {})
    assert (result.status, result.input, calls) == ("success", {}, {"step1": 1})
    assert outputs(result) == {"step1": {"result": "success"}} and result.steps["step1"].input == {}


@pytest.mark.row("basic-start-alias")
async def test_start_of_a_run_handle(noria: Noria, calls: Counter[str]) -> None:
    flow = single(calls)
    async with noria.worker(flow, lease=5):
        result = await noria.create_run(flow).start({}, timeout=20)
    assert result.status == "success" and outputs(result) == {"step1": {"result": "success"}}


@pytest.mark.row("basic-multiple-runs")
async def test_one_definition_many_runs(noria: Noria, calls: Counter[str]) -> None:
    flow = single(calls)
    async with noria.worker(flow, lease=5):
        for n in range(1, 4):
            assert (await noria.run(flow, {}, timeout=20)).status == "success"
            assert calls == {"step1": n}


@pytest.mark.row("basic-two-steps-sequence")
async def test_two_steps_in_sequence(run: Run, calls: Counter[str]) -> None:
    first, second = gives("step1", {"value": "step1-result"}, calls), gives("step2", {"value": "step2-result"}, calls)
    result = await run(Workflow("sequence").then(first).then(second), {})
    assert result.status == "success" and calls == {"step1": 1, "step2": 1}
    assert outputs(result) == {"step1": {"value": "step1-result"}, "step2": {"value": "step2-result"}}
    assert list(result.steps) == ["step1", "step2"] and result.result == {"value": "step2-result"}


@pytest.mark.row("basic-two-steps-parallel")
async def test_two_steps_in_parallel(run: Run, calls: Counter[str]) -> None:
    flow = Workflow("parallel").parallel(gives("step1", {"value": "step1"}, calls), gives("step2", {"value": "step2"}, calls))
    result = await run(flow, {})
    assert result.status == "success" and calls == {"step1": 1, "step2": 1}
    assert outputs(result) == result.result == {"step1": {"value": "step1"}, "step2": {"value": "step2"}}


@pytest.mark.row("basic-bail")
async def test_bail_ends_the_run_successfully(noria: Noria) -> None:
    @step(id="step1")
    async def first(data: dict[str, str], ctx: Context) -> dict[str, str]:
        if data["value"] == "bail":
            ctx.bail({"result": "bailed"})
        return {"result": "step1: " + data["value"]}

    flow = Workflow("bails").then(first).then(gives("step2", lambda data: {"result": "step2: " + data["result"]}))
    async with noria.worker(flow, lease=5):
        a = await noria.run(flow, {"value": "bail"}, timeout=20)
        b = await noria.run(flow, {"value": "no-bail"}, timeout=20)
    assert (a.status, a.result, outputs(a)) == ("success", {"result": "bailed"}, {"step1": {"result": "bailed"}})
    assert outputs(b) == {"step1": {"result": "step1: no-bail"}, "step2": {"result": "step2: step1: no-bail"}}


@pytest.mark.row("basic-run-id-in-step")
async def test_a_step_knows_the_run_id(run: Run) -> None:
    seen = []

    @step(id="step1")
    async def first(ctx: Context) -> None:
        seen.append(ctx.run_id)

    result = await run(Workflow("ids").then(first), {})
    assert seen == [result.run_id] and isinstance(seen[0], str) and seen[0]


@pytest.mark.row("basic-parallel-with-state")
async def test_parallel_steps_read_the_same_state(run: Run) -> None:
    def reader(id: str) -> Step:
        async def read(ctx: Context) -> dict[str, str]:
            return {"value": id, "state_value": ctx.state.value}

        return step(read, id=id)

    flow = Workflow("stateful", state=State).parallel(reader("step1"), reader("step2"))
    result = await run(flow, {}, state={"value": "test-state"})
    assert result.status == "success"
    assert outputs(result) == {id: {"value": id, "state_value": "test-state"} for id in ("step1", "step2")}


@pytest.mark.row("basic-input-reaches-first-step")
async def test_input_reaches_the_first_step(run: Run) -> None:
    seen: list[Input] = []

    @step(id="step1")
    async def first(data: Input) -> dict[str, str]:
        seen.append(data)
        return {"result": "success"}

    result = await run(Workflow("inputs", input=Input).then(first), {"foo": "hello", "bar": 42})
    assert seen == [Input(foo="hello", bar=42)] and result.input == result.steps["step1"].input == {"foo": "hello", "bar": 42}


@pytest.mark.row("basic-no-flow-defined")
async def test_an_empty_workflow_is_refused(noria: Noria) -> None:
    with pytest.raises(EmptyWorkflow):
        Workflow("empty").commit()
    with pytest.raises(EmptyWorkflow):
        async with noria.worker(Workflow("empty")):
            pass


@pytest.mark.row("basic-flow-not-committed")
async def test_an_uncommitted_workflow_is_refused(noria: Noria, calls: Counter[str]) -> None:
    with pytest.raises(WorkflowNotCommitted):
        await noria.run(Workflow("draft").then(gives("step1", {"result": "success"}, calls)), {}, timeout=5)
    assert not calls


@pytest.mark.row("basic-interop-step-and-tool")
async def test_a_tool_like_step_after_a_step(run: Run, calls: Counter[str]) -> None:
    def execute(data: Named) -> dict[str, str]:
        calls["random-tool"] += 1
        return {"name": data.name}

    tool = typed("random-tool", Named, execute)
    result = await run(Workflow("interop").then(gives("step1", {"name": "step1"}, calls)).then(tool), {})
    assert calls == {"step1": 1, "random-tool": 1}
    assert outputs(result) == {"step1": {"name": "step1"}, "random-tool": {"name": "step1"}}


def tool() -> Step:
    return typed("double-tool", Value, lambda data: {"doubled": data.value * 2})


@pytest.mark.row("basic-interop-tool-builder")
async def test_a_tool_like_step_alone(run: Run) -> None:
    result = await run(Workflow("tools", input=Value).then(tool()), {"value": 5})
    assert result.status == "success" and outputs(result) == {"double-tool": {"doubled": 10}}


@pytest.mark.row("basic-interop-map-then-tool")
async def test_a_mapping_feeds_a_tool_like_step(run: Run) -> None:
    result = await run(Workflow("tools").map(lambda prev: {"value": prev["value"] + 1}).then(tool()), {"value": 5})
    assert result.status == "success" and result.steps["double-tool"].output == {"doubled": 12}
    assert result.steps["mapping-0"].output == {"value": 6}


@pytest.mark.row("basic-interop-then-create-step-tool")
async def test_a_step_made_of_a_plain_function(run: Run) -> None:
    def double(data: Value) -> dict[str, float]:
        return {"doubled": data.value * 2}

    result = await run(Workflow("tools").then(step(double, id="double-tool")), {"value": 5})
    assert result.status == "success" and outputs(result) == {"double-tool": {"doubled": 10}}


@pytest.mark.row("basic-interop-parallel-tool-and-agent")
async def test_parallel_members_pick_their_own_fields(run: Run) -> None:
    seen: list[Any] = []

    def answer(data: Prompt) -> dict[str, str]:
        seen.append(data)
        return {"text": "hello world"}

    flow = Workflow("agents", input=Both).parallel(tool(), typed("writer", Prompt, answer))
    result = await run(flow, {"value": 4, "prompt": "hi"})
    assert result.status == "success" and seen == [Prompt(prompt="hi")]
    assert outputs(result) == {"double-tool": {"doubled": 8}, "writer": {"text": "hello world"}}
