"""Suspend and stream, area runs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest

from noria import Context, InvalidInput, NonRetryable, Noria, Retry, Workflow, step
from tests.conformance.conftest import Run
from tests.conformance.doubles import fails, gives, outputs, timed


@pytest.mark.row("runs-multi-step")
async def test_three_steps(run: Run, calls: Counter[str]) -> None:
    flow = Workflow("three").then(gives("a", 1, calls)).then(gives("b", 2, calls)).then(gives("c", 3, calls))
    assert outputs(await run(flow, {})) == {"a": 1, "b": 2, "c": 3} and calls == {"a": 1, "b": 1, "c": 1}


@pytest.mark.row("runs-repeat")
async def test_several_runs_of_one_workflow(noria: Noria, calls: Counter[str]) -> None:
    flow = Workflow("repeats").then(gives("step", lambda _: {"runNumber": calls["step"]}, calls)).commit()
    async with noria.worker(flow, lease=5):
        assert [(await noria.run(flow, {}, timeout=20)).result for _ in range(3)] == [{"runNumber": n} for n in (1, 2, 3)]


@pytest.mark.row("fs-status-only-success-at-end")
async def test_a_run_is_running_until_its_last_step_ended(noria: Noria) -> None:
    going, seen = asyncio.Event(), False

    @step(id="final")
    async def final(data: int) -> int:
        await going.wait()
        return data

    flow = Workflow("ends").then(gives("increment", lambda x: x + 1)).then(final).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        async for event in run.stream(0):
            if event.type == "workflow-step-start" and event.step == "final":
                record = await run.get()
                assert record is not None and record.status == "running" and record.steps["final"].status == "running"
                assert record.steps["increment"].status == "success" and record.steps["final"].input == 1
                seen = True
                going.set()
        record = await run.get()
    assert seen and record is not None and record.status == record.steps["final"].status == "success"


@pytest.mark.row("fs-run-id-same")
async def test_two_handles_of_one_run(noria: Noria) -> None:
    flow = Workflow("same").then(gives("step1", 1)).commit()
    first = noria.create_run(flow)
    assert noria.create_run(flow, first.id).id == first.id != noria.create_run(flow).id


@pytest.mark.row("fs-di-run")
async def test_request_context_reaches_a_step(run: Run) -> None:
    @step(id="step1")
    async def reads(ctx: Context) -> dict[str, Any]:
        return {"injectedValue": ctx.request_context["testKey"]}

    result = await run(Workflow("injected").then(reads), {}, request_context={"testKey": "test-value"})
    assert outputs(result) == {"step1": {"injectedValue": "test-value"}}


@pytest.mark.row("fs-retry-count-zero")
async def test_the_attempt_is_zero_at_first(run: Run) -> None:
    seen: list[tuple[str | None, int]] = []

    @step(id="step1")
    async def counts(ctx: Context) -> None:
        seen.append((ctx.step_id, ctx.attempt))

    assert (await run(Workflow("counts").then(counts).then(counts.clone(id="step2")), {})).status == "success"
    assert seen == [("step1", 0), ("step2", 0)]


@pytest.mark.row("fs-start-async", "nd-start-async")
async def test_start_async_returns_at_once(noria: Noria) -> None:
    @step(id="step1")
    async def slow(data: dict[str, str]) -> dict[str, str]:
        await asyncio.sleep(0.2)
        return {"result": "success"}

    flow = Workflow("asynchronous").then(slow).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert await run.start_async({"a": "b"}) == run.id
        record = await run.get()
        assert record is not None and record.status in ("pending", "running")
        async with asyncio.timeout(10):
            while (record := await run.get()) is None or record.status != "success":
                await asyncio.sleep(0.02)
    assert (record.steps["step1"].output, record.steps["step1"].input) == ({"result": "success"}, {"a": "b"})
    timed(record, "step1")


@pytest.mark.row("nd-logger-set", "nd-logger-primitives", "nd-logger-errors")
async def test_steps_log_and_errors_are_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    @step(id="says")
    async def says(ctx: Context) -> None:
        ctx.log.warning("hello from %s", ctx.run_id)

    with caplog.at_level(logging.WARNING):
        result = await run(Workflow("logs").then(says).then(fails("failing-step", "it broke")), {})
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("noria")]
    assert result.status == "failed" and any(f"hello from {result.run_id}" in m for m in messages)
    assert any("failing-step" in m and "it broke" in m for m in messages)


@pytest.mark.row("nd-no-retry", "nd-no-retry-nested")
@pytest.mark.parametrize("nested", [False, True])
async def test_what_is_not_retryable_is_tried_once(run: Run, calls: Counter[str], nested: bool) -> None:
    @step(id="step1")
    async def hopeless(data: Any) -> None:
        calls["step1"] += 1
        raise NonRetryable("never")

    again = Retry(attempts=3)
    unit: Any = Workflow("nested", retry=again).then(hopeless) if nested else hopeless
    result = await run(Workflow("parent", retry=again).then(unit), {})
    assert result.status == "failed" and calls == {"step1": 1} and result.error is not None and result.error.type == "NonRetryable"
    assert result.steps["nested" if nested else "step1"].status == "failed"


@pytest.mark.row("nd-retry-transient-nested")
async def test_what_is_transient_is_tried_again_in_a_nested_workflow(run: Run, calls: Counter[str]) -> None:
    nested = Workflow("nested", retry=Retry(attempts=3)).then(fails("step1", "transient", calls))
    result = await run(Workflow("parent").then(nested), {})
    assert result.status == result.steps["nested"].status == "failed" and calls == {"step1": 4}
    assert result.error is not None and result.error.type == "RuntimeError"


def guarded() -> Workflow:
    """A nested workflow whose first step asks who is there, as an access provider would."""

    @step(id="guard")
    async def guard(data: dict[str, str], ctx: Context) -> dict[str, Any]:
        user, actor = ctx.request_context.get("user"), ctx.request_context.get("actor")
        if user is None and actor is None:
            raise PermissionError("authenticated user is required")
        asked = {"user": user, "resource": {"type": "workflow", "id": ctx.workflow_id}, "run": ctx.run_id, "resource_id": ctx.resource_id}
        return {**data, "asked": asked if actor is None else None}

    return Workflow("guarded").then(Workflow("inner").then(guard)).commit()


@pytest.mark.row("nd-fga-execute", "nd-fga-no-user", "nd-fga-actor")
async def test_a_nested_execution_knows_who_asks(run: Run) -> None:
    user = {"id": "user-1"}
    allowed = await run(guarded(), {"a": "1"}, request_context={"user": user}, resource_id="res-1")
    asked = {"user": user, "resource": {"type": "workflow", "id": "inner"}, "run": allowed.run_id, "resource_id": "res-1"}
    assert allowed.result == {"a": "1", "asked": asked}
    refused = await run(guarded(), {"a": "1"})
    assert refused.status == "failed" and refused.error is not None and "authenticated user is required" in refused.error.message
    trusted = await run(guarded(), {"a": "1"}, request_context={"actor": {"kind": "system"}, "organization_id": "o"})
    assert trusted.result == {"a": "1", "asked": None}


@pytest.mark.row("cx-nested-success")
async def test_a_nested_success_goes_on(run: Run, calls: Counter[str]) -> None:
    nested = Workflow("nested").then(gives("inner", {"nested": "result"}))
    result = await run(Workflow("parent").then(nested).then(gives("next", 1, calls)), {})
    assert outputs(result) == {"nested": {"nested": "result"}, "next": 1} and calls == {"next": 1}


@pytest.mark.row("ev-on-start")
async def test_a_start_that_is_refused_runs_nothing(noria: Noria, calls: Counter[str]) -> None:
    """What refuses a start are the declared types: it rejects, nothing is recorded, no step is called."""
    flow = Workflow("refuses", context=dict[str, int]).then(gives("step1", 1, calls)).commit()
    async with noria.worker(flow, lease=5):
        assert (await noria.run(flow, {}, request_context={"limit": 1}, timeout=20)).status == "success"
        run = noria.create_run(flow)
        with pytest.raises(InvalidInput, match="refuses"):
            await run.start({}, request_context={"limit": "none"})
        assert await run.get() is None
    assert calls == {"step1": 1}


async def test_records_are_in_the_order_of_the_first_execution(noria: Noria) -> None:
    """Not of the ends, which is what the log has."""

    @step
    async def slow(x: Any) -> Any:
        await asyncio.sleep(0.1)
        return x

    blocks = Workflow("ordered").parallel(slow, gives("quick", 1)).parallel(Workflow("nested").then(slow), gives("a", 1))
    flow = blocks.then(gives("last", 1)).commit()
    async with noria.worker(flow, lease=5):
        record = await noria.runs.get((result := await noria.run(flow, 1, timeout=20)).run_id)
    assert list(result.steps) == ["slow", "quick", "nested", "a", "last"] and record is not None
    assert list(record.steps) == ["slow", "quick", "nested", "nested.slow", "a", "last"]
