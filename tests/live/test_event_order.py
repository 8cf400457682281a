"""Which events each construct gives, and in which order; every reader sees the same."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest
from tests.conformance.doubles import drained, fails, gives, told, types, waits

from noria import Context, InvalidInput, Noria, Retry, RunEvent, Tripwire, Workflow, step

PLUS = gives("plus", lambda x: x + 1)
ASK = waits("ask", lambda _, data: data, payload=lambda x: {"x": x}, label=lambda x: f"l{x}")


@step
async def trips(x: int) -> None:
    raise Tripwire("enough", metadata={"x": x})


@step
async def bails(x: int, ctx: Context) -> None:
    ctx.bail("bailed")


@step
async def aborts(x: int, ctx: Context) -> None:
    ctx.abort()


def shown(events: list[RunEvent]) -> list[str]:
    """Each event's type, step and status."""
    status = [e.data.get("status", "") if isinstance(e.data, dict) else "" for e in events]
    named = zip(types(events), (e.step or "" for e in events), status, strict=True)
    return [" ".join(word for word in (type, step, state if state not in ("running", "waiting") else "") if word) for type, step, state in named]


def ordered(id: str) -> tuple[Workflow, Any, str]:
    flow = Workflow(id)
    match id:
        case "branch":
            return flow.branch((lambda x: False, PLUS), (lambda x: True, gives("other", 1))), 0, "step-start other, step-result other success"
        case "branch-without-an-arm":
            return flow.branch((lambda x: False, PLUS)).then(gives("last", 1)), 0, "step-start last, step-result last success"
        case "loop":
            return flow.do_until(PLUS, lambda out: out == 2), 0, ", ".join(["step-start plus, step-result plus success"] * 2)
        case "nested":
            inner = Workflow("in").then(PLUS)
            return flow.then(inner), 0, "step-start in, step-start in.plus, step-result in.plus success, step-result in success"
        case "sleep":
            return flow.sleep(0.01).then(PLUS), 0, "step-waiting sleep-0, step-result sleep-0 success, step-start plus, step-result plus success"
        case "mapping":
            return flow.map(lambda x: x, id="named"), 0, "step-start named, step-result named success"
        case "failed":
            return flow.then(fails("no", "no")).then(PLUS), 0, "step-start no, step-result no failed"
        case "failed-inside":
            inner = Workflow("in").then(fails("no", "no"))
            return flow.then(inner), 0, "step-start in, step-start in.no, step-result in.no failed, step-result in failed"
        case "tripwire":
            return flow.then(trips).then(PLUS), 0, "step-start trips, step-result trips tripwire"
        case "bail":
            return flow.then(bails).then(PLUS), 0, "step-start bails, step-result bails success"
        case "abort":
            return flow.then(aborts).then(PLUS), 0, "step-start aborts, step-result aborts canceled, canceled"
        case "suspended":
            return flow.then(ASK).then(PLUS), 0, "step-start ask, step-suspended ask"
        case "foreach":
            return flow.foreach(PLUS), [1, 2], ", ".join(["step-start plus", *["step-progress plus success"] * 2, "step-result plus success"])
        case "foreach-of-nothing":
            return flow.foreach(PLUS), [], "step-start plus, step-result plus success"
        case "foreach-of-no-list":
            return flow.foreach(PLUS), 5, "step-start plus, step-result plus failed"
        case "foreach-suspended":
            one = "step-suspended ask, step-progress ask suspended"
            return flow.foreach(ASK, concurrency=2), [1, 2], f"step-start ask, {one}, {one}"
        case _:
            raise AssertionError(id)


