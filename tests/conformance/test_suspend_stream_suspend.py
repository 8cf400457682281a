"""Suspend and stream, area suspend: what a suspension leaves behind."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from noria import InvalidInput, Noria, NoriaError, Workflow
from tests.conformance.conftest import Host, Run
from tests.conformance.doubles import fails, gives, outputs, paths, spy, statuses, timed, waits


class Request(BaseModel):
    approvalRequired: bool
    requestedBy: str
    amount: int


async def done(data: Any, given: Any) -> Any:
    return given


@pytest.mark.row("suspend-run-id")
async def test_a_plain_run(run: Run, calls: Counter[str]) -> None:
    result = await run(Workflow("plain").then(gives("step1", {"result": "success"}, calls)), {}, run_id="chosen-id")
    assert (result.status, result.run_id, calls) == ("success", "chosen-id", {"step1": 1})


@pytest.mark.row("suspend-empty-payload")
async def test_a_suspension_without_a_payload(run: Run) -> None:
    result = await run(Workflow("empty").then(waits("step1", None)), {})
    record = result.steps["step1"]
    assert result.status == record.status == "suspended" and result.result is None and result.ended_at is None
    assert record.suspend_payload is None and record.output is None and record.ended_at is None and record.suspended_at is not None


async def test_an_empty_payload_is_not_none(run: Run) -> None:
    result = await run(Workflow("braces").then(waits("step1", None, payload={})), {})
    assert result.steps["step1"].suspend_payload == result.suspended[0].payload == {}


@pytest.mark.row("suspend-typed-payload")
async def test_a_typed_payload_is_kept_as_given(run: Run, calls: Counter[str]) -> None:
    payload = {"approvalRequired": True, "requestedBy": "user-123", "amount": 500}
    result = await run(Workflow("typed").then(waits("step1", None, calls, payload=payload, suspend=Request)), {})
    assert result.status == "suspended" and calls == {"step1": 1} and result.steps["step1"].suspend_payload == payload


async def test_a_payload_that_does_not_fit_its_type_fails_the_step(run: Run, calls: Counter[str]) -> None:
    result = await run(Workflow("misfit").then(waits("step1", None, calls, payload={"amount": "many"}, suspend=Request)), {})
    assert result.status == "failed" and result.error is not None and result.error.type == InvalidInput.__name__
    assert result.error.message.startswith("Invalid suspend data: ") and "amount" in result.error.message and calls == {"step1": 1}


@pytest.mark.row("suspend-stops-downstream")
async def test_nothing_runs_behind_a_suspension(run: Run, calls: Counter[str]) -> None:
    first, last = gives("step1", {"value": "step1-done"}, calls), gives("step3", {"final": "x"}, calls)
    result = await run(Workflow("stops").then(first).then(waits("step2", None, calls, payload={"reason": "approval needed"})).then(last), {})
    assert result.status == "suspended" and calls == {"step1": 1, "step2": 1} and paths(result) == [["step2"]]
    assert statuses(result) == {"step1": "success", "step2": "suspended"} and result.steps["step1"].output == {"value": "step1-done"}
    assert result.steps["step2"].suspend_payload == {"reason": "approval needed"} and result.steps["step2"].input == {"value": "step1-done"}


@pytest.mark.row("suspend-in-branch")
async def test_in_the_arm_of_a_branch(run: Run, calls: Counter[str]) -> None:
    check = gives("check", {"needsApproval": True}, calls)
    approval, auto = waits("approval", None, calls, payload={"type": "manager-approval"}), gives("autoApprove", {"approved": True}, calls)
    flow = Workflow("arms").then(check).branch((lambda prev: prev["needsApproval"], approval), (lambda prev: not prev["needsApproval"], auto))
    result = await run(flow, {})
    assert result.status == "suspended" and calls == {"check": 1, "approval": 1}
    assert statuses(result) == {"check": "success", "approval": "suspended"} and result.steps["check"].output == {"needsApproval": True}
    assert result.steps["approval"].suspend_payload == {"type": "manager-approval"}


@pytest.mark.row("suspend-parallel-one-of-two")
async def test_a_parallel_sibling_finishes(run: Run, calls: Counter[str]) -> None:
    normal, waiting = gives("step1", {"result": "normal-done"}, calls), waits("step2", None, calls, payload={"waitingFor": "approval"})
    result = await run(Workflow("siblings").parallel(normal, waiting), {})
    assert result.status == "suspended" and calls == {"step1": 1, "step2": 1}
    assert result.steps["step1"].output == {"result": "normal-done"} and result.steps["step2"].suspend_payload == {"waitingFor": "approval"}
    assert statuses(result) == {"step1": "success", "step2": "suspended"}


async def test_a_failed_sibling_outweighs_a_suspended_one(run: Run) -> None:
    result = await run(Workflow("outweighed").parallel(waits("waiting", None), fails("broken", "no")), {})
    assert result.status == "failed" and result.error is not None and result.error.message == "no" and result.suspended == []


async def test_a_bail_outweighs_a_suspended_sibling_and_leaves_nothing_open(noria: Noria) -> None:
    from noria import Context, step

    @step(id="bails")
    async def bails(ctx: Context) -> None:
        ctx.bail("enough")

    inner = Workflow("inner").parallel(waits("waiting", None), bails)
    flow = Workflow("bailed").then(inner).then(gives("after", lambda data: data))
    async with noria.worker(flow, lease=5):
        result = await noria.run(flow, {}, timeout=20)
        record = await noria.runs.get(result.run_id, flow)
    assert (result.status, result.result, result.suspended) == ("success", "enough", [])
    assert record is not None and record.steps["inner.waiting"].status == "canceled" and record.steps["inner"].status == "success"


def four() -> tuple[Any, ...]:
    def use(id: str, key: str, say: str) -> Any:
        return gives(id, lambda data: {key: f"{say}-{data['step1']['result1']}-{data['step2']['result2']}"})

    first = gives("step1", lambda data: {"result1": f"processed-{data['input']}"})
    second = gives("step2", lambda data: {"result2": f"transformed-{data['input']}"})
    return first, second, use("step3", "result3", "combined"), use("step4", "result4", "final")


@pytest.mark.row("resume-consecutive-parallel", "fs-consecutive-parallel")
@pytest.mark.parametrize("text", ["test", "test-data"])
async def test_two_parallel_blocks_in_a_row(run: Run, text: str) -> None:
    one, two, three, four_ = four()
    result = await run(Workflow("twice").parallel(one, two).parallel(three, four_), {"input": text})
    merged = {"step1": {"result1": f"processed-{text}"}, "step2": {"result2": f"transformed-{text}"}}
    tail = f"processed-{text}-transformed-{text}"
    assert result.result == {"step3": {"result3": f"combined-{tail}"}, "step4": {"result4": f"final-{tail}"}}
    assert outputs(result) == {**merged, **result.result}
    assert result.steps["step1"].input == result.steps["step2"].input == {"input": text}
    assert result.steps["step3"].input == result.steps["step4"].input == merged
    timed(result, "step1", "step2", "step3", "step4")


@pytest.mark.row("fs-wait-for-event-removed")
@pytest.mark.not_applicable(15, "there never was a wait for events inside a run to be removed")
def test_no_wait_for_event() -> None: ...


@pytest.mark.row("fs-foreach-then-map")
async def test_a_mapping_behind_a_foreach_gets_the_list(run: Run) -> None:
    flow = (
        Workflow("summed").foreach(gives("map", lambda data: {"value": data["value"] + 11}))
        .map(lambda prev: {"inputValue": sum(item["value"] for item in prev)}, id="map-step")
        .then(gives("final", lambda data: {"finalValue": data["inputValue"]}))
    )  # fmt: skip
    result = await run(flow, [{"value": n} for n in (1, 22, 333)])
    mapped = [{"value": n} for n in (12, 33, 344)]
    assert outputs(result) == {"map": mapped, "map-step": {"inputValue": 389}, "final": {"finalValue": 389}}
    assert result.steps["map-step"].input == mapped and result.steps["final"].input == {"inputValue": 389}


@pytest.mark.row("fs-parallel-normal")
async def test_a_parallel_block_without_suspensions(run: Run) -> None:
    double = gives("normal-step-1", lambda data: {"result": data["value"] * 2})
    half = gives("normal-step-2", lambda data: {"result": data["value"] / 2})
    result = await run(Workflow("normal").parallel(double, half), {"value": 100})
    assert result.status == "success" and result.result == {"normal-step-1": {"result": 200}, "normal-step-2": {"result": 50}}


@pytest.mark.row("fs-on-finish-suspended")
async def test_on_finish_tells_of_a_suspension(run: Run) -> None:
    seen: dict[str, Any] = {}
    callback = spy(seen, "finish", lambda result, _: (result.status, statuses(result)))
    result = await run(Workflow("told", on_finish=callback).then(waits("step1", None, payload={"reason": "test"})), {})
    assert result.status == "suspended" and seen == {"finish calls": 1, "finish": ("suspended", {"step1": "suspended"})}


@pytest.mark.row("cx-foreach-payloads")
async def test_each_item_keeps_a_payload_of_its_own(host: Host) -> None:
    def asks(name: str) -> Any:
        return {"streamState": {"name": name, "token": f"tok-{name}"}}

    run = await host(Workflow("each").foreach(waits("approval-step", None, payload=asks), concurrency=3))
    result = await run.start(["alpha", "beta", "gamma"])
    record = await run.get()
    assert record is not None and record.status == "suspended"
    for found in (result, record):
        assert [(s.index, s.payload) for s in found.suspended] == [(n, asks(name)) for n, name in enumerate(["alpha", "beta", "gamma"])]
        assert paths(found) == [["approval-step"]] * 3 and found.steps["approval-step"].status == "suspended"


@pytest.mark.row("cx-label-nested-payload")
async def test_a_nested_workflows_record_carries_the_inner_payload(host: Host) -> None:
    inner = Workflow("inner-wf").then(waits("approval", None, payload={"msg": "inner says"}, label="approve"))
    run = await host(Workflow("outer").then(inner))
    result = await run.start({})
    record = await run.get()
    assert result.steps["inner-wf"].status == "suspended" and result.steps["inner-wf"].suspend_payload == {"msg": "inner says"}
    assert record is not None and record.steps["inner-wf"].suspend_payload == {"msg": "inner says"}
    assert result.steps["inner-wf"].suspended_at is not None and result.suspended[0].labels == ("approve",)


@pytest.mark.parametrize("place", ["condition", "mapping", "concurrency"])
async def test_only_a_step_can_suspend(run: Run, place: str) -> None:
    def asks(_: Any, ctx: Any) -> Any:
        ctx.suspend({"why": "not"})

    flow = Workflow("elsewhere")
    match place:
        case "condition":
            flow = flow.branch((asks, gives("step1", 1)))
        case "mapping":
            flow = flow.map(asks)
        case _:
            flow = flow.foreach(gives("step1", 1), concurrency=asks)
    result = await run(flow, [1])
    assert result.status == "failed" and result.error is not None and result.error.type == NoriaError.__name__
    assert "only a step can suspend" in result.error.message
