"""Suspend and stream, area sleep: in place when short, behind a durable timer when long."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest

from noria import Context, Noria, Retry, RunResult, Workflow, step
from noria.actor import sleeping
from noria.limits import LINGER_SECONDS
from tests.conformance.conftest import Host, Lag, Run
from tests.conformance.doubles import drained, gives, outputs, paths, timed, types, waits

SHORT_LINGER = 0.5


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeps leave their host sooner."""
    monkeypatch.setattr(sleeping, "LINGER_SECONDS", SHORT_LINGER)


async def slept(run: Run, flow: Workflow, input: Any = None) -> tuple[RunResult, float]:
    began = monotonic()
    return await run(flow, input), monotonic() - began


def says(text: str) -> Any:
    return gives("step2", lambda data: {"result": f"{text}: {data['value']}"})


@pytest.mark.row("sleep-fn")
async def test_for_as_long_as_a_function_says(run: Run) -> None:
    def duration(_: Any, ctx: Context) -> float:
        return ctx.step_result("step1")["value"] / 1000

    flow = Workflow("fn").then(gives("step1", {"value": 100})).sleep(duration).then(says("slept for"))
    result, seconds = await slept(run, flow, {})
    assert result.steps["step2"].output == {"result": "slept for: 100"} and seconds >= 0.09


@pytest.mark.row("sleep-in-branch")
async def test_in_a_workflow_that_is_a_branch_arm(run: Run, calls: Counter[str]) -> None:
    check, no = gives("check", {"shouldSleep": True}, calls), gives("noSleep", {}, calls)
    arm = Workflow("sleeps").sleep(0.05).then(gives("afterSleep", {"result": "completed after sleep"}, calls))
    flow = Workflow("arms").then(check).branch((lambda prev: prev["shouldSleep"], arm), (lambda prev: not prev["shouldSleep"], no))
    result, seconds = await slept(run, flow, {})
    assert result.status == "success" and calls == {"check": 1, "afterSleep": 1} and seconds >= 0.04
    assert outputs(result)["sleeps"] == {"result": "completed after sleep"}


@pytest.mark.row("sleep-until-fn", "fs-sleep-until-fn")
async def test_until_a_time_that_a_function_says(run: Run) -> None:
    def when(prev: Any) -> datetime:
        return datetime.now(UTC) + timedelta(milliseconds=prev["value"])

    flow = Workflow("until-fn").then(gives("step1", {"value": 900})).sleep_until(when).then(says("slept until fn"))
    result, seconds = await slept(run, flow, {})
    assert outputs(result)["step2"] == {"result": "slept until fn: 900"} and seconds > 0.85
    assert result.steps["step2"].input == {"value": 900}


@pytest.mark.row("fs-sleep-fn")
async def test_the_function_gets_the_previous_output(run: Run) -> None:
    flow = Workflow("of-prev").then(gives("step1", {"value": 900})).sleep(lambda prev: timedelta(milliseconds=prev["value"]))
    result, seconds = await slept(run, flow.then(gives("step2", lambda data: {"value": data["value"] + 900})), {})
    assert result.steps["step2"].output == {"value": 1800} and result.steps["step2"].input == {"value": 900} and seconds > 0.85


@pytest.mark.row("fs-sleep-until")
async def test_until_a_fixed_time(run: Run) -> None:
    when = datetime.now(UTC) + timedelta(seconds=1)
    flow = Workflow("until").then(gives("step1", {"result": "success1"})).sleep_until(when).then(gives("step2", {"result": "success2"}))
    result, _ = await slept(run, flow, {})
    assert datetime.now(UTC) >= when and outputs(result) == {
        "step1": {"result": "success1"}, "sleep-1": {"result": "success1"}, "step2": {"result": "success2"},
    }  # fmt: skip
    assert result.steps["step2"].input == {"result": "success1"}
    assert result.steps["step2"].started_at is not None and result.steps["step2"].started_at >= when
    timed(result, "step1", "sleep-1", "step2")


EIGHT = ["start", "step-start", "step-result", "step-waiting", "step-result", "step-start", "step-result", "finish"]


