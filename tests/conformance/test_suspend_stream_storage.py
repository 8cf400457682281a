"""Suspend and stream, area storage. What a run is stored as is its RunRecord; limiting its fields is reading those."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from noria import Context, Noria, RunRecord, RunResult, Step, Workflow, step
from tests.conformance.doubles import fails, gives, timed


def two() -> Workflow:
    return Workflow("two").then(gives("step1", {"result": "success1"})).then(gives("step2", {"result": "success2"})).commit()


async def stored(noria: Noria, result: RunResult, **options: Any) -> RunRecord:
    record = await noria.runs.get(result.run_id, **options)
    assert record is not None
    return record


@pytest.mark.row("storage-list", "fs-runs-list")
async def test_stored_runs_are_listed(noria: Noria) -> None:
    flow = two()
    async with noria.worker(flow, lease=5):
        for run_id in ("r1", "r2"):
            await noria.run(flow, {}, run_id=run_id, timeout=20)
        page = await noria.runs.list(flow)
    assert page.total == 2 and [(r.run_id, r.workflow_id, r.status) for r in page.runs] == [("r2", "two", "success"), ("r1", "two", "success")]
    assert all(r.created_at and r.started_at and r.ended_at and r.created_at.tzinfo for r in page.runs)


@pytest.mark.row("fs-runs-no-app")
async def test_a_list_without_runs_is_empty(noria: Noria) -> None:
    page = await noria.runs.list(two())
    assert (page.runs, page.total) == ([], 0)


@pytest.mark.row("storage-get-delete", "fs-runs-get-delete")
async def test_get_and_delete(noria: Noria) -> None:
    flow = two()
    async with noria.worker(flow, lease=5):
        result = await noria.run(flow, {}, timeout=20)
        record = await stored(noria, result)
        assert (record.run_id, record.workflow_id, record.status, list(record.steps)) == (result.run_id, "two", "success", ["step1", "step2"])
        assert (await noria.runs.list()).total == 1
        await noria.runs.delete(result.run_id)
        assert await noria.runs.get(result.run_id) is None and (await noria.runs.list()).total == 0


@pytest.mark.row("storage-resource-id", "fs-runs-resource")
async def test_the_resource_id_is_stored(noria: Noria) -> None:
    flow = two()
    async with noria.worker(flow, lease=5):
        for resource in ("user-123", "user-456", None):
            result = await noria.run(flow, {}, resource_id=resource, timeout=20)
            assert (await stored(noria, result)).resource_id == resource
        assert [r.resource_id for r in (await noria.runs.list()).runs] == [None, "user-456", "user-123"]
        assert (await noria.runs.list(resource_id="user-456")).total == 1


@pytest.mark.row("storage-resource-id-loop")
async def test_the_resource_id_is_there_in_every_round(noria: Noria) -> None:
    seen: list[Any] = []

    @step(id="loopStep")
    async def loop(data: dict[str, int], ctx: Context) -> dict[str, int]:
        record = await ctx.client.runs.get(ctx.run_id)
        seen.append((ctx.resource_id, record.resource_id))
        return {"value": data["value"] + 1}

    flow = Workflow("loops").do_until(loop, lambda out: out["value"] >= 3).commit()
    async with noria.worker(flow, lease=5):
        assert (await noria.run(flow, {"value": 0}, resource_id="user-loop-456", timeout=20)).status == "success"
    assert seen == [("user-loop-456", "user-loop-456")] * 3


@pytest.mark.row("fs-runs-resource-resume")
async def test_the_resource_id_outlives_a_resume(noria: Noria) -> None:
    @step(id="ask")
    async def ask(ctx: Context) -> Any:
        return ctx.resume_data if ctx.resume_data is not None else ctx.suspend()

    flow = Workflow("resumes").then(ask).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow, resource_id="user-1")
        assert (await run.start({}, timeout=20)).status == "suspended"
        before = await run.get()
        assert (await noria.create_run(flow, run.id).resume(1)).status == "success"
        after = await run.get()
        assert before is not None and after is not None and before.resource_id == after.resource_id == "user-1"
        assert (await noria.runs.list(resource_id="user-1")).total == 1


@pytest.mark.row("storage-fields", "fs-fields")
async def test_a_record_has_all_fields_and_a_list_only_the_summary(noria: Noria) -> None:
    flow = Workflow("fields").then(gives("step1", {"value": "result1"})).commit()
    async with noria.worker(flow, lease=5):
        record = await stored(noria, await noria.run(flow, {"a": 1}, timeout=20))
        line = (await noria.runs.list()).runs[0]
    assert (record.status, record.result, record.input, record.workflow_id) == ("success", {"value": "result1"}, {"a": 1}, "fields")
    assert (record.steps["step1"].status, record.steps["step1"].output) == ("success", {"value": "result1"})
    assert line.status == "success" and not hasattr(line, "steps") and not hasattr(line, "result") and not hasattr(line, "input")


@pytest.mark.row("storage-nested-steps", "fs-without-nested")
async def test_nested_records_are_flattened_unless_switched_off(noria: Noria) -> None:
    nested = Workflow("nested").then(gives("inner-step", lambda data: {"value": data["value"] + 1}))
    flow = Workflow("parent").then(nested).then(gives("outer-step", lambda data: {"value": data["value"] * 2})).commit()
    async with noria.worker(flow, lease=5):
        result = await noria.run(flow, {"value": 1}, timeout=20)
        assert list((await stored(noria, result)).steps) == ["nested", "nested.inner-step", "outer-step"]
        assert list((await stored(noria, result, nested=False)).steps) == ["nested", "outer-step"]


@pytest.mark.row("fs-nested-flatten")
async def test_two_levels_are_flattened(noria: Noria) -> None:
    again = Workflow("nested-again").then(gives("increment", lambda data: {"value": data["value"] + 1}))
    flow = Workflow("increments").then(Workflow("nested").then(again)).then(gives("final", lambda data: data)).commit()
    async with noria.worker(flow, lease=5):
        record = await stored(noria, await noria.run(flow, {"value": 0}, timeout=20))
    assert list(record.steps) == ["nested", "nested.nested-again", "nested.nested-again.increment", "final"]
    assert [(r.status, r.output) for r in record.steps.values()] == [("success", {"value": 1})] * 4
    assert [r.input for r in record.steps.values()] == [{"value": 0}] * 3 + [{"value": 1}]
    timed(record, *record.steps)


@pytest.mark.row("storage-should-persist")
@pytest.mark.not_applicable(6, "whether a snapshot is stored is not a user's choice")
def test_declined_snapshots() -> None: ...


@pytest.mark.row("nd-create-run-persisting", "nd-create-run-explicit")
async def test_a_run_is_looked_up_when_it_is_used(noria: Noria, calls: Counter[str]) -> None:
    """create_run does no I/O: what a handle is for, a start above all, is checked against the store."""
    flow = Workflow("looks-up").then(gives("step1", 1, calls)).commit()
    async with noria.worker(flow, lease=5):
        assert (await noria.create_run(flow, "explicit-run-id").start({}, timeout=20)).status == "success"
        again = noria.create_run(flow, "explicit-run-id")
        assert (await again.result(timeout=5)).status == "success"
        with pytest.raises(Exception, match="exists already"):
            await again.start({})
    assert calls == {"step1": 1}


@pytest.mark.row("fs-snapshot-parallel")
async def test_running_steps_are_seen_and_no_record_disappears(noria: Noria) -> None:
    def slow(id: str, seconds: float) -> Step:
        async def work() -> dict[str, str]:
            await asyncio.sleep(seconds)
            return {"result": id}

        return step(work, id=id)

    members = [f"parallel{n}" for n in (1, 2, 3)]
    flow = Workflow("snapshots").then(slow("initial", 0.1)).parallel(*(slow(id, 0.4) for id in members)).then(slow("final", 0.1)).commit()
    seen: list[dict[str, str]] = []
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start_async({})
        async with asyncio.timeout(20):
            while (record := await run.get()) is None or record.status != "success":
                seen.append({name: r.status for name, r in record.steps.items()} if record is not None else {})
                await asyncio.sleep(0.02)
    for before, after in pairwise(seen):
        assert set(before) <= set(after) and not any(before[n] == "success" != after[n] for n in before)
    running = [{n for n, state in poll.items() if state == "running"} for poll in seen]
    assert set(members) in running and {"initial"} in running and {"final"} in running
    steps = record.steps
    assert all(steps[m].started_at >= steps["initial"].ended_at for m in members)
    assert steps["final"].started_at >= max(steps[m].ended_at for m in members)


class ServiceError(Exception):
    def __init__(self) -> None:
        super().__init__("Internal error")
        self.status_code, self.error_code = 500, "INTERNAL_ERROR"


class ProjectError(Exception):
    def __init__(self) -> None:
        super().__init__("Project failure")
        self.id, self.domain, self.category, self.details = "P1", "flows", "user", {"k": "v"}


@pytest.mark.row("fs-error-storage", "fs-error-persist", "fs-error-persist-project-error")
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        (ServiceError, {"status_code": 500, "error_code": "INTERNAL_ERROR"}),
        (ProjectError, {"id": "P1", "domain": "flows", "category": "user", "details": {"k": "v"}}),
    ],
)
async def test_a_stored_error_is_plain_and_has_no_stack(noria: Noria, kind: type[Exception], attributes: dict[str, Any]) -> None:
    @step(id="step1")
    async def breaks(data: Any) -> None:
        raise kind

    flow = Workflow("errors").then(breaks).commit()
    async with noria.worker(flow, lease=5):
        result = await noria.run(flow, {}, timeout=20)
        record = await stored(noria, result)
    assert record.status == record.steps["step1"].status == "failed"
    for error in (record.error, record.steps["step1"].error, result.error):
        assert error is not None and (error.type, error.message, error.attributes) == (kind.__name__, str(kind()), attributes)
        assert error.stack is None and error.cause is None


@pytest.mark.row("cx-nested-one-leaf", "cx-suspend-fields-cleared")
async def test_of_a_nested_suspension_the_store_shows_one_leaf_and_nothing_once_it_is_over(noria: Noria) -> None:
    @step(id="inner-step")
    async def inner(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
        if ctx.resume_data is not None:
            return {"round": data["round"] + 1, "done": True}
        return {**data, "done": True} if data["round"] else ctx.suspend({"question": "pick one"})

    flow = Workflow("parent").then(Workflow("inner-loop").then(inner)).then(gives("after-step", lambda data: data)).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        result = await run.start({"round": 0, "done": False}, timeout=20)
        record = await stored(noria, result)
        assert [s.path for s in record.suspended] == [("inner-loop", "inner-step")] and result.steps["inner-loop"].status == "suspended"
        assert [name for name, r in record.steps.items() if r.status == "suspended"] == ["inner-loop.inner-step"] and "inner-loop" in record.steps
        resumed = await run.resume({"answer": "a"}, step=record.suspended[0].path)
        record = await stored(noria, resumed)
    assert record.status == "success" and {r.status for r in record.steps.values()} == {"success"}
    assert all(r.suspend_payload is None and r.suspended_at is None for r in record.steps.values())
    assert resumed.steps["inner-loop"].suspend_payload == {"question": "pick one"} and resumed.steps["inner-loop"].suspended_at


async def test_an_unknown_run_has_no_record(noria: Noria) -> None:
    flow = Workflow("unknown").then(fails("step1", "no")).commit()
    async with noria.worker(flow, lease=5):
        assert await noria.runs.get("nobody") is None and await noria.create_run(flow, "nobody").get() is None
