"""Area events of reliability.yaml: what watchers and waiters see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from noria import Context, Noria, RunStillActive, Workflow, step
from noria.ports import ActorKey


@step
async def first(x: int) -> int:
    return x + 1


@step
async def second(x: int) -> int:
    return x * 2


@step
async def asks(x: Any, ctx: Context) -> Any:
    return ctx.resume_data if ctx.resume_data is not None else ctx.suspend({"need": x})


two = Workflow("two", input=int).then(first).then(second).commit()
asking = Workflow("asking").then(asks).commit()


@pytest.mark.row("EV-01")
async def test_a_waiter_ignores_ends_from_before(noria: Noria) -> None:
    async with noria.worker(two):
        await asyncio.gather(*(noria.run(two, n) for n in range(200)))
        result = await noria.run(two, 1000, run_id="mine", timeout=10)
        assert (result.run_id, result.result) == ("mine", 2002)
        events = [e async for e in noria.create_run(two, "mine").observe()]
    assert {e.run_id for e in events} == {"mine"}


@pytest.mark.row("EV-02")
async def test_a_resume_never_gets_its_own_suspension(noria: Noria) -> None:
    async with noria.worker(asking):
        run = noria.create_run(asking)
        assert (await run.start("x")).status == "suspended"
        resumed = await run.resume({"yes": True})
    assert (resumed.status, resumed.result) == ("success", {"yes": True})


@pytest.mark.row("EV-03")
async def test_step_events_are_seen(noria: Noria) -> None:
    async with noria.worker(two):
        stream = noria.create_run(two).stream(1)
        types = [(e.type, e.step) async for e in stream]
    steps = [(f"workflow-step-{what}", name) for name in ("first", "second") for what in ("start", "result")]
    assert types == [("workflow-start", None), *steps, ("workflow-finish", None)]


@pytest.mark.row("EV-05")
async def test_a_finished_run_can_be_drained_then_its_events_go(noria: Noria) -> None:
    """Its log is there for watchers after the end, and goes with the run, not with another's."""
    async with noria.worker(two):
        for id in ("a", "b"):
            await noria.run(two, 1, run_id=id)
        assert [e.type async for e in noria.create_run(two, "a").observe()][-1] == "workflow-finish"
        await noria.runs.delete("a")
        assert await noria.runs.get("a") is None and await noria.broker.log.read(ActorKey("two", "a")) == []
        assert [e.type async for e in noria.create_run(two, "b").observe()][-1] == "workflow-finish"


@pytest.mark.row("EV-08")
async def test_only_an_ended_run_is_cleaned_up(noria: Noria) -> None:
    async with noria.worker(asking):
        run = noria.create_run(asking, "open")
        await run.start(1)
        with pytest.raises(RunStillActive):
            await noria.runs.delete("open")
        assert (await run.resume(2)).status == "success"
        await noria.runs.delete("open")


@pytest.mark.row("EV-04", "EV-09", "EV-10", "EV-11", "EV-12", "EV-13")
@pytest.mark.not_applicable(15, "waiting for events inside a run is not carried over")
async def test_waiting_for_events_inside_a_run() -> None: ...


@pytest.mark.row("EV-17")
async def test_a_step_start_carries_its_input_once(noria: Noria) -> None:
    @step
    async def grow(x: int) -> int:
        return x + 1

    flow = Workflow("loop", input=int).do_until(grow, lambda out: out >= 3).commit()
    async with noria.worker(flow):
        starts = [e.data async for e in noria.create_run(flow).stream(0) if e.type == "workflow-step-start"]
    assert [s["input"] for s in starts] == [0, 1, 2] and all(set(s) <= {"input", "attempt", "status"} for s in starts)