@pytest.mark.row("fs-legacy-sleep", "fs-stream-sleep", "fs-stream-sleep-fn", "ev-sleep-stream")
@pytest.mark.parametrize("seconds", [0.3, SHORT_LINGER + 0.5])
@pytest.mark.parametrize("computed", [False, True])
async def test_a_sleep_adds_two_events(host: Host, seconds: float, computed: bool, impatient: None) -> None:
    flow = Workflow("streamed").then(gives("step1", {"result": seconds})).sleep((lambda prev: prev["result"]) if computed else seconds)
    run = await host(flow.then(gives("step2", {"result": "success2"})))
    stream = run.stream({})
    events = await drained(stream)
    result = await stream.result()
    assert types(events) == EIGHT and [e.step for e in events] == [None, "step1", "step1", "sleep-1", "sleep-1", "step2", "step2", None]
    waiting, over = events[3], events[4]
    assert waiting.data["status"] == "waiting" and waiting.data["input"] == {"result": seconds}
    until = datetime.fromisoformat(waiting.data["until"])
    assert over.data["status"] == "success" and over.data["output"] == {"result": seconds} and over.time >= until
    assert events[-1].data["status"] == result.status == "success"
    record = result.steps["step2"]
    assert (record.input, record.output, record.error, record.suspend_payload) == ({"result": seconds}, {"result": "success2"}, None, None)


async def test_a_long_sleep_is_precise_visible_and_holds_nothing(noria: Noria, calls: Counter[str], lag: Lag) -> None:
    """Above the linger the run leaves its host: no activation, no slot, no lease; a timer of the server wakes it."""
    seconds = LINGER_SECONDS + 1.0
    flow = Workflow("long").then(gives("before", lambda data: data, calls)).sleep(seconds).then(gives("after", lambda data: data, calls)).commit()
    worker = noria.worker(flow, concurrency=1, lease=1)
    async with worker:
        runs = [noria.create_run(flow, resource_id="r") for _ in range(5)]
        tasks = [asyncio.create_task(run.start(n)) for n, run in enumerate(runs)]
        while (await noria.runs.list(flow, status="waiting")).total < 5:
            await asyncio.sleep(0.02)
        host = worker.host
        async with asyncio.timeout(1):
            while host._activations or host._slots:  # pyright: ignore[reportPrivateUsage]
                await asyncio.sleep(0.01)
        record = await runs[0].get()
        assert record is not None and record.status == record.steps["sleep-1"].status == "waiting" and calls == {"before": 5}
        assert {r.status for r in (await noria.runs.list(flow)).runs} == {"waiting"} and not any(task.done() for task in tasks)
        results = await asyncio.gather(*tasks)
        assert not host._activations  # pyright: ignore[reportPrivateUsage]
    for n, result in enumerate(results):
        began, ended = result.steps["sleep-1"].started_at, result.steps["sleep-1"].ended_at
        assert result.status == "success" and result.result == n and began is not None and ended is not None
        assert seconds <= (ended - began).total_seconds() <= seconds + 0.5 + 5 * lag()
    assert calls == {"before": 5, "after": 5}


async def test_a_sleep_outlives_every_worker(noria: Noria, calls: Counter[str], impatient: None) -> None:
    flow = Workflow("outlived").then(gives("before", lambda data: data, calls)).sleep(SHORT_LINGER + 0.5).then(gives("after", "woken", calls))
    run = noria.create_run(flow.commit(), "sleeper")
    async with noria.worker(flow.commit(), lease=2):
        await run.start_async({})
        while (record := await run.get()) is None or record.status != "waiting":
            await asyncio.sleep(0.02)
    await asyncio.sleep(SHORT_LINGER + 0.7)
    async with noria.worker(flow.commit(), lease=2):
        result = await run.result(timeout=10)
    assert result.result == "woken" and calls == {"before": 1, "after": 1}


