"""Area isolation of reliability.yaml: what a request context must be, and runs that nobody could host."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from noria import Context, InvalidInput, Noria, NoWorker, RunResult, Workflow, WorkflowNotCommitted, WorkflowNotFound, step
from tests.conformance.conftest import Host, Run
from tests.conformance.doubles import failed, gives, waits

WRONG = [{"user": "u1"}, {"user": "u1", "level": "high"}, {}, None]


class Asked(BaseModel):
    user: str
    level: int
    groups: list[str] = ["all"]


def reads(calls: Counter[str], seen: list[Any], **options: Any) -> Any:
    async def work(data: Any, ctx: Context) -> Any:
        calls["reads"] += 1
        seen.append(dict(ctx.request_context))
        return data

    return step(work, id="reads", **options)


@pytest.mark.row("IS-03")
@pytest.mark.not_applicable(15, "credentials in the request context are not carried over")
async def test_a_token_in_an_old_snapshot() -> None: ...


@pytest.mark.row("IS-04")
@pytest.mark.parametrize("wrong", WRONG)
async def test_the_workflows_context_is_checked_before_the_start(noria: Noria, calls: Counter[str], wrong: Any) -> None:
    seen: list[Any] = []
    flow = Workflow("asks", context=Asked).then(reads(calls, seen)).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        with pytest.raises(InvalidInput, match=r"Request context validation failed: workflow 'asks'") as caught:
            await run.start(1, request_context=wrong, timeout=20)
        assert caught.value.errors() and await run.get() is None and not calls
        result = await run.start(1, request_context={"user": "u1", "level": 3, "more": True}, timeout=20)
    assert result.status == "success" and seen == [{"user": "u1", "level": 3, "groups": ["all"], "more": True}]


@pytest.mark.row("IS-05")
@pytest.mark.parametrize("kind", ["alone", "nested", "item", "handler elsewhere"])
async def test_a_steps_own_schema_fails_the_step(noria: Noria, calls: Counter[str], kind: str) -> None:
    checked = reads(calls, [], context=Asked)
    flow = Workflow("steps")
    match kind:
        case "nested":
            flow = flow.then(Workflow("inner").then(checked))
        case "item":
            flow = flow.map(lambda prev: [prev]).foreach(checked, placement="spread")
        case _:
            flow = flow.then(checked)
    flow = flow.then(gives("next", 1, calls)).commit()
    async with noria.worker(flow, lease=5, steps=kind != "handler elsewhere"):
        result = await noria.run(flow, 1, request_context={"user": "u1"}, timeout=20)
    failed(result, "inner" if kind == "nested" else "reads", "Request context validation failed: step 'reads'")
    assert result.error is not None and "- level: " in result.error.message and result.error.type == "InvalidInput" and not calls


async def test_a_nested_workflows_schema_fails_it_as_a_step(run: Run, calls: Counter[str]) -> None:
    flow = Workflow("outer").then(Workflow("inner", context=Asked).then(gives("a", 1, calls))).then(gives("next", 1, calls))
    result = await run(flow, 1, request_context={"user": "u1"})
    failed(result, "inner", "Request context validation failed: workflow 'inner'")
    assert not calls and (await run(flow.clone(id="twin"), 1, request_context={"user": "u1", "level": 1})).status == "success"


async def test_a_context_that_steps_changed_is_checked_as_it_is_now(run: Run, calls: Counter[str]) -> None:
    @step
    async def fills(x: int, ctx: Context) -> int:
        ctx.request_context["level"] = x
        return x

    flow = Workflow("fills", input=int).then(fills).then(reads(calls, [], context=Asked))
    assert (await run(flow, 1, request_context={"user": "u1"})).status == "success" and calls == {"reads": 1}


@pytest.mark.row("IS-06")
async def test_the_workflows_check_comes_first(noria: Noria, calls: Counter[str]) -> None:
    flow = Workflow("both", context=Asked).then(reads(calls, [], context=Asked)).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        with pytest.raises(InvalidInput, match="workflow 'both'"):
            await run.start(1, timeout=20)
        assert await run.get() is None and not calls


@pytest.mark.row("IS-07")
@pytest.mark.parametrize("context", [None, {}, {"any": ["thing", 1, None], "deep": {"x": 1.5}}])
async def test_without_a_schema_nothing_is_checked(run: Run, calls: Counter[str], context: Any) -> None:
    seen: list[Any] = []
    result: RunResult = await run(Workflow("free").then(reads(calls, seen)), 1, request_context=context)
    assert result.status == "success" and seen == [context or {}]


async def test_validate_false_checks_no_context(run: Run, calls: Counter[str]) -> None:
    flow = Workflow("lax", context=Asked, validate=False).then(reads(calls, [], context=Asked))
    assert (await run(flow, 1, request_context={"level": "x"})).status == "success"


async def test_a_resume_whose_context_does_not_fit_is_refused(host: Host, calls: Counter[str]) -> None:
    """What the run would have is checked: its own context under the given one."""
    run = await host(Workflow("parks", context=Asked).then(waits("ask", lambda _, data: data, calls)).commit())
    assert (await run.start(1, request_context={"user": "u1", "level": 1}, timeout=20)).status == "suspended"
    with pytest.raises(InvalidInput, match="Request context validation failed: workflow 'parks'"):
        await run.resume("no", request_context={"level": "high"})
    assert (record := await run.get()) is not None and record.status == "suspended" and calls == {"ask": 1}
    assert (await run.resume("yes", request_context={"level": 2})).result == "yes"


@pytest.mark.row("IS-08")
async def test_who_cannot_be_run_is_refused_and_who_has_no_host_does_not_hang(noria: Noria, calls: Counter[str]) -> None:
    """Difference 10: a start without a worker is durable; the caller bounds his wait."""
    flow = Workflow("hosted").then(gives("a", 1, calls))
    with pytest.raises(WorkflowNotFound, match="nobody-knows"):
        await noria.create_run("nobody-knows").start(1)
    with pytest.raises(WorkflowNotCommitted, match="hosted"):
        await noria.create_run(flow).start(1)
    run = noria.create_run(flow.commit())
    with pytest.raises(NoWorker, match="no worker hosts workflow 'hosted'"):
        await run.start(1, timeout=0.3)
    async with noria.worker(flow.commit(), lease=5):
        assert (await run.result(timeout=20)).status == "success" and calls == {"a": 1}
