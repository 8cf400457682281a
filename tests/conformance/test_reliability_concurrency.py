"""Areas redelivery and concurrency of reliability.yaml: duplicates, rivals, groups, slots."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest

from noria import Context, Noria, RunAlreadyStarted, Step, StepNotSuspended, Workflow, step
from noria.contract import commands
from noria.contract.facts import FactMessage, StepEnded, TakenOver
from noria.errors import InvalidInput, NoriaError, RunNotSuspended
from noria.machine.fold import fold_command, fold_message
from noria.machine.state import Tree
from noria.ports import ActorKey
from tests.conformance.doubles import closed_store, fails, gives


@step
async def asks(x: Any, ctx: Context) -> Any:
    return ctx.resume_data if ctx.resume_data is not None else ctx.suspend({"need": x})


async def again(noria: Noria, workflow: str, run_id: str) -> None:
    """The run's start comes once more: the same content in a fresh message."""
    key = ActorKey(workflow, run_id)
    (first, *_) = await noria.broker.commands.read(key)
    await noria.broker.commands.send(key, first.body)


async def consumer(noria: Noria, workflow: str) -> dict[str, Any]:
    return await noria.broker.connection.api(f"CONSUMER.INFO.{noria.broker.subjects.runs}.w-{workflow}")


async def all_acknowledged(noria: Noria, workflow: str) -> None:
    async with asyncio.timeout(10):
        while (info := await consumer(noria, workflow))["num_ack_pending"] or info["num_pending"]:
            await asyncio.sleep(0.02)


@pytest.mark.row("RD-02")
@pytest.mark.row("RD-03")
async def test_a_duplicate_for_a_suspended_run_changes_nothing(noria: Noria, calls: Counter[str]) -> None:
    @step
    async def counted(x: int, ctx: Context) -> Any:
        calls["counted"] += 1
        return ctx.resume_data if ctx.resume_data is not None else ctx.suspend({"need": x})

    flow = Workflow("flow").then(gives("one", lambda x: x + 1)).then(counted).then(gives("last", lambda x: x * 2)).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start(1)).status == "suspended"
        await again(noria, "flow", run.id)
        await all_acknowledged(noria, "flow")
        record = await run.get()
        assert record is not None and record.status == "suspended" and record.suspended[0].payload == {"need": 2}
        assert calls["counted"] == 1
        assert (await run.resume(21)).result == 42 and calls["counted"] == 2


@pytest.mark.row("RD-04")
@pytest.mark.row("RD-05")
@pytest.mark.row("RD-09")
async def test_a_duplicate_while_the_step_runs_is_fenced_on_every_worker(noria: Noria, calls: Counter[str]) -> None:
    @step
    async def slow(x: int) -> int:
        calls["slow"] += 1
        await asyncio.sleep(2.5)  # beyond the lease: it is renewed
        return x

    flow = Workflow("flow").then(slow).commit()
    async with noria.worker(flow, lease=1), Noria.connect(noria.url, namespace=noria.namespace) as other, other.worker(flow, lease=1):
        run = noria.create_run(flow)
        waiting = asyncio.create_task(run.start(1))
        await asyncio.sleep(0.3)
        await again(noria, "flow", run.id)
        assert (await waiting).result == 1
        await again(noria, "flow", run.id)
        await all_acknowledged(noria, "flow")
        events = [e.type async for e in run.observe()]
    assert calls == {"slow": 1} and events.count("workflow-step-result") == 1


@pytest.mark.row("RD-06")
@pytest.mark.row("ST-06")
@pytest.mark.row("ST-07")
@pytest.mark.row("ST-19")
@pytest.mark.row("CC-02")
async def test_a_fault_of_the_store_is_tried_again(noria: Noria, calls: Counter[str]) -> None:
    flow = Workflow("flow").then(gives("one", 1, calls)).then(gives("two", 2, calls)).commit()
    run = noria.create_run(flow)
    await run.start_async(0)
    async with AsyncExitStack() as stack:
        async with closed_store(noria), asyncio.timeout(20):
            await stack.enter_async_context(noria.worker(flow, lease=2))
            while not (await consumer(noria, "flow")).get("num_redelivered"):
                await asyncio.sleep(0.02)
        result = await run.result(timeout=20)
    assert (result.status, result.result) == ("success", 2)
    assert calls["one"] >= 2 and calls["two"] == 1, "the next step never begins before the result is stored"


