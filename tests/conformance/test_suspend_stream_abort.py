"""Suspend and stream, areas abort, tripwire and tracing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from noria import Context, Noria, RunResult, Tripwire, Workflow, step
from noria.contract.envelopes import decode
from noria.contract.facts import Finished
from noria.ports import ActorKey
from tests.conformance.conftest import Run
from tests.conformance.doubles import drained, fails, gives, types


class Slow:
    """A step that takes long unless it is stopped, and tells what became of it."""

    def __init__(self, seconds: float = 30.0, id: str = "slow") -> None:
        self.began, self.completed, self.stopped = asyncio.Event(), False, False

        async def work(ctx: Context) -> str:
            self.began.set()
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.stopped = ctx.cancelled.is_set()
                raise
            self.completed = True
            return "done"

        self.step = step(work, id=id)


async def canceled(noria: Noria, flow: Workflow, began: asyncio.Event, input: Any = None) -> tuple[RunResult, float]:
    """A run that is cancelled once `began`: its result, and the seconds that cancel() took. It is canceled everywhere."""
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        waiting = asyncio.create_task(run.start(input, timeout=20))
        await asyncio.wait_for(began.wait(), 10)
        at = time.monotonic()
        await run.cancel()
        took = time.monotonic() - at
        record = await run.get()
        assert record is not None and record.status == "canceled"
        assert [r.status for r in (await noria.runs.list(flow)).runs] == ["canceled"]
        result = await waiting
        assert result.status == "canceled" and result.result is None and result.error is None
        return result, took


@pytest.mark.row("abort-fn-given")
async def test_a_step_can_abort(run: Run) -> None:
    seen: list[Any] = []

    @step(id="step1")
    async def first(ctx: Context) -> None:
        seen.append(ctx.abort)

    assert (await run(Workflow("given").then(first), {})).status == "success" and callable(seen[0])


@pytest.mark.row("abort-from-step")
@pytest.mark.parametrize("nested", [False, True])
async def test_abort_in_a_step_cancels_the_run(run: Run, calls: Counter[str], nested: bool) -> None:
    @step(id="step2")
    async def second(ctx: Context) -> str:
        calls["step2"] += 1
        ctx.abort()
        return "does not matter"

    inner: Any = Workflow("inner").then(second) if nested else second
    flow = Workflow("aborts").then(gives("step1", 1, calls)).then(inner).then(gives("step3", 3, calls))
    result = await run(flow, {})
    assert result.status == "canceled" and calls == {"step1": 1, "step2": 1} and result.steps["step1"].status == "success"
    assert "step3" not in result.steps


async def test_abort_in_a_condition_cancels_the_run(run: Run, calls: Counter[str]) -> None:
    def stop(value: Any, ctx: Context) -> bool:
        ctx.abort()

    result = await run(Workflow("aborts").do_while(gives("step1", 1, calls), stop).then(gives("step2", 2, calls)), {})
    assert result.status == "canceled" and calls == {"step1": 1}


@pytest.mark.row("abort-not-called", "abort-listener", "abort-nested-setup")
async def test_a_slow_step_that_nobody_aborts_finishes(run: Run) -> None:
    slow = Slow(0.3)
    flow = Workflow("parent").then(gives("parent-step", lambda data: {"doubled": data["value"] * 2})).then(Workflow("nested").then(slow.step))
    result = await run(flow, {"value": 5})
    assert result.status == "success" and result.steps["parent-step"].output == {"doubled": 10} and slow.completed and not slow.stopped


@pytest.mark.row("abort-cancelable-suspend", "fs-abort-suspended")
@pytest.mark.parametrize("hosted", [True, False])
async def test_a_suspended_run_is_canceled_at_once(noria: Noria, calls: Counter[str], hosted: bool) -> None:
    @step(id="step2")
    async def waits(ctx: Context) -> None:
        calls["step2"] += 1
        ctx.suspend({"reason": "waiting for approval"})

    flow = Workflow("parks").then(gives("step1", 1, calls)).then(waits).then(gives("step3", 3, calls)).commit()
    run = noria.create_run(flow)
    async with noria.worker(flow, lease=5):
        result = await run.start({}, timeout=20)
        assert result.status == "suspended" and calls == {"step1": 1, "step2": 1}
        assert result.steps["step2"].suspend_payload == {"reason": "waiting for approval"}
        if hosted:
            await run.cancel()
    if not hosted:
        await run.cancel()
    record = await run.get()
    assert record is not None and record.status == "canceled" and record.suspended == []
    assert [r.status for r in (await noria.runs.list(status="canceled")).runs] == ["canceled"]
    assert (await run.result(timeout=5)).status == "canceled"
    async with noria.worker(flow, lease=5):
        assert (await run.result(timeout=5)).status == "canceled"
    assert calls == {"step1": 1, "step2": 1} and record.steps["step2"].status == "canceled"


@pytest.mark.row("fs-abort-immediate")
async def test_cancel_right_after_the_start(noria: Noria, calls: Counter[str]) -> None:
    flow = Workflow("at-once").then(gives("step1", 1, calls)).then(Slow().step).then(gives("step3", 3, calls)).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        starting = asyncio.create_task(run.start({}, timeout=20))
        await run.cancel()
        result = await starting
    assert result.status == "canceled" and calls["step3"] == 0
    assert all(r.status == ("success" if name == "step1" else "canceled") for name, r in result.steps.items())


@pytest.mark.row("fs-abort-during")
async def test_cancel_while_a_step_waits_keeps_what_was_done(noria: Noria) -> None:
    slow = Slow()
    flow = Workflow("during").then(gives("step1", {"result": "step1"})).then(slow.step).commit()
    result, took = await canceled(noria, flow, slow.began, {"a": 1})
    record = result.steps["step1"]
    assert (record.status, record.output, record.input) == ("success", {"result": "step1"}, {"a": 1}) and record.ended_at
    assert slow.stopped and took < 2.0 and {name: r.status for name, r in result.steps.items()} == {"step1": "success", "slow": "canceled"}


@pytest.mark.row("fs-abort-nested-cancel", "fs-abort-nested-controller")
@pytest.mark.parametrize("spread", [False, True])
async def test_cancel_reaches_a_nested_step(noria: Noria, spread: bool) -> None:
    slow = Slow(1.0)
    nested = Workflow("nested").then(slow.step)
    flow = Workflow("parent").then(gives("parent-step", lambda data: [data["value"] * 2]))
    flow = (flow.foreach(nested, placement="spread") if spread else flow.map(lambda xs: xs[0]).then(nested)).commit()
    result, took = await canceled(noria, flow, slow.began, {"value": 5})
    assert result.steps["nested"].status == "canceled" and took < 2.0
    await asyncio.sleep(1.2)
    assert slow.stopped and not slow.completed


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("how", ["finishes", "rejects", "suspends"])
async def test_a_step_that_ignores_the_cancel_is_the_last_one(noria: Noria, calls: Counter[str], how: str, last: bool) -> None:
    began = asyncio.Event()

    @step(id="stubborn")
    async def stubborn(ctx: Context) -> str:
        began.set()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            if how == "rejects":
                raise ConnectionError("aborted") from None
            if how == "suspends":
                ctx.suspend()
        return "finished all the same"

    flow = Workflow("stubborn").then(stubborn)
    flow = (flow if last else flow.then(gives("next", 1, calls))).commit()
    result, _ = await canceled(noria, flow, began)
    record = result.steps["stubborn"]
    assert not calls and (record.status, record.output) == (("success", "finished all the same") if how == "finishes" else ("canceled", None))


async def test_a_step_that_awaits_something_cancelled_fails(run: Run) -> None:
    @step(id="awaits")
    async def awaits() -> None:
        task = asyncio.create_task(asyncio.sleep(10))
        task.cancel()
        await task

    result = await run(Workflow("awaiting").then(awaits))
    assert result.status == "failed" and result.error is not None and "awaited something that was cancelled" in result.error.message


@pytest.mark.row("nd-abort-tool")
async def test_a_sync_step_sees_that_it_is_cancelled(noria: Noria) -> None:
    seen: list[float] = []
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    @step(id="tool")
    def tool(ctx: Context) -> str:
        loop.call_soon_threadsafe(began.set)
        for n in range(100):
            if ctx.cancelled.is_set():
                seen.append(n * 0.05)
                return "stopped early"
            time.sleep(0.05)
        return "ran to its end"

    flow = Workflow("tools").then(tool).commit()
    _, took = await canceled(noria, flow, began)
    async with asyncio.timeout(3):
        while not seen:
            await asyncio.sleep(0.02)
    assert seen[0] < 3 and took < 3


@pytest.mark.row("cx-cancel-sleep", "cx-cancel-sleep-until")
@pytest.mark.parametrize("kind", ["long", "until", "short"])
async def test_cancel_interrupts_a_sleep(noria: Noria, calls: Counter[str], kind: str) -> None:
    flow = Workflow("sleeps").then(gives("a", 1, calls))
    later = datetime.now(UTC) + timedelta(seconds=60)
    flow = flow.sleep_until(later) if kind == "until" else flow.sleep(60 if kind == "long" else 1.9)
    flow = flow.then(gives("b", 2, calls)).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        waiting = asyncio.create_task(run.start({}, timeout=20))
        async with asyncio.timeout(5):
            while not ((record := await run.get()) and "waiting" in (record.status, *(s.status for s in record.steps.values()))):
                await asyncio.sleep(0.02)
        began = time.monotonic()
        await run.cancel()
        result = await waiting
        assert time.monotonic() - began < 2 and result.status == "canceled" and calls == {"a": 1}
        await asyncio.sleep(0.5)
        record = await run.get()
    assert record is not None and record.status == "canceled"
    assert {name: r.status for name, r in result.steps.items()} == {"a": "success", "sleep-1": "canceled"}


@pytest.mark.row("cx-cancel-finished", "cx-cancel-finished-no-persist", "cx-cancel-finished-no-storage")
@pytest.mark.parametrize("status", ["success", "failed"])
async def test_cancel_of_a_finished_run_changes_nothing(noria: Noria, status: str) -> None:
    signals: list[asyncio.Event] = []

    @step(id="step1")
    async def keeps(ctx: Context) -> None:
        signals.append(ctx.cancelled)

    flow = Workflow("finished").then(keeps).then(gives("step2", 1) if status == "success" else fails("step2", "no")).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert (await run.start({}, timeout=20)).status == status
        await run.cancel()
        await asyncio.sleep(0.1)
        record = await run.get()
        facts = [f for e in await noria.broker.log.read(ActorKey("finished", run.id)) for f in decode(e.body).facts]
    assert record is not None and record.status == status and not signals[0].is_set()
    assert [f.status for f in facts if isinstance(f, Finished)] == [status]


@pytest.mark.row("cx-nested-nonsuccess", "cx-nested-canceled-with-suspended")
async def test_a_nested_run_that_does_not_succeed_gives_its_parent_nothing(noria: Noria, calls: Counter[str]) -> None:
    """Nobody can force a nested run's end from outside: it fails, trips or is canceled with its run, and the next step is not called."""

    @step(id="x")
    async def waits(ctx: Context) -> None:
        ctx.suspend()

    nested = Workflow("nested").parallel(waits, fails("y", "broken"))
    flow = Workflow("parent").then(nested).then(gives("next", 1, calls)).commit()
    async with noria.worker(flow, lease=5):
        result = await noria.run(flow, {}, timeout=20)
        record = await noria.runs.get(result.run_id)
    assert result.status == "failed" and result.steps["nested"].status == "failed" and not calls and result.suspended == []
    assert result.error is not None and "broken" in result.error.message
    assert record is not None and record.steps["nested.x"].status == "canceled" and record.steps["nested.y"].status == "failed"


