"""Suspend and stream, area resume: parallel members, branch arms, loops, and rivals."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from noria import AmbiguousResume, Context, Noria, RunNotFound, RunNotSuspended, StepNotSuspended, Workflow, step
from tests.conformance.conftest import Host
from tests.conformance.doubles import fails, gives, outputs, paths, statuses, waits


def always(_: Any) -> bool:
    return True


def multiplies(id: str, calls: Counter[str]) -> Any:
    return waits(id, lambda data, given: {"result": data["value"] * given["multiplier"]}, calls, payload={})


def divides(id: str, calls: Counter[str]) -> Any:
    return waits(id, lambda data, given: {"result": data["value"] / given["divisor"]}, calls, payload={})


@pytest.mark.row("resume-ambiguous-error", "fs-ambiguous")
async def test_without_a_name_one_must_be_the_only_one(host: Host, calls: Counter[str]) -> None:
    run = await host(Workflow("two").branch((always, multiplies("branch-step-1", calls)), (always, divides("branch-step-2", calls))))
    assert paths(await run.start({"value": 100})) == [["branch-step-1"], ["branch-step-2"]]
    with pytest.raises(AmbiguousResume, match="^Multiple suspended steps found: 'branch-step-1', 'branch-step-2'"):
        await run.resume({"multiplier": 2})
    first = await run.resume({"multiplier": 2}, step="branch-step-1")
    assert first.status == "suspended" and paths(first) == [["branch-step-2"]]
    result = await run.resume({"divisor": 5})  # one is left: no name needed
    assert result.status == "success" and result.result == {"branch-step-1": {"result": 200}, "branch-step-2": {"result": 20}}


@pytest.mark.row("resume-branch-status", "resume-branch-6419", "fs-branch-6419")
@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_two_arms_one_after_the_other(host: Host, calls: Counter[str], order: tuple[int, int]) -> None:
    run = await host(Workflow("arms").branch(*((always, multiplies(f"branch-step-{n}", calls)) for n in (1, 2))))
    first = await run.start({"value": 10})
    assert statuses(first) == {"branch-step-1": "suspended", "branch-step-2": "suspended"}
    assert paths(first) == [["branch-step-1"], ["branch-step-2"]]
    one, other = (f"branch-step-{n}" for n in order)
    second = await run.resume({"multiplier": order[0] + 1}, step=one)
    assert second.status == "suspended" and paths(second) == [[other]] and second.steps[other] == first.steps[other]
    assert statuses(second) == {one: "success", other: "suspended"} and calls == {one: 2, other: 1}
    third = await run.resume({"multiplier": order[1] + 1}, step=other)
    assert third.status == "success" and third.result == {"branch-step-1": {"result": 20}, "branch-step-2": {"result": 30}}
    assert outputs(third) == third.result and calls == {one: 2, other: 2}


@pytest.mark.row("resume-parallel-6418", "fs-parallel-6418")
async def test_a_run_is_suspended_until_all_members_were_resumed(host: Host, calls: Counter[str]) -> None:
    run = await host(Workflow("members").parallel(multiplies("parallel-step-1", calls), divides("parallel-step-2", calls)))
    assert paths(await run.start({"value": 100})) == [["parallel-step-1"], ["parallel-step-2"]]
    assert paths(await run.resume({"multiplier": 2}, step="parallel-step-1")) == [["parallel-step-2"]]
    result = await run.resume({"divisor": 5}, step="parallel-step-2")
    assert result.status == "success" and result.result == {"parallel-step-1": {"result": 200}, "parallel-step-2": {"result": 20}}


@pytest.mark.row("fs-parallel-cycles")
async def test_members_that_suspend_twice_leave_each_other_alone(host: Host, calls: Counter[str]) -> None:
    def asks_twice(id: str) -> Any:
        @step(id=id)
        async def asks(data: Any, ctx: Context) -> Any:
            calls[id] += 1
            if (ctx.resume_data or {}).get("round", 0) < 2:
                ctx.suspend({"waits for": (ctx.resume_data or {}).get("round", 0) + 1})
            return {id: ctx.resume_data}

        return asks

    run = await host(Workflow("cycles").parallel(asks_twice("a"), asks_twice("b"), gives("c", "c", calls)).then(gives("last", lambda d: d, calls)))
    await run.start({})
    for n, (name, round) in enumerate([("a", 1), ("b", 1), ("b", 2), ("a", 2)]):
        before = await run.get()
        result = await run.resume({"round": round}, step=name)
        other = "b" if name == "a" else "a"
        assert before is not None and result.steps[other] == before.steps[other]
        assert result.status == ("success" if n == 3 else "suspended")
        if round == 1:
            assert result.steps[name].suspend_payload == {"waits for": 2} and result.steps[name].resume_payload == {"round": 1}
    assert calls == {"a": 3, "b": 3, "c": 1, "last": 1} and result.result == {"a": {"a": {"round": 2}}, "b": {"b": {"round": 2}}, "c": "c"}


async def test_members_resumed_all_at_once(host: Host, calls: Counter[str]) -> None:
    names = [f"m{n}" for n in range(6)]
    run = await host(Workflow("crowd").parallel(*(waits(n, lambda _, given: given, calls) for n in names)))
    assert [p[0] for p in paths(await run.start({}))] == names
    results = await asyncio.gather(*(run.resume(n, step=n) for n in reversed(names)))
    assert {r.status for r in results} <= {"suspended", "success"} and calls == dict.fromkeys(names, 2)
    assert (await run.result(timeout=10)).result == {n: n for n in names}


async def test_a_member_is_resumed_while_another_still_runs(host: Host, calls: Counter[str]) -> None:
    """Anybody who saw the suspension may resume it, and the run goes on with it at once, however deep it is."""
    gate, resumed = asyncio.Event(), asyncio.Event()

    async def answers(_: Any, ctx: Context) -> Any:
        calls["asks"] += 1
        if ctx.resume_data != "2":
            ctx.suspend()
        resumed.set()
        return ctx.resume_data

    async def runs_long(_: Any) -> str:
        await gate.wait()
        return "long"

    inner = Workflow("inner").parallel(step(answers, id="asks"), step(runs_long, id="long"))
    run = await host(Workflow("outer").parallel(Workflow("middle").then(inner), gives("quick", 1)))
    waiting = asyncio.create_task(run.start({}))
    for n in ("1", "2"):
        async for event in run.observe():
            if event.type == "workflow-step-suspended" and calls["asks"] == int(n):
                break
        task = asyncio.create_task(run.resume(n, step=["middle", "inner", "asks"]))
        while calls["asks"] == int(n):
            await asyncio.sleep(0.01)
    await asyncio.wait_for(resumed.wait(), 10)
    gate.set()
    assert (await waiting).status == (await task).status == "success" and calls["asks"] == 3
    assert (await task).result == {"middle": {"asks": "2", "long": "long"}, "quick": 1}


async def test_a_failure_after_a_resume_ends_the_run_though_another_is_suspended(host: Host) -> None:
    def refuses(_: Any, __: Any) -> Any:
        raise RuntimeError("no")

    run = await host(Workflow("half").parallel(waits("waiting", None), waits("failing", refuses), fails("tolerated", "x"), allow_failure=False))
    assert (await run.start({})).status == "failed"
    run = await host(Workflow("half2").parallel(waits("waiting", None), waits("failing", refuses)))
    await run.start({})
    result = await run.resume(1, step="failing")
    assert result.status == "failed" and result.error is not None and result.error.message == "no"
    assert (result.suspended, statuses(result)) == ([], {"waiting": "canceled", "failing": "failed"})
    with pytest.raises(RunNotSuspended):
        await run.resume(1, step="waiting")


@pytest.mark.row("resume-loop-input", "resume-loop-6669", "fs-loop-6669")
async def test_each_round_gets_the_last_output_after_a_resume(host: Host) -> None:
    @step(id="step-1")
    async def counts(data: Any, ctx: Context) -> Any:
        if not (ctx.resume_data or {}).get("shouldContinue"):
            ctx.suspend({"message": f"at {data['value']}"})
        await asyncio.sleep(0.05)
        return {"value": data["value"] + 1, "condition": data["value"] + 1 >= 4}

    run = await host(Workflow("rounds").do_until(counts, lambda out: out["condition"]).then(gives("step-2", lambda data: data)))
    result = await run.start({"value": 0, "condition": False})
    for value in (1, 2, 3):
        result = await run.resume({"shouldContinue": True})
        record = result.steps["step-1"]
        assert result.status == record.status == "suspended" and record.input["value"] == value and record.iterations == value + 1
        assert record.suspend_payload == {"message": f"at {value}"} and record.output is None
    assert (await run.resume({"shouldContinue": True})).result == {"value": 4, "condition": True}


def nested_loop(rounds: list[int]) -> Workflow:
    increment = gives("increment", lambda data: {"value": data["value"] + 1})

    @step(id="resume")
    async def resumes(data: Any, ctx: Context) -> Any:
        given = (ctx.resume_data or {}).get("value")
        final = (given or 0) + data["value"]
        if given is None or final < 10:
            ctx.suspend({"message": f"Please provide more than {final}"})
        return {"value": final}

    def enough(out: Any, ctx: Context) -> bool:
        rounds.append(ctx.iteration)
        return out["value"] >= 10

    return Workflow("loop").do_until(Workflow("nested").then(increment).then(resumes), enough).then(gives("final", lambda data: data))


@pytest.mark.row("resume-dountil-nested", "fs-resume-dountil")
async def test_inside_a_nested_workflow_that_is_looped(host: Host) -> None:
    rounds: list[int] = []
    run = await host(nested_loop(rounds))
    first = await run.start({"value": 0})
    assert first.status == first.steps["nested"].status == "suspended" and paths(first) == [["nested", "resume"]]
    second = await run.resume({"value": 2}, step=["nested", "resume"])
    assert second.status == second.steps["nested"].status == "suspended" and rounds == []
    assert second.suspended[0].payload == second.steps["nested"].suspend_payload == {"message": "Please provide more than 3"}
    third = await run.resume({"value": 21}, step=["nested", "resume"])
    assert third.status == third.steps["nested"].status == "success" and third.result == {"value": 22} and rounds == [1]


@pytest.mark.row("resume-dountil-5650", "fs-dountil-5650")
async def test_a_looped_workflow_sees_its_own_rounds_input(host: Host) -> None:
    began: list[int] = []

    def amount(data: Any, given: Any) -> Any:
        return {"value": data["value"] + given["amountToIncrementBy"]}

    @step(id="resume")
    async def checks(data: Any, ctx: Context) -> Any:
        began.append(ctx.init_data["value"])
        assert dict(ctx.request_context) == {}
        return data

    body = Workflow("body").then(waits("increment", amount, payload={"optionsToIncrementBy": [1, 2, 3]})).then(checks)
    run = await host(Workflow("init").do_until(body, lambda out: out["value"] >= 10).then(gives("final", lambda data: data)))
    assert (await run.start({"value": 2})).status == "suspended"
    second = await run.resume({"amountToIncrementBy": 2}, step=["body", "increment"])
    assert second.status == second.steps["body"].status == "suspended"
    assert second.steps["body"].input == {"value": 4} and second.steps["body"].iterations == 2
    for _ in range(3):
        result = await run.resume({"amountToIncrementBy": 2}, step="body")
    assert result.result == {"value": 10} and began == [2, 4, 6, 8] and result.steps["body"].iterations == 4


@pytest.mark.row("cx-concurrent-resume")
@pytest.mark.parametrize("late", [False, True])
async def test_two_equal_resumes_run_the_rest_once_and_both_get_the_outcome(noria: Noria, host: Host, calls: Counter[str], late: bool) -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    @step(id="downstream-step")
    async def downstream(data: Any) -> Any:
        calls["downstream"] += 1
        started.set()
        await gate.wait()
        return data

    run = await host(Workflow("rivals").then(waits("suspending-step", lambda _, given: given, label="go")).then(downstream))
    await run.start({})
    first = asyncio.create_task(run.resume({"n": 1}, step="suspending-step"))
    if late:
        await started.wait()
    second = asyncio.create_task(noria.create_run("rivals", run.id).resume({"n": 1}, label="go"))
    unequal = asyncio.create_task(run.resume({"n": 2}))
    await started.wait()
    with pytest.raises((StepNotSuspended, RunNotSuspended)):
        await unequal
    await asyncio.sleep(0.1)
    gate.set()
    results = [await first, await second]
    assert [r.status for r in results] == ["success"] * 2 and results[0] == results[1] and calls == {"downstream": 1}
    with pytest.raises(RunNotSuspended):
        await run.resume({"n": 1})


async def test_many_unequal_rivals_have_one_winner(host: Host, calls: Counter[str]) -> None:
    run = await host(Workflow("crowded").then(waits("asks", lambda _, given: given, calls)))
    await run.start({})
    answers = await asyncio.gather(*(run.resume(n) for n in range(8)), return_exceptions=True)
    winners = [a for a in answers if not isinstance(a, BaseException)]
    losers = [a for a in answers if isinstance(a, BaseException)]
    assert len(winners) == 1 and {type(e) for e in losers} <= {StepNotSuspended, RunNotSuspended} and calls == {"asks": 2}


async def test_equal_rivals_do_not_resume_the_next_round_of_a_loop(host: Host, calls: Counter[str]) -> None:
    body = waits("counts", lambda data, given: data + given, calls)
    run = await host(Workflow("loop-rivals").do_until(body, lambda out: out >= 100))
    await run.start(0)
    results = await asyncio.gather(*(run.resume(1) for _ in range(5)), return_exceptions=True)
    record = await run.get()
    assert record is not None and calls["counts"] == 1 + 2 * (record.steps["counts"].iterations - 1)
    assert record.steps["counts"].input == record.steps["counts"].iterations - 1
    assert all(not isinstance(r, BaseException) for r in results)


async def test_runs_that_are_not_there_or_over_are_refused(noria: Noria, host: Host) -> None:
    flow = Workflow("gone").then(waits("asks", None))
    run = await host(flow)
    with pytest.raises(RunNotFound):
        await run.resume(1)
    await run.start({})
    await run.cancel()
    with pytest.raises(RunNotSuspended, match="canceled"):
        await run.resume(1)
    sleeping = await host(Workflow("asleep").sleep(30))
    await sleeping.start_async({})
    while (record := await sleeping.get()) is None or record.status != "waiting":
        await asyncio.sleep(0.02)
    with pytest.raises(RunNotSuspended, match="waiting"):
        await sleeping.resume(1)
    await sleeping.cancel()