@pytest.mark.row("RD-10")
@pytest.mark.row("RD-11")
@pytest.mark.not_applicable(16, "a harness of the reference: here the server itself delivers again, and messages are bytes")
async def test_a_redelivery_harness() -> None: ...


def ended(step: str) -> StepEnded:
    return StepEnded(step, "success", 1.0, 2.0, None)


@pytest.mark.row("RD-12")
@pytest.mark.row("RD-13")
@pytest.mark.row("RD-14")
@pytest.mark.row("LM-02")
def test_the_budget_is_in_the_log_and_progress_resets_it() -> None:
    """Beyond five take-overs in a row the run ends failed, once (tests/live/test_poison.py); no memory is kept of it."""
    tree = Tree()
    fold_command(tree, 1, "", commands.Start("c", 1.0, 1))
    for sequence in range(2, 6):
        fold_message(tree, sequence, "", FactMessage([TakenOver(1.0)], 1, 1, f"h{sequence}", "i"))
    assert tree.takeovers == 4
    fold_message(tree, 6, "", FactMessage([ended("a")], 1, 1, "h6", "i"))
    assert tree.takeovers == 0
    fold_message(tree, 7, "", FactMessage([TakenOver(1.0)], 1, 1, "h7", "i"))
    assert tree.takeovers == 1


@pytest.mark.row("CC-01")
@pytest.mark.row("CC-03")
async def test_of_rival_resumes_one_wins(noria: Noria, calls: Counter[str]) -> None:
    flow = Workflow("flow").then(asks).then(gives("after", lambda x: x, calls)).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start(1)
        outcomes = await asyncio.gather(run.resume("a"), noria.create_run(flow, run.id).resume("b"), return_exceptions=True)
        lost = [o for o in outcomes if isinstance(o, (StepNotSuspended, RunNotSuspended))]
        won = [o for o in outcomes if not isinstance(o, BaseException)]
        assert len(lost) == len(won) == 1 and won[0].status == "success" and calls["after"] == 1
        twin = noria.create_run(flow)
        await twin.start(1)
        same = await asyncio.gather(twin.resume("a"), twin.resume("a"))
        assert [r.result for r in same] == ["a", "a"] and calls["after"] == 2


@pytest.mark.row("CC-04")
async def test_a_refused_payload_does_not_use_up_the_suspension(noria: Noria) -> None:
    @step(resume=int)
    async def typed(x: Any, ctx: Context) -> Any:
        return ctx.resume_data if ctx.resume_data is not None else ctx.suspend()

    flow = Workflow("flow").then(typed).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start(1)
        with pytest.raises(InvalidInput):
            await run.resume("not a number")
        assert (await run.resume(5)).result == 5


@pytest.mark.row("CC-05")
@pytest.mark.row("CC-06")
async def test_a_run_id_starts_once_whoever_asks(noria: Noria, calls: Counter[str]) -> None:
    flow = Workflow("flow").then(gives("one", lambda x: x, calls)).commit()
    async with Noria.connect(noria.url, namespace=noria.namespace) as other, noria.worker(flow), other.worker(flow):
        outcomes = await asyncio.gather(
            noria.create_run(flow, "same").start(1), other.create_run(flow, "same").start(1), return_exceptions=True
        )
        assert sorted(type(o).__name__ for o in outcomes) == ["RunAlreadyStarted", "RunResult"]
        with pytest.raises(RunAlreadyStarted):
            await other.create_run(flow, "same").start(2)
        record = await noria.runs.get("same")
    assert calls["one"] == 1 and record is not None and record.result == 1


@pytest.mark.row("CC-09")
async def test_runs_in_flight_never_see_each_others_data(noria: Noria) -> None:
    @step
    async def keeps(x: str, ctx: Context) -> str:
        ctx.set_state(mine=x)
        await asyncio.sleep(0.05)
        assert ctx.state == {"mine": x} and ctx.request_context["who"] == x
        return x

    flow = Workflow("flow").then(keeps).then(keeps.clone(id="more")).commit()
    async with noria.worker(flow):
        names = [f"only-{n}" for n in range(6)]
        await asyncio.gather(*(noria.run(flow, name, run_id=name, request_context={"who": name}) for name in names))
        for name in names:
            record = str(await noria.runs.get(name))
            assert name in record and not any(other in record for other in names if other != name)


