"""Suspend and stream, area resume: nested workflows at any depth, and what a resume finds: request context, resource,
another process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from noria import Context, Noria, StepNotSuspended, Workflow, step
from tests.conformance.conftest import Host
from tests.conformance.doubles import gives, outputs, paths, statuses, waits


def inner(calls: Counter[str], id: str = "nested", label: str | None = None) -> Workflow:
    start = gives("start", lambda data: {"newValue": data["startValue"] + 1}, calls)
    other = waits("other", lambda data, _: {"newValue": data["newValue"], "other": 26}, calls, payload={}, label=label)
    return Workflow(id).then(start).then(other).then(gives("final", lambda data: {"finalValue": data["newValue"] + data["other"]}, calls))


def outer(calls: Counter[str], nested: Workflow) -> Workflow:
    begin, last = gives("begin-step", lambda data: data, calls), gives("last-step", {"success": True}, calls)
    return Workflow("outer").then(begin).then(nested).then(last)


@pytest.mark.row("resume-nested-by-workflow-id", "resume-nested-by-label", "fs-nested-suspend-path", "fs-nested-only")
@pytest.mark.parametrize("how", ["workflow id", "workflow", "label", "ids", "objects", "dotted", "suspension", "auto"])
async def test_inside_a_nested_workflow_named_in_every_way(host: Host, calls: Counter[str], how: str) -> None:
    nested = inner(calls, label="nested-custom-label")
    run = await host(outer(calls, nested))
    first = await run.start({"startValue": 0})
    assert first.status == first.steps["nested"].status == "suspended" and list(first.steps) == ["begin-step", "nested"]
    assert calls == {"begin-step": 1, "start": 1, "other": 1} and paths(first) == [["nested", "other"]]
    other = nested.entries[1].unit  # type: ignore[union-attr]
    names: dict[str, Any] = {
        "workflow id": "nested", "workflow": nested, "ids": ["nested", "other"], "objects": [nested, other], "dotted": "nested.other",
        "suspension": first.suspended[0].path,
    }  # fmt: skip
    result = await run.resume({"newValue": 0}, step=names.get(how), label="nested-custom-label" if how == "label" else None)
    assert result.status == "success" and outputs(result)["nested"] == {"finalValue": 27}
    assert calls == {"begin-step": 1, "start": 1, "other": 2, "final": 1, "last-step": 1}
    record = result.steps["nested"]
    assert record.input == {"startValue": 0} and record.resume_payload == {"newValue": 0} and record.suspend_payload == {}
    assert record.suspended_at is not None and record.resumed_at is not None and record.suspended_at <= record.resumed_at


@pytest.mark.parametrize("wrong", ["other", "nested.start", "nested.nothing", ["other", "nested"], "begin-step", ["nested", "other", "deeper"]])
async def test_a_path_begins_at_the_outermost_workflow(host: Host, calls: Counter[str], wrong: Any) -> None:
    run = await host(outer(calls, inner(calls)))
    await run.start({"startValue": 0})
    with pytest.raises(StepNotSuspended, match=r"Available suspended steps: 'nested\.other'"):
        await run.resume({}, step=wrong)
    assert (await run.resume({}, step="nested")).status == "success"


@pytest.mark.row("resume-nested-consecutive", "fs-nested-consecutive")
async def test_two_nested_workflows_in_a_row(host: Host, calls: Counter[str]) -> None:
    def sub(n: int) -> Workflow:
        asks = waits(f"step-{n}", lambda _, given: {"suspect": given["suspect"]}, calls, payload={"message": f"What is the suspect {n}?"})
        return Workflow(f"sub-workflow-{n}").then(asks)

    run = await host(Workflow("consecutive").then(sub(1)).then(sub(2)))
    first = await run.start({"suspect": "initial-suspect"})
    assert statuses(first) == {"sub-workflow-1": "suspended"} and calls == {"step-1": 1}
    second = await run.resume({"suspect": "first-suspect"}, step=["sub-workflow-1", "step-1"])
    assert statuses(second) == {"sub-workflow-1": "success", "sub-workflow-2": "suspended"} and calls == {"step-1": 2, "step-2": 1}
    third = await run.resume({"suspect": "second-suspect"}, step="sub-workflow-2.step-2")
    assert statuses(third) == {"sub-workflow-1": "success", "sub-workflow-2": "success"} and calls == {"step-1": 2, "step-2": 2}
    assert third.result == {"suspect": "second-suspect"}


@pytest.mark.row("resume-deep-nested", "fs-nested-deep")
@pytest.mark.parametrize("by", ["path", "C", "C.B", "label", "auto"])
async def test_three_levels_deep(host: Host, calls: Counter[str], by: str) -> None:
    passes = gives("passthrough", lambda data: data, calls)
    b = Workflow("B").then(passes).then(inner(calls, "A", "deep"))
    run = await host(outer(calls, Workflow("C").then(passes).then(b)))
    first = await run.start({"startValue": 0})
    assert paths(first) == [["C", "B", "A", "other"]] and first.steps["C"].status == "suspended" and calls["passthrough"] == 2
    assert "last-step" not in first.steps and first.steps["C"].suspend_payload == {}
    step: Any = first.suspended[0].path if by == "path" else by if by in ("C", "C.B") else None
    result = await run.resume({"newValue": 0}, step=step, label="deep" if by == "label" else None)
    assert result.status == "success" and outputs(result)["C"] == {"finalValue": 27}
    assert calls == {"begin-step": 1, "passthrough": 2, "start": 1, "other": 2, "final": 1, "last-step": 1}


@pytest.mark.row("resume-branch-not-reevaluated")
async def test_a_rebuilt_workflow_does_not_ask_its_conditions_again(noria: Noria, calls: Counter[str]) -> None:
    asked: list[Any] = []

    def build() -> Workflow:
        def asks(large: bool) -> Any:
            def condition(prev: Any) -> bool:
                asked.append(prev)
                return (prev["mappedValue"] > 10) == large

            return condition

        arm = Workflow("suspending").then(waits("suspending-step", lambda _, given: {"answer": given["answer"]}, calls))
        flow = Workflow("arms").map(lambda prev: {"mappedValue": prev["value"] * 2})
        return flow.branch((asks(True), arm), (asks(False), gives("fallback", {}, calls))).commit()

    async with noria.worker(build(), lease=5):
        run = noria.create_run("arms")
        first = await run.start({"value": 10})
    assert first.status == "suspended" and asked == [{"mappedValue": 20}] * 2
    async with noria.worker(rebuilt := build(), lease=5):
        result = await noria.create_run(rebuilt, run.id).resume({"answer": "hello"}, step=first.suspended[0].path)
    assert result.status == result.steps["suspending"].status == "success" and len(asked) == 2 and calls == {"suspending-step": 2}
    assert result.result == {"suspending": {"answer": "hello"}}


@pytest.mark.row("fs-nested-branches")
async def test_a_resume_runs_no_arm_that_was_not_taken(host: Host, calls: Counter[str]) -> None:
    def arm(id: str) -> Workflow:
        flow = Workflow(id).then(gives(f"{id}-first", lambda data: data, calls)).then(waits(f"{id}-asks", lambda _, given: given, calls))
        return flow.branch((lambda prev: prev == 1, gives(f"{id}-one", 1, calls)), (lambda prev: prev == 2, waits(f"{id}-two", 2, calls)))

    arms = [(lambda prev, wanted=wanted: prev == wanted, arm(id)) for id, wanted in (("a", "b"), ("b", "b"), ("c", "c"))]
    run = await host(Workflow("branches").branch(*arms).then(gives("last", lambda data: data, calls)))
    first = await run.start("b")
    assert statuses(first) == {"a": "suspended", "b": "suspended"} and paths(first) == [["a", "a-asks"], ["b", "b-asks"]]
    second = await run.resume(2, step="b")
    assert paths(second) == [["a", "a-asks"], ["b", "b-two"]]
    third = await run.resume(1, step="a")
    assert paths(third) == [["b", "b-two"]] and statuses(third) == {"a": "success", "b": "suspended"}
    result = await run.resume("done")
    assert result.result == {"a": {"a-one": 1}, "b": {"b-two": 2}}
    record = await run.get()
    assert record is not None and not [id for id in record.steps if id.startswith("c") or id in ("a.a-two", "b.b-one")]
    assert calls == {"a-first": 1, "a-asks": 2, "a-one": 1, "b-first": 1, "b-asks": 2, "b-two": 2, "last": 1}


def appends(key: str, text: str, ctx: Context) -> None:
    ctx.request_context[key] = [*ctx.request_context.get(key, []), text]


@pytest.mark.row("resume-request-context-4442", "fs-request-context-4442", "fs-request-context-custom")
@pytest.mark.parametrize("given", [None, {"responses": []}])
async def test_the_request_context_survives_a_suspension(host: Host, calls: Counter[str], given: Any) -> None:
    @step(id="promptAgent")
    async def prompt(ctx: Context) -> None:
        calls["promptAgent"] += 1
        if ctx.resume_data is None:
            appends("responses", "first message", ctx)
            ctx.suspend({"testPayload": "hello"})
        appends("responses", "promptAgentAction", ctx)

    @step(id="requestContextAction")
    async def reads(ctx: Context) -> Any:
        return ctx.request_context["responses"]

    user = gives("getUserInput", lambda data: {"userInput": data["input"]})
    run = await host(Workflow("context", validate=False).then(user).then(prompt).then(reads))
    first = await run.start({"input": "test"}, request_context=given)
    record = await run.get()
    assert first.steps["promptAgent"].status == "suspended" and calls == {"promptAgent": 1}
    assert record is not None and record.request_context == {"responses": ["first message"]}
    result = await run.resume({"userInput": "input for resumption"}, step="promptAgent")
    assert result.result == ["first message", "promptAgentAction"] and calls == {"promptAgent": 2}


@pytest.mark.row("fs-di-before-suspend", "fs-di-removed")
@pytest.mark.parametrize("removes", [False, True])
@pytest.mark.parametrize("placement", ["local", "spread"])
async def test_what_a_resume_does_to_the_request_context(host: Host, removes: bool, placement: Any) -> None:
    """Set before, kept; given to the resume, overriding; removed by the resumed step, gone; also for a spread child."""

    @step(id="increment")
    async def increment(data: Any, ctx: Context) -> Any:
        ctx.request_context["testKey"] = "test-value"
        ctx.request_context["other"] = "before"
        return [data]

    @step(id="resume")
    async def resumes(ctx: Context) -> Any:
        if ctx.resume_data is None:
            ctx.suspend()
        seen = dict(ctx.request_context)
        if removes:
            del ctx.request_context["testKey"]
        return seen

    @step(id="final")
    async def final(data: Any, ctx: Context) -> Any:
        return [data, dict(ctx.request_context)]

    run = await host(Workflow("removed").then(increment).foreach(resumes, placement=placement).then(final))
    await run.start({}, request_context={"kept": 1})
    result = await run.resume(True, request_context={"other": "given", "new": 2})
    full = {"kept": 1, "testKey": "test-value", "other": "given", "new": 2}
    assert result.result == [[full], {k: v for k, v in full.items() if k != "testKey" or not removes}]


@pytest.mark.row("resume-nested-request-context", "fs-nested-context")
async def test_a_workflow_nested_behind_a_suspension_sees_the_context(host: Host) -> None:
    @step(id="setup-step")
    async def setup(ctx: Context) -> None:
        ctx.request_context["test-key"] = "test-context-value"

    @step(id="suspend-step")
    async def suspends(ctx: Context) -> Any:
        assert ctx.request_context["test-key"] == "test-context-value"
        if not (ctx.resume_data or {}).get("confirmed"):
            ctx.suspend({})
        return {"resumed": True}

    @step(id="verify-context-step")
    async def verify(data: Any, ctx: Context) -> Any:
        assert data == ctx.init_data == {"resumed": True} and ctx.client is not None
        return {"success": True, "hasTestData": ctx.request_context["test-key"] == "test-context-value"}

    run = await host(Workflow("behind").then(setup).then(suspends).then(Workflow("nested-workflow").then(verify)))
    assert (await run.start({})).status == "suspended"
    result = await run.resume({"confirmed": True}, step="suspend-step")
    assert result.status == "success" and result.result == {"success": True, "hasTestData": True}


async def test_a_process_that_never_saw_the_run_restores_it(noria: Noria, calls: Counter[str]) -> None:
    """State, request context, resource and what is suspended come from storage alone: a fresh process hosts and resumes."""
    from tests.conformance import other_process

    async with noria.worker(other_process.flow, lease=5):
        run = noria.create_run(other_process.flow, resource_id="tenant-7")
        first = await run.start(5, state={"began": True}, request_context={"user": "u-1"})
    assert paths(first) == [["deep", "asks"]] and first.state == {"began": True, "asked": 5}
    script = Path(other_process.__file__)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), noria.url, noria.namespace, run.id, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    told = json.loads(out)
    assert told["result"] == {"x": 5, "given": 37, "state": {"began": True, "asked": 5}, "user": "u-1", "resource": "tenant-7"}
    assert told["state"] == {"began": True, "asked": 5, "answered": 42}
    record = await run.get()
    assert record is not None and record.status == "success" and record.result == told["result"] and record.resource_id == "tenant-7"