# Tripwires: an agent-like step whose processor looks at its input or at the chunks that it writes


def guarded(word: str, reason: str, processor: str, **options: Any) -> Workflow:
    @step(id="agent")
    async def agent(data: dict[str, str], ctx: Context) -> dict[str, str]:
        for chunk in (data["prompt"], "Something inappropriate"):
            if word in chunk:
                raise Tripwire(reason, retry=options.get("retry", False), metadata={**options.get("metadata", {}), "processor_id": processor})
            await ctx.write({"type": "text-delta", "text": chunk})
        return {"text": "fine"}

    return Workflow("guarded").then(agent).then(gives("after", 1)).commit()


def tripped(result: RunResult, reason: str, retry: bool, metadata: dict[str, str]) -> None:
    assert result.status == "tripwire" and result.error is None and result.tripwire is not None and "after" not in result.steps
    assert (result.tripwire.reason, result.tripwire.retry, result.tripwire.metadata) == (reason, retry, metadata)
    assert result.tripwire.step == "agent" and result.steps["agent"].status == "tripwire" and result.steps["agent"].tripwire == result.tripwire


@pytest.mark.row("tripwire-input", "fs-tripwire-input")
async def test_an_input_processor_trips_the_run(run: Run) -> None:
    flow = guarded("blocked", "Content blocked by policy", "tripwire-processor", retry=True, metadata={"severity": "high"})
    result = await run(flow, {"prompt": "This message contains blocked content"})
    tripped(result, "Content blocked by policy", True, {"severity": "high", "processor_id": "tripwire-processor"})


