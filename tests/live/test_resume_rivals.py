"""A resume whose compare-and-set is lost: what came between decides what becomes of it. Everything that comes between is
sent for real, right after the resume has read the run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from noria import Context, Noria, RunNotSuspended, StepNotSuspended, Workflow, step
from noria.client.resuming import Resuming
from noria.client.run import Run
from noria.contract import commands
from noria.machine.resume import Wanted
from noria.machine.state import Tree
from noria.ports import ActorKey, RunKey

Between = Callable[[], Awaitable[Any]]


class Overtaken(Resuming):
    """A resume that something overtakes between its first reading and its sending."""

    between: Between | None = None

    async def _read(self) -> Tree:
        tree = await super()._read()
        if self.between is not None:
            between, self.between = self.between, None
            await between()
        return tree


def resume(noria: Noria, run: Run, between: Between, data: Any = None, wanted: Wanted = Wanted()) -> Awaitable[int]:
    resuming = Overtaken(noria, RunKey(run.workflow_id, run.id), None, wanted, data, None, False)
    resuming.between = between
    return resuming.begin()


def answering(calls: Counter[str], *ids: str) -> list[Any]:
    def make(id: str) -> Any:
        async def asks(ctx: Context) -> Any:
            calls[id] += 1
            if ctx.resume_data is None:
                ctx.suspend()
            return ctx.resume_data

        return step(asks, id=id)

    return [make(id) for id in ids]


async def test_a_timer_in_between_is_no_reason_to_give_up(noria: Noria) -> None:
    calls: Counter[str] = Counter()
    flow = Workflow("timed").parallel(*answering(calls, "a")).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start({})

        async def timer() -> None:
            await noria.broker.commands.send(ActorKey("timed", run.id), commands.encode(commands.TimerFired("t", 0.0, "", "x", 1.0)))

        await resume(noria, run, timer, "data")
        assert (await run.result(timeout=10)).result == {"a": "data"} and calls == {"a": 2}


async def test_another_members_resume_in_between_is_none_either(noria: Noria) -> None:
    calls: Counter[str] = Counter()
    flow = Workflow("members").parallel(*answering(calls, "a", "b")).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start({})
        await resume(noria, run, lambda: run.resume("of b", step="b"), "of a", Wanted(("a",)))
        assert (await run.result(timeout=10)).result == {"a": "of a", "b": "of b"} and calls == {"a": 2, "b": 2}


@pytest.mark.parametrize("equal", [True, False])
async def test_a_rival_of_the_same_target_wins(noria: Noria, equal: bool) -> None:
    calls: Counter[str] = Counter()
    flow = Workflow("rivals").then(answering(calls, "a")[0]).then(answering(calls, "b")[0]).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start({})
        sent = resume(noria, run, lambda: run.resume("winner"), "winner" if equal else "loser")
        if equal:
            assert await sent > 0
        else:
            with pytest.raises(StepNotSuspended, match="another resume came first"):
                await sent
        record = await run.get()  # and the loser did not resume what is suspended by now
        assert record is not None and [s.path for s in record.suspended] == [("b",)] and calls == {"a": 2, "b": 1}


async def test_a_loop_that_asks_again_is_not_answered_by_the_loser(noria: Noria) -> None:
    calls: Counter[str] = Counter()
    flow = Workflow("loop").do_until(answering(calls, "a")[0], lambda out: out == "stop").commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start({})
        await resume(noria, run, lambda: run.resume("go on"), "go on")
        with pytest.raises(StepNotSuspended):
            await resume(noria, run, lambda: run.resume("go on"), "stop")
        record = await run.get()
        assert record is not None and record.status == "suspended" and record.steps["a"].iterations == 3 and calls == {"a": 5}


async def test_of_many_items_those_that_are_left_are_resumed(noria: Noria) -> None:
    calls: Counter[str] = Counter()
    flow = Workflow("items").foreach(answering(calls, "a")[0], concurrency=3).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start([1, 2, 3, 4])
        await resume(noria, run, lambda: run.resume("one", index=1), "all")  # item 3 began since: it was not meant
        result = await run.result(timeout=10)
        assert [(s.path, s.index) for s in result.suspended] == [(("a",), 3)] and calls == {"a": 7}
        assert (await run.resume("last")).result == ["all", "one", "all", "last"]


@pytest.mark.parametrize("ends", ["cancel", "finish"])
async def test_a_run_that_ended_in_between_is_refused(noria: Noria, ends: str) -> None:
    calls: Counter[str] = Counter()
    flow = Workflow("ends").then(answering(calls, "a")[0]).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start({})
        between = run.cancel if ends == "cancel" else lambda: run.resume("x")
        with pytest.raises((RunNotSuspended, StepNotSuspended)):
            await resume(noria, run, between, "y")
        record = await run.get()
        assert record is not None and record.status == ("canceled" if ends == "cancel" else "success")


async def test_without_a_worker_rivals_are_told_apart_as_well(noria: Noria) -> None:
    """The command is durable; an equal one later on joins it, an unequal one is refused, and a worker does it once."""
    calls: Counter[str] = Counter()
    flow = Workflow("nobody").then(answering(calls, "a")[0]).commit()
    run = noria.create_run(flow)
    async with noria.worker(flow, lease=5):
        await run.start({})
    first = asyncio.create_task(run.resume("x"))
    while (record := await run.get()) is None or record.status != "running":
        await asyncio.sleep(0.02)
    assert record.steps["a"].status == "running" and record.suspended == []
    second = asyncio.create_task(noria.create_run("nobody", run.id).resume("x", step="a"))
    with pytest.raises(RunNotSuspended):
        await run.resume("y")
    async with noria.worker(flow, lease=5):
        assert [(await task).result for task in (first, second)] == ["x", "x"] and calls == {"a": 2}
