"""Suspend and stream, area resume: the items of a foreach."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from noria import AmbiguousResume, Context, Noria, StepNotSuspended, Workflow, step
from tests.conformance.conftest import Host
from tests.conformance.doubles import gives, paths, waits

THREE = [{"value": n} for n in (1, 22, 333)]
FIVE = [{"value": n} for n in (22, 1, 333, 444, 1000)]
FINAL = gives("final", lambda data: {"finalValue": sum(item["value"] for item in data)})


def mapping(calls: Counter[str], *, large: bool = False, label: Any = None) -> Any:
    def then(data: Any, given: Any) -> Any:
        return {"value": data["value"] + 11 + ((given or {}).get("resumeValue") or 0)}

    return waits("map", then, calls, payload={}, label=label, when=(lambda data: data["value"] > 5) if large else None)


def values(*numbers: int) -> list[dict[str, int]]:
    return [{"value": n} for n in numbers]


@pytest.mark.row("resume-foreach-serial", "fs-foreach-serial")
async def test_one_at_a_time(host: Host, calls: Counter[str]) -> None:
    run = await host(Workflow("serial").foreach(mapping(calls)).then(FINAL))
    result = await run.start(THREE)
    for n, value in enumerate((0, 5, 0)):
        assert result.status == result.steps["map"].status == "suspended" and calls == {"map": 2 * n + 1}
        assert [(s.path, s.index) for s in result.suspended] == [(("map",), n)]
        result = await run.resume({"resumeValue": value})
    record = result.steps["map"]
    assert result.status == record.status == "success" and calls == {"map": 6}
    assert record.output == values(12, 38, 344) and record.input == THREE and result.result == {"finalValue": 394}
    assert record.resume_payload == {"resumeValue": 0} and record.suspend_payload == {} and record.suspend_output is None
    assert record.started_at and record.suspended_at and record.resumed_at and record.ended_at
    assert record.started_at <= record.suspended_at <= record.resumed_at <= record.ended_at


@pytest.mark.row("fs-foreach-all")
async def test_one_resume_for_all_that_wait(host: Host, calls: Counter[str]) -> None:
    run = await host(Workflow("all").foreach(mapping(calls, large=True), concurrency=3).then(FINAL))
    assert [s.index for s in (await run.start(THREE)).suspended] == [1, 2]
    result = await run.resume({"resumeValue": 5})
    assert result.status == "success" and calls == {"map": 5}
    record = result.steps["map"]
    assert record.output == values(12, 38, 349) and record.input == THREE and record.resume_payload == {"resumeValue": 5}
    assert record.suspended_at is not None and record.resumed_at is not None


@pytest.mark.row("resume-foreach-partial", "fs-foreach-partial")
async def test_more_items_than_slots(host: Host, calls: Counter[str]) -> None:
    run = await host(Workflow("partial").foreach(mapping(calls, large=True), concurrency=3).then(FINAL))
    first = await run.start(FIVE)
    assert first.status == "suspended" and [s.index for s in first.suspended] == [0, 2, 3]  # a suspended item keeps its slot
    second = await run.resume({"resumeValue": 5})
    assert second.status == "suspended" and [s.index for s in second.suspended] == [4]
    third = await run.resume({"resumeValue": 5})
    assert third.status == "success" and calls == {"map": 9}
    assert third.steps["map"].output == values(38, 12, 349, 460, 1016) and third.result == {"finalValue": 1875}


@pytest.mark.row("resume-foreach-partial-index")
async def test_more_items_than_slots_by_index(host: Host, calls: Counter[str]) -> None:
    run = await host(Workflow("by-index").foreach(mapping(calls, large=True), concurrency=3).then(FINAL))
    result = await run.start(FIVE)
    for index, value in ((2, 5), (0, 3), (3, 2), (4, 8)):
        assert result.status == "suspended"
        result = await run.resume({"resumeValue": value}, index=index)
    assert result.status == "success" and result.result == {"finalValue": 1873} and calls == {"map": 9}


@pytest.mark.row("fs-foreach-index", "fs-foreach-label")
@pytest.mark.parametrize("by", ["index", "label"])
@pytest.mark.parametrize(("order", "expected"), [((2, 1, 0), (15, 33, 349)), ((0, 1, 2), (17, 33, 347))])
async def test_by_index_or_label_in_both_directions(host: Host, calls: Counter[str], by: str, order: Any, expected: Any) -> None:
    labels = {1: "test-label-0", 22: "test-label-1", 333: "test-label-2"}
    run = await host(Workflow("picked").foreach(mapping(calls, label=lambda data: labels[data["value"]]), concurrency=3).then(FINAL))
    first = await run.start(THREE)
    assert [(s.index, s.labels) for s in first.suspended] == [(n, (f"test-label-{n}",)) for n in range(3)]
    for n, (index, value) in enumerate(zip(order, (5, 0, 3), strict=True)):
        how: dict[str, Any] = {"step": "map", "index": index} if by == "index" else {"label": f"test-label-{index}"}
        result = await run.resume({"resumeValue": value}, **how)
        assert result.status == ("success" if n == 2 else "suspended") and calls == {"map": 4 + n}
        with pytest.raises(StepNotSuspended if n < 2 else Exception):
            await run.resume({"resumeValue": value}, **how)
    assert result.steps["map"].output == values(*expected) and result.steps["map"].resume_payload == {"resumeValue": 3}


def approvals() -> Workflow:
    def asks(name: str) -> Any:
        return {"streamState": {"name": name, "token": f"tok-{name}"}}

    step = waits("approval-step", lambda name, given: {"name": name, "approved": given["approved"]}, payload=asks)
    return Workflow("approvals").foreach(step, concurrency=3)


@pytest.mark.row("cx-foreach-payloads-kept", "cx-foreach-sequential")
async def test_the_others_keep_their_payloads(host: Host) -> None:
    run = await host(approvals())
    before = await run.start(["alpha", "beta", "gamma"])
    for index, approved in enumerate((True, False, True)):
        result = await run.resume({"approved": approved}, index=index)
        record = await run.get()
        assert record is not None and record.suspended == result.suspended == before.suspended[index + 1 :]
        assert result.status == record.status == ("success" if index == 2 else "suspended")
    assert result.result == [{"name": "alpha", "approved": True}, {"name": "beta", "approved": False}, {"name": "gamma", "approved": True}]


@pytest.mark.parametrize("index", [-1, 3, 0])
async def test_an_index_that_does_not_wait_is_refused(host: Host, index: int) -> None:
    run = await host(approvals())
    await run.start(["alpha", "beta", "gamma"])
    await run.resume({"approved": True}, index=0)
    with pytest.raises(StepNotSuspended, match="Available indexes: '1', '2'"):
        await run.resume({"approved": True}, index=index)
    with pytest.raises(StepNotSuspended):
        await run.resume({"approved": True}, step="another", index=1)
    assert (await run.resume({"approved": True})).status == "success"


async def test_an_index_of_a_step_that_is_no_item_is_refused(host: Host) -> None:
    run = await host(Workflow("no-item").then(waits("asks", None)))
    await run.start(1)
    with pytest.raises(StepNotSuspended, match="index 0"):
        await run.resume(1, index=0)


@pytest.mark.parametrize("placement", ["local", "spread"])
async def test_nested_workflows_as_items(noria: Noria, host: Host, placement: Any) -> None:
    """Each item waits in a workflow of its own: by index, by label, by the path of a suspension, then all that is left."""
    first = waits("first", lambda data, given: data + given, label=lambda data: f"item-{data}")
    second = waits("second", lambda data, given: data * (given or 1), payload=lambda data: {"at": data}, when=lambda data: data % 2 == 0)
    ship = Workflow("ship").then(first).then(gives("between", lambda data: data)).then(second)
    run = await host(Workflow("ships").foreach(ship, concurrency=4, placement=placement).then(gives("total", sum)))
    result = await run.start([10, 20, 30, 40])
    assert [(s.path, s.index, s.labels) for s in result.suspended] == [(("ship", "first"), n, (f"item-{(n + 1) * 10}",)) for n in range(4)]
    result = await run.resume(1, index=2)  # 31: odd, done
    assert [s.index for s in result.suspended] == [0, 1, 3]
    result = await run.resume(2, label="item-20")  # 22: waits at the second step
    assert [(s.path[-1], s.index, s.payload) for s in result.suspended] == [("first", 0, None), ("second", 1, {"at": 22}), ("first", 3, None)]
    result = await run.resume(3, step=result.suspended[2].path, index=3)  # 43
    assert paths(result) == [["ship", "first"], ["ship", "second"]]
    result = await noria.create_run("ships", run.id).resume(4)  # a foreach counts as one: both get it, 14 and 88
    assert [(s.path[-1], s.index) for s in result.suspended] == [("second", 0)]
    result = await run.resume(5, step="ship")
    assert result.status == "success" and result.result == 70 + 88 + 31 + 43
    assert result.steps["ship"].output == [70, 88, 31, 43] and result.steps["ship"].resume_payload == 5


async def test_an_item_that_waits_at_two_places_must_be_named(host: Host) -> None:
    pair = Workflow("pair").parallel(waits("left", lambda _, given: given), waits("right", lambda _, given: given))
    run = await host(Workflow("pairs").foreach(pair, concurrency=2))
    await run.start([1, 2])
    with pytest.raises(AmbiguousResume, match=r"'pair\.left', 'pair\.right'"):
        await run.resume("x")
    with pytest.raises(AmbiguousResume):
        await run.resume("x", index=1)
    assert len((await run.resume("l", step="pair.left")).suspended) == 2
    assert [s.index for s in (await run.resume("r0", step=["pair", "right"], index=0)).suspended] == [1]
    assert (await run.resume("r1")).result == [{"left": "l", "right": "r0"}, {"left": "l", "right": "r1"}]


async def test_a_foreach_within_the_items_of_a_foreach(host: Host) -> None:
    inner = Workflow("row").foreach(waits("cell", lambda data, given: data + given, label=lambda data: f"cell-{data}"), concurrency=2)
    run = await host(Workflow("table").foreach(inner, concurrency=2))
    first = await run.start([[1, 2], [3, 4]])
    assert [(s.path, s.index) for s in first.suspended] == [(("row", "cell"), n) for n in (0, 1, 0, 1)]
    second = await run.resume(10, label="cell-3")
    assert [s.labels[0] for s in second.suspended] == ["cell-1", "cell-2", "cell-4"]
    assert (await run.resume(100)).result == [[101, 102], [13, 104]]


async def test_a_failing_item_ends_the_run_though_others_wait(host: Host) -> None:
    def check(data: int, _: Any) -> int:
        if data == 2:
            raise RuntimeError("no two")
        return data

    run = await host(Workflow("fails").foreach(waits("map", check), concurrency=3))
    await run.start([1, 2, 3])
    result = await run.resume(True, index=1)
    assert result.status == result.steps["map"].status == "failed" and result.suspended == []
    assert result.error is not None and result.error.message == "no two"


async def test_a_bail_in_a_resumed_item_ends_the_workflow(host: Host) -> None:
    @step(id="map")
    async def bails(data: int, ctx: Context) -> int:
        if ctx.resume_data is None:
            ctx.suspend()
        if ctx.resume_data == "enough":
            ctx.bail("enough")
        return data

    run = await host(Workflow("bails").foreach(bails, concurrency=3).then(gives("never", None)))
    await run.start([1, 2, 3])
    await run.resume("go on", index=2)
    result = await run.resume("enough", index=0)
    assert (result.status, result.result, result.suspended) == ("success", "enough", []) and "never" not in result.steps


async def test_a_spread_item_is_resumed_while_it_still_runs(host: Host, calls: Counter[str]) -> None:
    """Its parent's host passes the resume on at once, each once: a question asked anew is not answered by the old data."""
    gate = asyncio.Event()

    async def answers(_: Any, ctx: Context) -> Any:
        calls["asks"] += 1
        if ctx.resume_data != "last":
            ctx.suspend({"so far": ctx.resume_data})
        return ctx.resume_data

    async def works(_: Any) -> None:
        await gate.wait()

    item = Workflow("item").parallel(step(answers, id="asks"), Workflow("slow").then(gives("quick", 1)).then(step(works, id="works")))
    run = await host(Workflow("spread-out").foreach(item, placement="spread"))
    waiting = asyncio.create_task(run.start([1]))
    tasks: list[asyncio.Task[Any]] = []
    for n, data in enumerate(["first", "second", "last"]):
        while (record := await run.get()) is None or [s.payload for s in record.suspended] != [{"so far": [None, "first", "second"][n]}]:
            await asyncio.sleep(0.02)
        tasks.append(asyncio.create_task(run.resume(data)))
    while calls["asks"] < 4:
        await asyncio.sleep(0.02)
    gate.set()
    assert (await waiting).status == "success" and calls["asks"] == 4
    assert {(await t).status for t in tasks} == {"success"}