@pytest.mark.row("tripwire-stream", "fs-tripwire-stream")
async def test_a_tripwire_while_streaming(noria: Noria) -> None:
    flow = guarded("forbidden", "Forbidden content detected", "stream-tripwire-processor", metadata={"type": "forbidden"})
    async with noria.worker(flow, lease=5):
        stream = noria.create_run(flow).stream({"prompt": "This has forbidden content"})
        events, result = await drained(stream), await stream.result()
    tripped(result, "Forbidden content detected", False, {"type": "forbidden", "processor_id": "stream-tripwire-processor"})
    assert types(events) == ["start", "step-start", "step-result", "finish"]
    assert events[2].data["status"] == events[3].data["status"] == "tripwire"
    assert events[2].data["tripwire"] == events[3].data["tripwire"] and events[3].data["tripwire"]["reason"] == "Forbidden content detected"


@pytest.mark.row("tripwire-output-stream", "fs-tripwire-output")
async def test_an_output_processor_trips_the_run(run: Run) -> None:
    flow = guarded("inappropriate", "Output contains inappropriate content", "output-stream-tripwire-processor", retry=True)
    result = await run(flow, {"prompt": "Tell me something"})
    tripped(result, "Output contains inappropriate content", True, {"processor_id": "output-stream-tripwire-processor"})


# Tracing


@pytest.mark.row("tracing-context", "tracing-typed", "tracing-all-steps", "fs-tracing-type")
async def test_every_step_gets_a_tracing_context(run: Run) -> None:
    seen: list[tuple[str | None, Any]] = []

    @step(id="step1")
    async def traced(data: dict[str, str], ctx: Context) -> dict[str, str]:
        ctx.span.set_attribute("seen", True)
        seen.append((ctx.step_id, ctx.span.get_span_context()))
        return data

    assert (await run(Workflow("traced").then(traced).then(traced.clone(id="step2")), {"input": "test"})).status == "success"
    assert [id for id, _ in seen] == ["step1", "step2"] and all(context is not None for _, context in seen)


@pytest.mark.row("nd-tracing-persist")
async def test_the_trace_outlives_a_suspension(noria: Noria) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    @step(id="step1")
    async def waits(ctx: Context) -> None:
        ctx.suspend({"message": "wait"})

    flow = Workflow("persisted").then(waits).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start_from_event({}, trace)
        assert (await run.result(timeout=20)).status == "suspended"
        facts = await noria.broker.log.read(ActorKey("persisted", run.id))
    assert all(b"4bf92f3577b34da6a3ce929d0e0e4736" in fact.body for fact in facts)
