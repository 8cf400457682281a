"""Sentences of the public API that nothing else shows, each as a stranger would try it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from noria import (
    Context,
    DefinitionError,
    InvalidInput,
    Noria,
    NoriaError,
    NoWorker,
    RunResult,
    Tripwire,
    TripwireInfo,
    Workflow,
    computed,
    on_event,
    step,
    template,
)
from noria.ports import Nobody


@step
def add(x: int) -> int:
    return x + 1


@step
def same(x: Any) -> Any:
    return x


async def test_a_cancel_of_a_run_that_nobody_began_comes_before_its_first_step(noria: Noria) -> None:
    began: list[str] = []

    @step
    async def work(name: str) -> None:
        began.append(name)
        await asyncio.sleep(0.5 if name == "first" else 0)

    flow = Workflow("queued").then(work).commit()
    alone = noria.create_run(flow, "alone")
    await alone.start_async("alone")
    with pytest.raises(NoWorker, match="stays durable"):
        await alone.cancel(timeout=0.1)
    async with noria.worker(flow, concurrency=1):
        assert (await alone.result(timeout=20)).status == "canceled"
        first, behind = noria.create_run(flow, "first"), noria.create_run(flow, "behind")
        await first.start_async("first")
        while not began:
            await asyncio.sleep(0.01)
        await behind.start_async("behind")
        await behind.cancel()
        assert ((await behind.result()).status, (await first.result()).status) == ("canceled", "success")
    assert began == ["first"]


async def test_a_run_in_its_first_step_is_listed_as_running(noria: Noria) -> None:
    began, gate = asyncio.Event(), asyncio.Event()

    @step
    async def work(ctx: Context) -> None:
        await ctx.write("begun")  # told and stored: what a reader may rely on
        began.set()
        await gate.wait()

    flow = Workflow("works").parallel(work).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start_async()
        await began.wait()
        while (record := await run.get()) is None or record.status != "running":
            await asyncio.sleep(0.01)
        assert [r.run_id for r in (await noria.runs.list(status="running")).runs] == [run.id]
        assert (await noria.runs.list(status="pending")).total == 0
        gate.set()
        assert (await run.result()).status == "success"


async def test_what_is_asked_wrongly_is_refused_with_the_fix_and_records_nothing(noria: Noria) -> None:
    flow = Workflow("asked").then(step(lambda x, ctx: x if ctx.resume_data else ctx.suspend(), id="ask")).commit()
    wrong: Any = [1]
    async with noria.worker(flow):
        run, fresh = noria.create_run(flow), noria.create_run(flow)
        await run.start(1)
        asked: list[tuple[Callable[[], Any], str]] = [
            (lambda: fresh.start(1, state=wrong), r"state takes a dict .* not '\[1\]'"),
            (lambda: fresh.start(1, request_context=wrong), "request_context takes a dict"),
            (lambda: run.resume(1, request_context=wrong), "request_context takes a dict"),
            (lambda: run.resume(1, step=[]), r"step \[\]: give a step, an id, a dotted path, or a list"),
            (lambda: run.time_travel([]), r"step \[\]: give a step"),
            (lambda: run.time_travel("ask", context=wrong), "context takes records by step"),
            (lambda: run.time_travel("ask", context={"ask": {"started_at": "noon"}}), "'ask': started_at is no time"),
            (lambda: noria.runs.list("a b"), "workflow id 'a b': use letters"),
            (lambda: noria.create_run(wrong), r"workflow id \[1\]: use letters"),
        ]
        for ask, said in asked:
            with pytest.raises(InvalidInput, match=said):
                await ask()
        assert await noria.workflows.get("a b") is None and await noria.runs.get("a b", flow) is None and await fresh.get() is None
        record = await run.get()
        assert record is not None and record.status == "suspended"
        with pytest.raises(DefinitionError, match="one by one"):
            noria.worker(wrong)


async def test_a_worker_that_cannot_open_serves_nothing(noria: Noria) -> None:
    flow = Workflow("unbound", triggers=[on_event("orders.>", stream="NO_SUCH_STREAM")]).then(same).commit()
    with pytest.raises(NoriaError, match="NO_SUCH_STREAM"):
        async with noria.worker(flow):
            pass
    with pytest.raises(Nobody):
        await noria.broker.calls.ask(f"{noria.namespace}.step.unbound.same", b"{}", 2)
    with pytest.raises(NoWorker):
        await noria.run(flow, 1, timeout=0.2)


async def test_a_callback_has_a_key_of_its_own_in_each_stretch(noria: Noria) -> None:
    keys: list[tuple[str, str]] = []

    def told(result: RunResult, ctx: Context) -> None:
        keys.append((result.status, ctx.idempotency_key))

    @step
    def ask(x: Any, ctx: Context) -> None:
        if ctx.resume_data is None:
            ctx.suspend()
        raise ValueError(ctx.resume_data)

    flow = Workflow("told", on_finish=told, on_error=told).then(ask).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start()
        await run.resume("no")
    assert [status for status, _ in keys] == ["suspended", "failed", "failed"]
    assert len({key for _, key in keys}) == 3


async def test_a_callback_sees_the_run_as_it_ends(noria: Noria) -> None:
    seen: list[Any] = []

    def told(result: RunResult, ctx: Context) -> None:
        seen.append((ctx.step_result("ends"), ctx.state == result.state == {"ended": True}, dict(ctx.request_context)))

    @step
    def ends(x: Any, ctx: Context) -> str:
        ctx.set_state(ended=True)
        ctx.request_context["by"] = "ends"
        return "end"

    flow = Workflow("seen", on_finish=told).then(ends).commit()
    async with noria.worker(flow):
        await noria.run(flow)
    assert seen == [("end", True, {"by": "ends"})]


async def test_iteration_and_index_are_those_of_what_is_around(noria: Noria) -> None:
    seen: list[tuple[Any, ...]] = []

    def look(x: int, ctx: Context) -> int:
        seen.append((ctx.step_id, ctx.index, ctx.iteration))
        return x

    def enough(x: Any, ctx: Context) -> bool:
        seen.append(("enough", ctx.index, ctx.iteration))
        return ctx.iteration == 2

    body = Workflow("body").then(step(look, id="a")).branch((lambda x, ctx: look(x, ctx) or True, step(look, id="b"))).map({"x": computed(look)})
    body = body.map(lambda: 7)
    each = Workflow("each").do_until(body, enough).do_until(step(look, id="c"), lambda: True)
    flow = Workflow("around").foreach(each).commit()
    async with noria.worker(flow):
        assert (await noria.run(flow, [5])).result == [7]
    inside = ("a", "branch-1", "b", "mapping-2")
    rounds = [*((id, 0, 0) for id in inside), ("enough", 0, 1), *((id, 0, 1) for id in inside), ("enough", 0, 2)]
    assert seen == [*rounds, ("c", 0, 0)]


async def test_a_template_renders_objects_as_readable_json(noria: Noria) -> None:
    flow = Workflow("rendered").map({"text": template("${input.name}: ${input.more}")}).commit()
    async with noria.worker(flow):
        assert (await noria.run(flow, {"name": "Zoë", "more": {"é": [1, True, None]}})).result == {"text": 'Zoë: {"é": [1, true, null]}'}


async def test_a_tripwire_ends_the_run_wherever_it_is_raised(noria: Noria) -> None:
    def trip(x: Any) -> Any:
        raise Tripwire("stop", metadata={"x": x})

    flows = [
        Workflow("in-a-mapping").map(trip, id="m").then(same),
        Workflow("in-a-source").map({"x": computed(trip)}, id="m").then(same),
        Workflow("in-a-condition").branch((trip, same)),
        Workflow("in-a-loop").do_until(same, trip).then(add),
        Workflow("in-a-sleep").sleep(trip).then(same),
        Workflow("tolerated").parallel(same, step(trip, id="t"), allow_failure=True).then(add),
    ]
    steps = ["m", "m", "branch-0", "same", "sleep-0", "t"]
    async with noria.worker(*flows):
        for flow, id in zip(flows, steps, strict=True):
            result = await noria.run(flow, 1)
            assert (result.status, result.error, result.tripwire) == ("tripwire", None, TripwireInfo("stop", False, {"x": 1}, id)), flow
            assert "add" not in result.steps


async def test_a_mapping_that_bails_keeps_what_it_wrote(noria: Noria) -> None:
    def leave(x: Any, ctx: Context) -> Any:
        ctx.set_state(left=True)
        ctx.bail(x)

    flow = Workflow("leaves").map(leave).then(add).commit()
    async with noria.worker(flow):
        result = await noria.run(flow, 1)
    assert (result.result, result.state, list(result.steps)) == (1, {"left": True}, ["mapping-0"])


async def test_an_error_without_words_fails_its_step(noria: Noria) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise OSError("no words")

    @step
    def mute() -> None:
        raise Mute

    flow = Workflow("mute").then(mute).commit()
    async with noria.worker(flow):
        error = (await noria.run(flow, timeout=20)).error
    assert error is not None and (error.type, error.message) == ("Mute", "Mute")


class Shy:
    def __repr__(self) -> str:
        raise RuntimeError("no picture")


class Broken(BaseModel):
    x: int = 0

    @field_validator("x")
    @classmethod
    def check(cls, x: int) -> int:
        raise RuntimeError("out of order")


async def test_code_of_the_users_that_breaks_inside_a_value_fails_the_run(noria: Noria) -> None:
    def fails(x: Any) -> None:
        error = ValueError("told")
        error.of = Shy()  # type: ignore[attr-defined]
        raise error

    def trips(x: Any) -> None:
        raise Tripwire("told", metadata=Shy())

    def waits(x: Any, ctx: Context) -> None:
        ctx.suspend({"x": 1})

    flows = [
        Workflow("attribute").then(step(fails)),
        Workflow("metadata").then(step(trips)),
        Workflow("payload").then(step(waits, suspend=Broken)),
        Workflow("nested").then(Workflow("inner", input=Broken).then(same)),
    ]
    async with noria.worker(*flows, grace=0):
        said = [await noria.run(flow, {"x": 1}, timeout=20) for flow in flows]
    assert [r.error.message if r.error else r.tripwire and r.tripwire.metadata for r in said[:2]] == ["told", "<Shy>"]
    for result in said[2:]:
        assert result.error is not None and "raised RuntimeError: out of order" in result.error.message


async def test_a_cancel_that_comes_together_with_the_servers_answer_is_not_lost(noria: Noria) -> None:
    client: Any = noria.broker.connection.client  # type: ignore[attr-defined]
    task = asyncio.create_task(client.flush())
    await asyncio.sleep(0)
    client._pongs[-1].add_done_callback(lambda _: task.cancel())
    with pytest.raises(asyncio.CancelledError):
        await task


class Strict(BaseModel):
    n: int


@step
def kind(x: Strict) -> str:
    return type(x).__name__


async def test_validate_false_holds_for_all_that_is_inside_wherever_the_step_runs(noria: Noria) -> None:
    lax = Workflow("lax", input=Strict, validate=False).then(kind)
    middle = Workflow("middle").then(Workflow("strict").then(kind))
    flows = [Workflow("inner-lax").then(lax), Workflow("outer-lax", validate=False).then(middle), Workflow("held").then(middle)]
    said: list[list[tuple[str, Any]]] = []
    for steps in (True, False):
        async with noria.worker(*flows, steps=steps), noria.worker(*flows, runs=False):
            results = [await noria.run(flow, {"n": "odd"}, timeout=20) for flow in flows]
        said.append([(r.status, r.result) for r in results])
    assert said == [[("success", "dict"), ("success", "dict"), ("failed", None)]] * 2


@step
async def spoils(x: Any, ctx: Context) -> Any:
    for given in (x, ctx.init_data, ctx.state["seen"], ctx.step_result("same"), ctx.suspend_data, ctx.resume_data, ctx.request_context["of"]):
        if given is not None:
            given["spoilt"] = True
    if ctx.resume_data is None:
        ctx.suspend({"why": {}})
    return {"init": ctx.init_data, "state": ctx.state, "before": ctx.step_result("same")}


def spoils_its_result(result: RunResult) -> None:
    for given in (result.input, result.result, result.state["seen"], *(r.output for r in result.steps.values())):
        if given is not None:
            given["spoilt"] = True


async def test_what_a_step_does_to_a_value_that_it_was_given_is_not_written(noria: Noria) -> None:
    flow = Workflow("spoilt", on_finish=spoils_its_result).then(same).then(spoils)
    for steps in (True, False):
        async with noria.worker(flow, steps=steps), noria.worker(flow, runs=False):
            run = noria.create_run(flow)
            first = await run.start({"n": 1}, state={"seen": {}}, request_context={"of": {}}, timeout=20)
            assert first.status == "suspended" and first.steps["spoils"].suspend_payload == {"why": {}}
            last = await run.resume({"go": {}})
        assert last.result == {"init": {"n": 1}, "state": {"seen": {}}, "before": {"n": 1}}, last.error
        assert last.input == last.steps["same"].output == last.steps["spoils"].input == {"n": 1} and last.state == {"seen": {}}
        assert last.steps["spoils"].resume_payload == {"go": {}} and last.steps["spoils"].suspend_payload == {"why": {}}