@pytest.mark.parametrize("seconds", [1.5, 60])
@pytest.mark.parametrize("nested", [False, True])
async def test_a_cancel_interrupts_a_sleep(host: Host, calls: Counter[str], lag: Lag, seconds: float, nested: bool) -> None:
    flow = Workflow("interrupted").then(gives("a", 1, calls)).sleep(seconds).then(gives("b", 2, calls))
    run = await host(Workflow("around").then(flow) if nested else flow)
    task = asyncio.create_task(run.start({}))
    while calls["a"] == 0:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    began = monotonic()
    await run.cancel()
    result, record = await task, await run.get()
    assert monotonic() - began < 1.2 + 5 * lag() and calls == {"a": 1}
    assert record is not None and result.status == record.status == "canceled"
    assert {s.status for k, s in record.steps.items() if k.endswith(("sleep-1", "interrupted"))} <= {"canceled"}


async def test_sleepers_side_by_side_wake_one_by_one(host: Host) -> None:
    """Each member has a timer of its own; one that is suspended can be resumed meanwhile."""
    woken: list[str] = []

    def sleeper(id: str, seconds: float) -> Workflow:
        async def wakes(data: Any) -> Any:
            woken.append(id)
            return data

        return Workflow(id).sleep(seconds).then(step(wakes, id=f"{id}-wakes"))

    members = [sleeper("slow", LINGER_SECONDS + 1.5), sleeper("fast", LINGER_SECONDS + 0.3), sleeper("short", 0.1)]
    run = await host(Workflow("sleepers").parallel(*members, waits("asks", lambda _, given: given)))
    first = await run.start("x")
    assert first.status == "suspended" and paths(first) == [["asks"]] and woken == ["short"]
    result = await run.resume("answer", step="asks")
    assert result.status == "success" and woken == ["short", "fast", "slow"]
    assert result.result == {"slow": "x", "fast": "x", "short": "x", "asks": "answer"}


async def test_sleeps_in_the_items_of_a_foreach_and_in_a_loop(run: Run, lag: Lag, impatient: None) -> None:
    item = Workflow("item").sleep(lambda prev: SHORT_LINGER + 0.2 if prev == 2 else 0.05).then(gives("double", lambda data: data * 2))
    body = Workflow("body").sleep(SHORT_LINGER + 0.2).then(gives("more", lambda data: data + 1))
    flow = Workflow("spread-sleeps").foreach(item, concurrency=3).map(lambda prev: sum(prev)).do_until(body, lambda out: out >= 14)
    result, seconds = await slept(run, flow, [1, 2, 3])
    assert result.result == 14 and 3 * SHORT_LINGER < seconds < 3 * (SHORT_LINGER + 0.2 + 0.8 + 5 * lag())


async def test_a_long_pause_before_a_retry_of_a_resumed_step_keeps_its_data(host: Host, impatient: None) -> None:
    seen: list[Any] = []

    @step(retry=Retry(attempts=1, delay=SHORT_LINGER + 0.2))
    async def flaky(ctx: Context) -> Any:
        if ctx.resume_data is None:
            ctx.suspend({"asks": 1})
        seen.append((ctx.resume_data, ctx.suspend_data, ctx.attempt))
        if ctx.attempt == 0:
            raise ConnectionError("later")
        return ctx.resume_data

    run = await host(Workflow("paused").then(flaky))
    await run.start({})
    result = await run.resume("data")
    assert result.result == "data" and seen == [("data", {"asks": 1}, 0), ("data", {"asks": 1}, 1)]


@pytest.mark.parametrize("bad", [lambda: "soon", lambda: datetime(2030, 1, 1), lambda prev, ctx: ctx.suspend()])
async def test_a_duration_that_is_none_fails_the_run_and_names_the_entry(run: Run, bad: Any) -> None:
    result, _ = await slept(run, Workflow("bad").sleep(bad), {})
    assert result.status == "failed" and result.error is not None and "'sleep-0'" in result.error.message


async def test_a_time_that_is_over_is_no_sleep(run: Run) -> None:
    flow = Workflow("over").sleep(-1).sleep(0).sleep_until(datetime(2020, 1, 1, tzinfo=UTC)).then(gives("step2", "at once"))
    result, seconds = await slept(run, flow, {})
    assert result.result == "at once" and seconds < 1.5