async def test_items_are_resumed_while_others_still_run(host: Host, calls: Counter[str]) -> None:
    gate = asyncio.Event()

    @step(id="map")
    async def work(data: int, ctx: Context) -> Any:
        calls["map"] += 1
        if data == 0:
            await gate.wait()
        elif ctx.resume_data is None:
            ctx.suspend()
        return ctx.resume_data

    run = await host(Workflow("meanwhile").foreach(work, concurrency=3))
    waiting = asyncio.create_task(run.start([0, 1, 2]))
    while (record := await run.get()) is None or len(record.suspended) < 2:
        await asyncio.sleep(0.02)
    tasks = [asyncio.create_task(run.resume(n, index=n)) for n in (1, 2)]
    while calls["map"] < 5:
        await asyncio.sleep(0.02)
    gate.set()
    assert (await waiting).result == [None, 1, 2] and [(await t).status for t in tasks] == ["success"] * 2


async def test_only_what_was_resumed_is_told_of(host: Host) -> None:
    run = await host(Workflow("told").foreach(waits("map", lambda data, _: data), concurrency=3))
    await run.start([1, 2, 3])
    stream = run.resume_stream(True, index=1)
    events = [e async for e in stream if e.type == "workflow-step-progress"]
    assert [(e.data["index"], e.data["status"], e.data["completed"]) for e in events] == [(1, "success", 1)]


async def test_a_resume_step_by_step_runs_the_resumed_one(host: Host, calls: Counter[str]) -> None:
    run = await host(Workflow("by-step").parallel(*(waits(id, lambda _, given: given, calls) for id in "abc")))
    await run.start({})
    result = await run.resume("x", step="b", per_step=True)
    assert (result.status, result.steps["b"].output, calls) == ("paused", "x", {"a": 1, "b": 2, "c": 1})
    assert [s.path for s in result.suspended] == [("a",), ("c",)]