@pytest.mark.row("CC-10")
@pytest.mark.row("CC-22")
@pytest.mark.row("CC-23")
async def test_groups_join_once_and_tolerate_what_they_are_told_to(noria: Noria, calls: Counter[str]) -> None:
    after = gives("after", lambda x: x, calls)
    members = gives("a", 1), fails("b", "no")
    strict, tolerant = Workflow("strict").parallel(*members).then(after), Workflow("tolerant").parallel(*members, allow_failure=True).then(after)
    none = Workflow("none").parallel(fails("x", "no"), fails("y", "no"), allow_failure=True).then(after)
    both = Workflow("both").parallel(gives("p", 1), gives("q", 2)).then(after)
    async with noria.worker(strict, tolerant, none, both):
        assert (await noria.run("strict", 0)).status == "failed" and not calls
        result = await noria.run("tolerant", 0)
        assert (result.status, result.result) == ("success", {"a": 1, "b": None}) and result.steps["b"].status == "failed"
        assert (await noria.run("none", 0)).result == {"x": None, "y": None}
        assert (await noria.run("both", 0, timeout=10)).result == {"p": 1, "q": 2} and calls["after"] == 3


@pytest.mark.row("CC-24")
@pytest.mark.row("CC-20")
async def test_a_suspension_outranks_a_tolerated_failure(noria: Noria) -> None:
    flow = Workflow("flow").parallel(asks, fails("b", "no"), allow_failure=True).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start(1)).status == "suspended"
        assert (await run.resume(2)).result == {"asks": 2, "b": None}


def counted(seconds: float) -> tuple[Step, list[int]]:
    """A step that takes so long, and how many were in it whenever one came."""
    running, at_once = 0, list[int]()

    async def each(x: int) -> int:
        nonlocal running
        running += 1
        at_once.append(running)
        await asyncio.sleep(seconds)
        running -= 1
        return x

    return step(each), at_once


@pytest.mark.row("CC-11")
@pytest.mark.row("CC-15")
async def test_a_concurrency_may_be_computed(noria: Noria) -> None:
    asked = list[Any]()
    each, at_once = counted(0.03)

    def limit(prev: Any, ctx: Context) -> int:
        asked.append((prev, ctx.init_data))
        return 3

    flow = Workflow("flow").map(lambda n: list(range(n))).foreach(each, concurrency=limit).commit()
    async with noria.worker(flow):
        assert (await noria.run(flow, 5)).result == [0, 1, 2, 3, 4]
    assert asked == [([0, 1, 2, 3, 4], 5)] and max(at_once) == 3


@pytest.mark.row("CC-12")
@pytest.mark.parametrize("limit", [-5, 0, None, "3", 0.9, math.inf])
async def test_an_invalid_computed_concurrency_means_one_at_a_time(noria: Noria, caplog: pytest.LogCaptureFixture, limit: Any) -> None:
    each, at_once = counted(0.02)
    flow = Workflow("flow").foreach(each, concurrency=lambda prev: limit).commit()
    async with noria.worker(flow):
        assert (await noria.run(flow, [1, 2, 3])).result == [1, 2, 3]
    assert max(at_once) == 1 and repr(limit) in caplog.text


@pytest.mark.row("CC-17")
async def test_a_resume_that_could_not_be_sent_leaves_the_item_suspended(noria: Noria) -> None:
    flow = Workflow("flow").foreach(asks, concurrency=2).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start([1, 2])
        async with closed_store(noria):
            with pytest.raises(NoriaError, match="exceeds maximum allowed"):
                await run.resume("x", index=0)
        record = await run.get()
        assert record is not None and [s.index for s in record.suspended] == [0, 1]
        assert (await run.resume("x")).result == ["x", "x"]


@pytest.mark.row("CC-18")
@pytest.mark.not_applicable(16, "there is no store without a compare-and-set")
async def test_without_a_compare_and_set() -> None: ...


@pytest.mark.row("CC-19")
async def test_parallel_steps_write_to_the_stream_at_once(noria: Noria) -> None:
    def writes(id: str):
        async def write(x: Any, ctx: Context) -> str:
            await ctx.write({"from": id})
            return id

        return step(write, id=id)

    flow = Workflow("flow").parallel(*(writes(n) for n in ("a", "b", "c"))).commit()
    async with noria.worker(flow):
        events = [e async for e in noria.create_run(flow).stream(1)]
    assert sorted(e.data["output"]["from"] for e in events if e.type == "workflow-step-output") == ["a", "b", "c"]
