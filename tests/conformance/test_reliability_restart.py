"""Area restart of reliability.yaml: hosts that die in the middle; the run goes on by itself on a fresh host."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from noria import Context, Noria, NoWorker, Workflow, step
from tests.conformance.doomed import Doomed, Trap


@pytest.mark.row("RS-01")
@pytest.mark.row("RS-04")
@pytest.mark.row("RS-05")
@pytest.mark.row("RD-07")
async def test_a_run_goes_on_from_the_step_that_was_running(noria: Noria) -> None:
    trap = Trap()
    flow = Workflow("flow").then(trap.step("one")).then(trap.step("two", trapped=True)).then(trap.step("three")).commit()
    run = await trap.crash(noria, flow, 1, state={"begun": True})
    record = await run.get()
    assert record is not None and record.status == "running" and record.steps["one"].output == 2 and record.state == {"begun": True, "one": 1}
    async with noria.worker(flow, lease=1):
        result = await run.result(timeout=15)
    assert (result.status, result.result) == ("success", 4) and trap.calls == {"two": 1, "three": 1}
    assert trap.inputs["two"] == [2, 2] and result.state == {"begun": True, "one": 1, "two": 2, "three": 3}


@pytest.mark.row("RS-02")
@pytest.mark.row("RS-06")
@pytest.mark.row("CC-21")
async def test_only_the_unfinished_branch_runs_again(noria: Noria) -> None:
    trap = Trap()
    flow = Workflow("flow").parallel(trap.step("b", trapped=True), trap.step("a")).then(trap.step("after")).commit()
    run = await trap.crash(noria, flow, 1)
    async with noria.worker(flow, lease=1):
        result = await run.result(timeout=15)
    assert trap.first["a"] == 1 and trap.calls == {"b": 1, "after": 1}
    assert result.steps["after"].input == {"a": 2, "b": 2} and result.state["a"] == result.state["b"] == 1


@pytest.mark.row("RS-02")
async def test_the_state_of_a_finished_group_survives(noria: Noria) -> None:
    trap = Trap()
    flow = Workflow("flow").parallel(trap.step("a"), trap.step("b")).then(trap.step("after", trapped=True)).commit()
    run = await trap.crash(noria, flow, 1)
    record = await run.get()
    assert record is not None and record.state == {"a": 1, "b": 1}
    async with noria.worker(flow, lease=1):
        assert (await run.result(timeout=15)).status == "success"
    assert trap.calls == {"after": 1}


@pytest.mark.row("RS-03")
async def test_each_item_records_its_state_with_its_result(noria: Noria) -> None:
    trap = Trap()

    @step
    async def adds(x: int, ctx: Context) -> int:
        ctx.set_state(sum=ctx.state.get("sum", 0) + x)
        return x

    flow = Workflow("flow").foreach(adds).then(trap.step("after", trapped=True)).commit()
    run = await trap.crash(noria, flow, [1, 2, 3])
    record = await run.get()
    assert record is not None and record.state["sum"] == 6


@pytest.mark.row("RS-07")
@pytest.mark.row("RS-23")
@pytest.mark.row("RS-26")
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_foreach_keeps_its_finished_items(noria: Noria, concurrency: int) -> None:
    trap = Trap()
    flow = Workflow("flow").foreach(trap.step("each", trapped=lambda x: x >= 30), concurrency=concurrency).commit()
    run = await trap.crash(noria, flow, [10, 20, 30, 40])
    async with noria.worker(flow, lease=1):
        result = await run.result(timeout=15)
    assert result.result == [11, 21, 31, 41] and trap.inputs["each"][-2:] == [30, 40] and trap.calls["each"] == 2


@pytest.mark.row("RS-24")
async def test_a_complete_foreach_just_moves_on(noria: Noria) -> None:
    trap = Trap()
    flow = Workflow("flow").foreach(trap.step("each")).then(trap.step("after", trapped=True)).commit()
    run = await trap.crash(noria, flow, [1, 2])
    async with noria.worker(flow, lease=1):
        assert (await run.result(timeout=15)).result == [2, 3]
    assert trap.calls == {"after": 1} and trap.inputs["after"][-1] == [2, 3]


@pytest.mark.row("RS-25")
async def test_a_foreach_without_results_begins_as_usual(noria: Noria) -> None:
    trap = Trap()
    flow = Workflow("flow").foreach(trap.step("each", trapped=True), concurrency=2).commit()
    run = await trap.crash(noria, flow, [1, 2, 3])
    assert trap.first == {"each": 2}
    async with noria.worker(flow, lease=1):
        assert (await run.result(timeout=15)).result == [2, 3, 4]
    assert trap.calls == {"each": 3}


@pytest.mark.row("RS-27")
@pytest.mark.row("CC-14")
async def test_suspended_items_keep_their_slots_and_leave_the_others(noria: Noria) -> None:
    calls: list[int] = []

    @step
    async def each(x: int, ctx: Context) -> int:
        calls.append(x)
        return ctx.suspend() if x == 0 and ctx.resume_data is None else x

    flow = Workflow("flow").foreach(each, concurrency=1).commit()
    wide = Workflow("wide").foreach(each, concurrency=2).commit()
    async with Doomed(noria, flow, wide) as worker:
        run, other = noria.create_run(flow), noria.create_run(wide)
        assert (await run.start([0, 1])).status == "suspended" and calls == [0]
        assert (await other.start([0, 1, 2])).status == "suspended" and calls == [0, 0, 1, 2]
        await worker.die()
    async with noria.worker(flow, wide, lease=1):
        await asyncio.sleep(0.3)
        assert len(calls) == 4 and (await run.get()).status == "suspended"
        assert (await run.resume("go")).result == [0, 1]


@pytest.mark.row("RS-08")
async def test_a_parents_finished_steps_are_not_repeated(noria: Noria) -> None:
    trap = Trap()
    inner = Workflow("inner").then(trap.step("deep", trapped=True)).commit()
    flow = Workflow("flow").then(trap.step("one")).then(inner).commit()
    run = await trap.crash(noria, flow, 1)
    async with noria.worker(flow, lease=1):
        assert (await run.result(timeout=15)).result == 3
    assert trap.calls == {"deep": 1} and trap.inputs["deep"] == [2, 2]


def asking(trap: Trap) -> Workflow:
    seen = trap.inputs.setdefault("resumed", [])

    @step
    async def ask(x: int, ctx: Context) -> Any:
        if ctx.resume_data is None:
            ctx.suspend({"x": x})
        seen.append(ctx.resume_data)
        if not trap.sprung:
            trap.reached.set()
            await asyncio.Event().wait()
        return ctx.resume_data

    return Workflow("flow").then(trap.step("one")).then(Workflow("inner").then(ask)).then(trap.step("last")).commit()


@pytest.mark.row("RS-09")
@pytest.mark.row("RS-10")
@pytest.mark.row("RS-11")
async def test_the_resume_data_survives_a_crash_falsy_too(noria: Noria) -> None:
    trap = Trap()
    flow = asking(trap)
    run = noria.create_run(flow)
    async with Doomed(noria, flow) as worker:
        assert (await run.start(1)).status == "suspended"
        waiting = asyncio.create_task(run.resume(False))
        await asyncio.wait_for(trap.reached.wait(), 10)
        record = await run.get()
        assert record is not None and record.status == "running" and record.steps["inner"].resume_payload is False
        await worker.die()
    trap.sprung = True
    async with noria.worker(flow, lease=1):
        result = await asyncio.wait_for(waiting, 15)
    assert result.status == "success" and trap.inputs["last"] == [False]
    assert trap.inputs["resumed"] == [False, False], "once in each life, never without data"


@pytest.mark.row("RS-11")
@pytest.mark.row("RS-21")
@pytest.mark.row("RD-02")
async def test_a_resume_that_nobody_took_up_is_taken_up_later(noria: Noria) -> None:
    trap = Trap()
    trap.sprung = True
    flow = asking(trap)
    run = noria.create_run(flow)
    async with Doomed(noria, flow) as worker:
        assert (await run.start(1)).status == "suspended"
        await worker.die()
    waiting = asyncio.create_task(run.resume({"a": 1}))
    await asyncio.sleep(0.3)
    with pytest.raises(NoWorker):
        await run.restart(timeout=0.3)
    async with noria.worker(flow, lease=1):
        assert (await waiting).result == {"a": 1}
    assert trap.inputs["resumed"] == [{"a": 1}] and trap.calls == {"one": 1, "last": 1}


@pytest.mark.row("RS-13")
@pytest.mark.row("CC-20")
async def test_only_the_addressed_step_goes_on(noria: Noria) -> None:
    resumed: list[str] = []

    def asks(id: str):
        async def ask(x: int, ctx: Context) -> Any:
            if ctx.resume_data is None:
                ctx.suspend()
            resumed.append(id)
            return ctx.resume_data

        return step(ask, id=id)

    flow = Workflow("flow").then(Workflow("inner").parallel(asks("a"), asks("b"))).commit()
    run = noria.create_run(flow)
    async with Doomed(noria, flow) as worker:
        assert (await run.start(1)).status == "suspended"
        await worker.die()
    waiting = asyncio.create_task(run.resume(7, step="inner.b"))
    await asyncio.sleep(0.2)
    async with noria.worker(flow, lease=1):
        result = await waiting
        assert result.status == "suspended" and resumed == ["b"] and [s.path for s in result.suspended] == [("inner", "a")]
        assert (await run.resume(8, step="inner.a")).result == {"a": 8, "b": 7}
    assert resumed == ["b", "a"]


@pytest.mark.row("RS-15")
@pytest.mark.row("RS-20")
async def test_a_run_without_a_first_fact_begins_with_its_input(noria: Noria) -> None:
    trap = Trap()
    inner = Workflow("inner").then(trap.step("deep", trapped=True)).commit()
    flow = Workflow("flow").parallel(trap.step("a", trapped=True), inner).commit()
    run = await trap.crash(noria, flow, 5)
    async with noria.worker(flow, lease=1):
        assert (await run.result(timeout=15)).result == {"a": 6, "inner": 6}
    assert trap.calls == {"a": 1, "deep": 1} and set(trap.inputs["a"]) == {5} == set(trap.inputs["deep"])


@pytest.mark.row("RS-16")
@pytest.mark.row("RS-19")
@pytest.mark.row("RS-22")
async def test_a_branch_keeps_its_choice(noria: Noria) -> None:
    trap, asked = Trap(), list[Any]()

    def chosen(prev: Any) -> bool:
        asked.append(prev)
        return True

    arms = (lambda prev: False, trap.step("never")), (chosen, trap.step("taken", trapped=True))
    flow = Workflow("flow").then(trap.step("one")).branch(*arms).commit()
    run = await trap.crash(noria, flow, 1)
    async with noria.worker(flow, lease=1):
        assert (await run.result(timeout=15)).result == {"taken": 3}
    assert asked == [2] and trap.calls == {"taken": 1} and trap.inputs["taken"] == [2, 2]


@pytest.mark.row("RS-17")
async def test_a_successor_that_dies_too_loses_nothing(noria: Noria) -> None:
    trap = Trap()
    flow = Workflow("flow").then(trap.step("one")).then(trap.step("two", trapped=True)).commit()
    run = await trap.crash(noria, flow, 1)
    trap.sprung = False
    trap.reached.clear()
    async with Doomed(noria, flow) as second:
        await asyncio.wait_for(trap.reached.wait(), 10)
        await second.die()
    trap.sprung = True
    async with noria.worker(flow, lease=1):
        assert (await run.result(timeout=15)).result == 3
    assert trap.calls == {"two": 2} and trap.inputs["two"] == [2, 2, 2]


@pytest.mark.row("RS-31")
async def test_children_that_ended_are_taken_as_they_are(noria: Noria) -> None:
    trap = Trap()
    nested = [Workflow(f"n{n}").then(trap.step(f"s{n}", trapped=n == 2)).commit() for n in range(3)]
    flow = Workflow("flow").parallel(*nested).commit()
    run = await trap.crash(noria, flow, 1)
    async with noria.worker(flow, lease=1):
        result = await run.result(timeout=15)
    assert (result.status, result.result) == ("success", {"n0": 2, "n1": 2, "n2": 2}) and trap.calls == {"s2": 1}


@pytest.mark.row("RS-32")
@pytest.mark.not_applicable(15, "a run of ours always has a host or gets one")
async def test_a_workflow_may_opt_out_of_recovery() -> None: ...


@pytest.mark.row("TM-01")
@pytest.mark.row("TM-02")
@pytest.mark.row("TM-03")
@pytest.mark.parametrize("until", [False, True])
async def test_a_sleep_survives_its_host(noria: Noria, until: bool) -> None:
    from datetime import UTC, datetime, timedelta

    trap, due = Trap(), datetime.now(UTC) + timedelta(seconds=3)
    begun = Workflow("flow").then(trap.step("before"))
    flow = (begun.sleep_until(due) if until else begun.sleep(2.5)).then(trap.step("after")).commit()
    run = noria.create_run(flow)
    async with Doomed(noria, flow) as worker:
        await run.start_async(1)
        async with asyncio.timeout(10):
            while (record := await run.get()) is None or record.status != "waiting":
                await asyncio.sleep(0.02)
        assert record.steps["sleep-1"].status == "waiting"
        assert run.id in await noria.runs.restart_active(flow)
        await worker.die()
    async with noria.worker(flow, lease=1):
        result = await run.result(timeout=15)
    assert result.result == 3 and trap.calls == {"before": 1, "after": 1}
    if until:
        assert result.ended_at is not None and due <= result.ended_at < due + timedelta(seconds=3)


@pytest.mark.row("TM-04")
async def test_negative_and_past_sleeps_do_not_wait(noria: Noria) -> None:
    from datetime import UTC, datetime

    flow = Workflow("flow").sleep(lambda: -5).sleep_until(lambda: datetime(2001, 1, 1, tzinfo=UTC)).commit()
    async with noria.worker(flow):
        result = await asyncio.wait_for(noria.run(flow, {"kept": 1}), 1.5)
    assert (result.status, result.result) == ("success", {"kept": 1})