ENDS = {"abort": "canceled", "tripwire": "tripwire", "suspended": "suspended", "foreach-suspended": "suspended"}
FAILED = ("failed", "failed-inside", "foreach-of-no-list")
KINDS = (
    "branch", "branch-without-an-arm", "loop", "nested", "sleep", "mapping", *FAILED, "bail", "foreach", "foreach-of-nothing", *ENDS,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_the_events_of_each_construct(noria: Noria, kind: str) -> None:
    flow, given, expected = ordered(kind)
    flow = flow.commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        events = await drained(run.stream(given))
        assert await drained(run.observe(close_on_suspend=True)) == events
    end = ENDS.get(kind, "failed" if kind in FAILED else "success")
    assert shown(events) == ["start", *expected.split(", "), f"finish {end}"]
    assert len({e.id for e in events}) == len(events) and [e.sequence for e in events] == sorted(e.sequence for e in events)


async def test_each_resume_of_foreach_items_begins_the_foreach_again(noria: Noria) -> None:
    flow = Workflow("items").foreach(ASK, concurrency=3).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        first = await drained(run.stream([1, 2, 3]))
        one, label = await drained(run.resume_stream("a", index=1)), await drained(run.resume_stream("b", label="l1"))
        rest = await drained(run.resume_stream("c"))
        record = await run.get()
        assert await drained(run.observe()) == [*first, *one, *label, *rest]
    again = {"input": [1, 2, 3], "attempt": 0, "status": "running"}
    for events, data, index, end in ((one, "a", 1, "suspended"), (label, "b", 0, "suspended"), (rest, "c", 2, "success")):
        assert shown(events)[:2] == ["step-start ask", "step-progress ask success"] and events[-1].data["status"] == end
        assert told(events, "step-start") == [{**again, "resume_payload": data}] and told(events, "step-progress")[0]["index"] == index
    assert [p["completed"] for p in told([*one, *label, *rest], "step-progress")] == [1, 2, 3]
    assert record is not None and record.steps["ask"].resume_payload == "c" and record.result == ["b", "a", "c"]


async def test_an_item_that_waits_for_its_next_try_has_not_ended(noria: Noria) -> None:
    tries: list[int] = []

    async def work(x: int) -> int:
        tries.append(x)
        if tries.count(x) == 1:
            raise ConnectionError("not yet")
        return x

    flow = Workflow("retried").foreach(step(work, id="work", retry=Retry(attempts=1, delay=2.1))).commit()  # longer than it is awaited in place
    async with noria.worker(flow, lease=5):
        events = await drained(noria.create_run(flow).stream([7]), 30)
    assert shown(events) == ["start", "step-start work", "step-progress work success", "step-result work success", "finish success"]


async def test_while_items_run_a_record_tells_of_those_that_wait(noria: Noria) -> None:
    going = asyncio.Event()

    @step
    async def half(x: int, ctx: Context) -> Any:
        if x == 0:
            return ctx.resume_data if ctx.resume_data is not None else ctx.suspend("why")
        await ctx.emit("runs")
        await going.wait()
        return x

    flow = Workflow("half").foreach(half, concurrency=2).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        stream, seen = run.stream([0, 1]), set[str]()
        async for event in stream:
            seen.add(event.type)
            if {"runs", "workflow-step-suspended"} <= seen:
                break
        record = await run.get()
        going.set()
        assert (await stream.result()).status == "suspended"
    assert record is not None and (record.status, record.steps["half"].status) == ("running", "suspended")


@pytest.mark.parametrize("type", ["", None, 5, "workflow-finish"])
async def test_an_event_of_ones_own_needs_a_name_of_its_own(noria: Noria, type: Any) -> None:
    refused: list[str] = []

    @step
    async def emits(ctx: Context) -> None:
        try:
            await ctx.emit(type, 1)
        except InvalidInput as error:
            refused.append(str(error))

    flow = Workflow("emits").then(emits).commit()
    async with noria.worker(flow, lease=5):
        events = await drained(noria.create_run(flow).stream(None))
    assert shown(events) == ["start", "step-start emits", "step-result emits success", "finish success"]
    assert len(refused) == 1 and repr(type) in refused[0]


async def test_events_carry_the_time_at_which_they_happened(noria: Noria) -> None:
    """A sync step begins by a live event, which the server stores at about the time when the step has ended already."""
    flow = Workflow("timed")
    for n in range(20):
        flow = flow.then(step(lambda x: x, id=f"s{n}"))
    async with noria.worker(flow):
        times = [event.time for event in await drained(noria.create_run(flow, "timed").stream(1))]
    assert len(times) == 42 and times == sorted(times, key=lambda at: at or datetime.min)
