"""Control flow, areas callbacks and request context. What a row's callback argument has, `result` or `ctx` has."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from noria import Context, Noria, Workflow, step
from tests.conformance.conftest import Run
from tests.conformance.doubles import fails, gives, spy


def works(**options: Any) -> Workflow:
    return Workflow("callbacks", **options).then(gives("step1", {"result": "success"}))


def breaks(**options: Any) -> Workflow:
    return Workflow("callbacks-error", **options).then(fails("failing-step", "Test error"))


async def finishes(run: Run, read: Any, input: Any = None, **options: Any) -> Any:
    """What on_finish read on a success; it ran once."""
    seen: dict[str, Any] = {}
    result = await run(works(on_finish=spy(seen, "finish", read)), input if input is not None else {}, **options)
    assert result.status == "success" and seen["finish calls"] == 1
    return seen["finish"]


async def errs(run: Run, read: Any, input: Any = None, **options: Any) -> Any:
    """What on_error read on a failure; it ran once."""
    seen: dict[str, Any] = {}
    result = await run(breaks(on_error=spy(seen, "error", read)), input if input is not None else {}, **options)
    assert result.status == "failed" and seen["error calls"] == 1
    return seen["error"]


@pytest.mark.row("callbacks-finish-on-success")
async def test_on_finish_fires_once(run: Run) -> None:
    calls: list[str] = []
    assert (await run(works(on_finish=lambda: calls.append("finish")), {})).status == "success" and calls == ["finish"]


@pytest.mark.row("callbacks-error-on-failure")
async def test_on_error_fires_once(run: Run) -> None:
    calls: list[str] = []
    assert (await run(breaks(on_error=lambda: calls.append("error")), {})).status == "failed" and calls == ["error"]


@pytest.mark.row("callbacks-finish-receives-result")
async def test_on_finish_gets_the_result(run: Run) -> None:
    seen: list[Any] = []
    await run(works(on_finish=seen.append), {})
    assert [(r.status, r.result) for r in seen] == [("success", {"result": "success"})]


@pytest.mark.row("callbacks-error-not-on-success")
async def test_on_error_is_silent_on_success(run: Run) -> None:
    seen: list[Any] = []
    assert (await run(works(on_error=seen.append), {})).status == "success" and seen == []


@pytest.mark.row("callbacks-both-on-failure")
async def test_both_fire_on_failure(run: Run) -> None:
    seen: dict[str, Any] = {}
    both = {f"on_{name}": spy(seen, name, lambda result, ctx: result.status) for name in ("finish", "error")}
    assert (await run(breaks(**both), {})).status == "failed"
    assert seen == {"finish calls": 1, "finish": "failed", "error calls": 1, "error": "failed"}


@pytest.mark.row("callbacks-error-async")
async def test_an_async_callback_is_awaited(run: Run) -> None:
    completed: list[bool] = []

    async def on_error() -> None:
        await asyncio.sleep(0.01)
        completed.append(True)

    await run(breaks(on_error=on_error), {})
    assert completed == [True]


@pytest.mark.row("callbacks-finish-workflow-id")
async def test_on_finish_knows_the_workflow(run: Run) -> None:
    assert await finishes(run, lambda result, ctx: (result.workflow_id, ctx.workflow_id)) == ("callbacks", "callbacks")


@pytest.mark.row("callbacks-finish-resource-id")
async def test_on_finish_knows_the_resource(run: Run) -> None:
    assert await finishes(run, lambda result, ctx: ctx.resource_id, resource_id="resource-1") == "resource-1"


@pytest.mark.row("callbacks-error-run-id")
async def test_on_error_knows_the_run(run: Run) -> None:
    assert await errs(run, lambda result, ctx: (result.run_id, ctx.run_id), run_id="run-1") == ("run-1", "run-1")


@pytest.mark.row("callbacks-error-workflow-id")
async def test_on_error_knows_the_workflow(run: Run) -> None:
    assert await errs(run, lambda result, ctx: (result.workflow_id, ctx.workflow_id)) == ("callbacks-error", "callbacks-error")


@pytest.mark.row("callbacks-finish-on-suspend")
async def test_on_finish_fires_on_a_suspension(run: Run) -> None:
    seen: dict[str, Any] = {}

    @step(id="step1")
    async def waits(ctx: Context) -> None:
        ctx.suspend({"reason": "waiting"})

    flow = Workflow("suspends", on_finish=spy(seen, "finish", lambda result, ctx: result.status)).then(waits)
    assert (await run(flow, {})).status == "suspended" and seen == {"finish calls": 1, "finish": "suspended"}


@pytest.mark.row("callbacks-finish-init-data")
async def test_on_finish_reads_the_input(run: Run) -> None:
    input = {"userId": "user-123"}
    assert await finishes(run, lambda result, ctx: (ctx.init_data, result.input), input) == (input, input)


@pytest.mark.row("callbacks-error-init-data")
async def test_on_error_reads_the_input(run: Run) -> None:
    input = {"userId": "user-456"}
    assert await errs(run, lambda result, ctx: (ctx.init_data, result.input), input) == (input, input)


def logs(_: Any, ctx: Any) -> bool:
    return callable(ctx.log.info) and callable(ctx.log.error)


@pytest.mark.row("callbacks-finish-logger")
async def test_on_finish_gets_a_logger(run: Run) -> None:
    assert await finishes(run, logs)


@pytest.mark.row("callbacks-error-logger")
async def test_on_error_gets_a_logger(run: Run) -> None:
    assert await errs(run, logs)


@pytest.mark.row("callbacks-finish-request-context")
async def test_on_finish_gets_the_request_context(run: Run) -> None:
    given = {"customKey": "customValue"}
    assert await finishes(run, lambda result, ctx: ctx.request_context.get("customKey"), request_context=given) == "customValue"


@pytest.mark.row("callbacks-error-request-context")
async def test_on_error_gets_the_request_context(run: Run) -> None:
    read = await errs(run, lambda result, ctx: ctx.request_context.get("errorKey"), request_context={"errorKey": "errorValue"})
    assert read == "errorValue"


@pytest.mark.row("callbacks-finish-host")
async def test_on_finish_gets_the_client(noria: Noria, run: Run) -> None:
    assert await finishes(run, lambda result, ctx: ctx.client) is noria


@pytest.mark.row("callbacks-error-host")
async def test_on_error_gets_the_client(noria: Noria, run: Run) -> None:
    assert await errs(run, lambda result, ctx: ctx.client) is noria


@pytest.mark.row("callbacks-error-resource-id")
async def test_on_error_knows_the_resource(run: Run) -> None:
    assert await errs(run, lambda result, ctx: ctx.resource_id, resource_id="error-resource-456") == "error-resource-456"


@pytest.mark.row("callbacks-error-state")
async def test_on_error_sees_the_state(run: Run) -> None:
    class State(BaseModel):
        counter: int | None = None

    seen: dict[str, Any] = {}

    @step(id="step1")
    async def counts(ctx: Context) -> Any:
        ctx.set_state(counter=10)
        return {"result": "success"}

    on_error = spy(seen, "error", lambda result, ctx: result.state)
    flow = Workflow("stateful", state=State, on_error=on_error).then(counts).then(fails("failing-step", "Test error"))
    assert (await run(flow, {})).status == "failed" and seen == {"error calls": 1, "error": {"counter": 10}}


def chain(seen: list[Any], increment: Any, resumed: Any) -> Workflow:
    """increment, a step `resume` that suspends once, and `final` which looks for testKey."""

    @step(id="increment")
    async def first(data: dict[str, int], ctx: Context) -> Any:
        ctx.request_context["testKey"] = increment
        return {"value": data["value"] + 1}

    @step(id="resume")
    async def second(data: dict[str, int], ctx: Context) -> Any:
        if ctx.resume_data is None:
            ctx.suspend({})
        return resumed(data, ctx)

    @step(id="final")
    async def final(data: dict[str, int], ctx: Context) -> Any:
        seen.append(ctx.request_context.get("testKey"))
        return {"value": data["value"]}

    return Workflow("context").then(first).then(second).then(final)


@pytest.mark.row("context-removed-value-stays-removed")
async def test_a_removed_value_stays_removed(noria: Noria) -> None:
    def resumed(data: Any, ctx: Context) -> Any:
        del ctx.request_context["testKey"]
        return {"value": ctx.resume_data["value"]}

    seen: list[Any] = []
    flow = chain(seen, "test-dependency", resumed)
    async with noria.worker(flow, lease=5):
        assert (await noria.run(flow, {"value": 0}, run_id="removed", timeout=20)).status == "suspended"
        result = await asyncio.wait_for(noria.create_run(flow, "removed").resume({"value": 21}, step="resume"), 20)
    assert result.status == "success" and seen == [None]


@pytest.mark.row("context-start-values-available-on-resume")
async def test_start_values_are_there_on_resume(noria: Noria) -> None:
    @step(id="suspend-resume")
    async def waits(ctx: Context) -> Any:
        if ctx.resume_data is None:
            ctx.suspend({})
        return {"result": "resumed", "contextValue": ctx.request_context.get("injectedKey")}

    flow = Workflow("injected").then(waits)
    async with noria.worker(flow, lease=5):
        first = await noria.run(flow, {}, run_id="injected", request_context={"injectedKey": "injected-value"}, timeout=20)
        assert first.status == "suspended" and [s.path for s in first.suspended] == [("suspend-resume",)]
        result = await asyncio.wait_for(noria.create_run(flow, "injected").resume({"data": "test"}, step="suspend-resume"), 20)
    assert (result.status, result.result) == ("success", {"result": "resumed", "contextValue": "injected-value"})


@pytest.mark.row("context-set-before-suspend-survives")
async def test_a_value_set_before_the_suspension_survives(noria: Noria) -> None:
    seen: list[Any] = []
    flow = chain(seen, "test-value", lambda data, ctx: {"value": ctx.resume_data["value"] + data["value"]})
    async with noria.worker(flow, lease=5):
        assert (await noria.run(flow, {"value": 0}, run_id="kept", timeout=20)).status == "suspended"
        result = await asyncio.wait_for(noria.create_run(flow, "kept").resume({"value": 21}, step="resume"), 20)
    assert (result.status, result.result, seen) == ("success", {"value": 22}, ["test-value"])
