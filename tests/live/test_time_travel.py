"""Time travel, forks and nested retries beyond the rows: structures, rivals, versions, hosts that die, keys."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from noria import Context, InvalidInput, NonRetryable, Noria, Retry, RunAlreadyStarted, RunNotFound, RunStillActive, StepNotFound, Workflow, step
from noria.clock import now
from noria.contract import commands
from noria.contract.envelopes import decode as decode_facts
from noria.contract.facts import Rewound
from noria.ports import ActorKey, RunKey

calls: Counter[str] = Counter()
keys: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()
    keys.clear()


def plus(id: str, n: int = 1, **options: Any) -> Any:
    async def work(x: int, ctx: Context) -> int:
        calls[id] += 1
        keys.append(ctx.idempotency_key)
        return x + n

    return step(work, id=id, **options)


def pausing(id: str) -> Any:
    async def work(x: int, ctx: Context) -> int:
        calls[id] += 1
        return ctx.resume_data if ctx.resume_data is not None else ctx.suspend({"x": x})

    return step(work, id=id)


async def test_a_key_changes_with_each_life_only(noria: Noria) -> None:
    flow = Workflow("keys").then(plus("a")).parallel(plus("b"), plus("c")).map(lambda out: out["b"]).then(Workflow("in").then(plus("d"))).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start(0)
        await run.time_travel("b")
        await run.time_travel("in")
        assert (await run.time_travel("a")).status == "success"
    assert len(set(keys)) == len(keys) == 4 + 2 + 1 + 4 and calls == {"a": 2, "b": 3, "c": 2, "d": 4}


async def test_a_foreach_that_failed_repeats_what_did_not_succeed(noria: Noria) -> None:
    good = False

    async def work(x: int) -> int:
        calls[str(x)] += 1
        if x == 2 and not good:
            raise ValueError("not yet")
        return x * 10

    flow = Workflow("each").map(lambda _: [1, 2, 3]).foreach(step(work, id="item")).map(sum).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start({})).status == "failed" and calls == {"1": 1, "2": 1}
        good = True
        result = await run.time_travel("item")
        assert (result.result, calls) == (60, {"1": 1, "2": 2, "3": 1}) and result.steps["item"].output == [10, 20, 30]
        assert (await run.time_travel("item")).result == 60 and calls == {"1": 2, "2": 3, "3": 2}, "it had succeeded: all anew"
        assert (await run.time_travel("item", input=[2, 4])).result == 60 and calls["4"] == 1
        with pytest.raises(InvalidInput, match="takes a list"):
            await run.time_travel("item", input=7)


async def test_resume_data_reaches_every_item_of_the_target(noria: Noria) -> None:
    """As it reaches a target that had ended: also the items that were not suspended just now."""
    each = Workflow("each").foreach(Workflow("in").then(plus("a")).then(pausing("b")), concurrency=2).commit()
    plain = Workflow("plain").foreach(pausing("item"), concurrency=2).commit()
    async with noria.worker(each, plain):
        for flow, target in ((each, "in.b"), (plain, "item")):
            run = noria.create_run(flow)
            await run.start([1, 2])
            assert (await run.resume(5)).result == [5, 5]
            assert len((await run.time_travel(target)).suspended) == 2
            assert (await run.resume(6, index=1)).status == "suspended"
            fork = await run.fork(target, resume=7)
            kept = 7 if target == "in.b" else 6  # an item that succeeded of a foreach that did not stays as it is
            assert (await fork.result()).result == [7, kept] == (await run.time_travel(target, resume=7)).result
        assert calls["a"] == 2
        assert (await run.time_travel("item", resume=8)).result == (await run.time_travel("item", input=[3, 4], resume=8)).result == [8, 8]


async def test_suspended_siblings_stay_also_under_another_name(noria: Noria) -> None:
    block = Workflow("block").parallel(plus("go"), pausing("wait")).map(lambda out: out["go"] + out["wait"])
    flow = Workflow("siblings").then(plus("first")).then(block).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start(0)).status == "suspended"
        result = await run.time_travel("block.go", input=10)
        assert [s.path for s in result.suspended] == [("block", "wait")] and calls == {"first": 1, "go": 2, "wait": 1}
        result = await run.resume(5)
        assert (result.status, result.result, calls["wait"]) == ("success", 16, 2)
        stored = await run.get()
        assert stored is not None and stored.steps["block.wait"].resume_payload == 5


async def test_spread_children_travel_too(noria: Noria) -> None:
    each = Workflow("one").then(plus("in")).then(plus("out"))
    flow = Workflow("wide").map(lambda _: [1, 2, 3]).foreach(each, concurrency=3, placement="spread").map(sum).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start({}, timeout=20)).result == 12
        assert (await run.time_travel("one.out")).result == 12 and calls == {"in": 3, "out": 6}
        assert (await run.time_travel("one")).result == 12 and calls == {"in": 6, "out": 9}


async def test_spread_children_begin_as_the_travel_says_not_as_the_record_does(noria: Noria) -> None:
    """The run's record is older than the travel: it tells of a cancel and of another state."""
    seen: list[Any] = []

    async def asks(x: int, ctx: Context) -> Any:
        seen.append((ctx.state, dict(ctx.request_context)))
        return [x, ctx.resume_data] if ctx.resume_data is not None else ctx.suspend()

    async def sets(_: Any, ctx: Context) -> list[int]:
        ctx.set_state(mood="good")
        ctx.request_context["who"] = "old"
        return list(range(6))

    flow = Workflow("wide").then(step(sets, id="sets")).foreach(step(asks, id="asks"), concurrency=6, placement="spread").commit()
    async with noria.worker(flow), noria.worker(flow):
        run = noria.create_run(flow)
        await run.start({}, timeout=20)
        await run.cancel()
        seen.clear()
        result = await run.time_travel("asks", state={"mood": "better"}, request_context={"who": "new"})
        assert [s.index for s in result.suspended] == list(range(6)) and seen == [({"mood": "better"}, {"who": "new"})] * 6
        result = await run.time_travel("asks", resume="yes")
        assert (result.status, result.result) == ("success", [[x, "yes"] for x in range(6)])


async def test_a_canceled_run_travels_and_a_travelled_one_is_canceled(noria: Noria) -> None:
    flow = Workflow("parked").then(plus("a")).then(pausing("b")).then(plus("c")).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start(0)
        await run.cancel()
        assert (await run.time_travel("c", input=1)).result == 2
        assert (await run.time_travel("b")).status == "suspended"
        await run.cancel()
        assert (await run.result()).status == "canceled"
        assert (await run.time_travel("b", resume=9)).result == 10, "data for a target that had not been suspended"
        assert (await noria.runs.list(flow, status="success")).total == 1


async def test_state_and_request_context_go_along(noria: Noria) -> None:
    @step
    async def note(_: Any, ctx: Context) -> Any:
        ctx.set_state(notes=ctx.state.get("notes", 0) + 1)
        return {"who": ctx.request_context.get("who"), "mood": ctx.state.get("mood")}

    flow = Workflow("notes").then(note).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow, resource_id="r1")
        await run.start({}, request_context={"who": "ann"}, state={"mood": "good"})
        result = await run.time_travel("note", state={"mood": "better"})
        assert result.result == {"who": "ann", "mood": "better"} and result.state == {"mood": "better", "notes": 2}
        fork = await run.fork("note", request_context={"who": "bob"})
        assert (await fork.result()).result == {"who": "bob", "mood": "better"}
        record = await fork.get()
        assert record is not None and record.resource_id == "r1" and record.state["notes"] == 3
        assert (await run.result()).state["notes"] == 2, "the old run stays as it is"


async def test_who_waits_gets_the_new_end(noria: Noria) -> None:
    inside, go = asyncio.Event(), asyncio.Event()

    @step
    async def slow(x: int) -> int:
        if x > 1:
            inside.set()
            await go.wait()
        return x

    flow = Workflow("slow").then(plus("a")).then(slow).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start(0)).result == 1
        travel = asyncio.create_task(run.time_travel("slow", input=7))
        await inside.wait()
        waits = asyncio.create_task(noria.create_run(flow.id, run.id).result())
        record = await run.get()
        assert record is not None and record.status == "running" and record.ended_at is None and record.result is None
        with pytest.raises(RunStillActive):
            await run.time_travel("a")
        go.set()
        assert [(await t).result for t in (travel, waits)] == [7, 7]


async def test_a_host_that_dies_after_the_fact_repeats_nothing(noria: Noria) -> None:
    flow = Workflow("dies").then(plus("a")).then(plus("b")).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start(0)
    key = ActorKey(flow.id, run.id)
    command = commands.TimeTravel("t", now(), ["b"], 5)
    door = await noria.broker.commands.send(key, commands.encode(command))
    assert (record := await run.get()) is not None and record.status == "running", "it is about to go on"
    async with noria.worker(flow):
        assert (await run.result(timeout=20)).result == 6
    entries = [f for e in await noria.broker.log.read(key) for f in decode_facts(e.body).facts]
    assert [f.command for f in entries if isinstance(f, Rewound)] == [door] and calls == {"a": 1, "b": 2}


async def test_forks(noria: Noria) -> None:
    nested = Workflow("pack").then(plus("wrap")).then(plus("tape"))
    old = Workflow("parcel").then(plus("pick")).then(nested).then(plus("send")).commit()
    async with noria.worker(old):
        run = noria.create_run(old)
        assert (await run.start(0)).result == 4
        fork = await run.fork("send", input=10, run_id="again")
        assert fork.id == "again" and (await fork.result()).result == 11
        record = await fork.get()
        assert record is not None and record.steps["pack.tape"].output == 3 and record.steps["pack"].output == 10
        with pytest.raises(RunAlreadyStarted):
            await run.fork("send", run_id="again")
        with pytest.raises(RunNotFound):
            await noria.create_run(old).fork("send")
        with pytest.raises(StepNotFound):
            await run.fork("lost")
        lazily = run.fork("pack.tape", context={"pack.wrap": {"output": 20}}, per_step=True)
        assert (await lazily.start()).status == "paused" and (await lazily.resume()).result == 22
        with pytest.raises(InvalidInput, match="is a fork"):
            await run.fork("send").start(5)
        events = [event async for event in run.fork("send").stream()]
        assert (events[0].type, events[-1].type) == ("workflow-start", "workflow-finish")
    new = Workflow("parcel", version="2").then(plus("pick")).then(nested).map(lambda x: x * 100, id="weigh").then(plus("send")).commit()
    async with noria.worker(new):
        forked = await noria.create_run(new, run.id).fork("weigh")
        assert (await forked.result()).result == 301
        record = await forked.get()
        assert record is not None and record.version == "2" and calls["pick"] == 1
    assert (await run.result()).result == 4


class Box(BaseModel):
    x: int
    size: int = 7


async def test_a_nested_workflow_that_goes_on_is_not_asked_for_its_input(noria: Noria) -> None:
    async def unwrap(box: Box) -> int:
        return box.size

    nested = Workflow("nested", input=Box).then(step(unwrap)).then(plus("add"))
    flow = Workflow("boxes").then(step(lambda _: {"x": 1}, id="box")).then(nested).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start({})).result == 8 and (await run.result()).steps["nested"].input == {"x": 1, "size": 7}
        assert (await run.time_travel("nested.add", input=10)).result == 11
        assert (await run.time_travel("nested.add")).result == 11, "what was assumed is stored"
        assert (await run.time_travel("nested.unwrap", input={"x": 1, "size": 3})).result == 4
        bare = await noria.create_run(flow).time_travel("nested.add", input=1)
        assert bare.result == 2 and bare.steps["nested"].input == {}
        with pytest.raises(InvalidInput, match="x: Field required"):
            await run.time_travel("nested", input={})


async def test_from_the_record_alone(noria: Noria) -> None:
    flow = Workflow("aged").then(plus("a")).parallel(plus("b"), plus("c")).map(lambda out: out["b"] + out["c"]).then(plus("d")).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start(0)).result == 5
        await noria.broker.log.purge(RunKey(flow.id, run.id))
        assert (await run.time_travel("c", input=10)).result == 2 + 11 + 1 and calls["a"] == calls["b"] == 1
        assert (await run.time_travel("d")).result == 14
        assert (await (await run.fork("b")).result()).result == 11 + 11 + 1


async def test_to_a_mapping_or_a_sleep(noria: Noria) -> None:
    flow = Workflow("plain").then(plus("a")).sleep(0).map(lambda x: x * 10).then(plus("b")).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start(0)).result == 11
        assert (await run.time_travel("mapping-2", input=5)).result == 51 and (await run.result()).steps["sleep-1"].output == 5
        assert (await run.time_travel("mapping-2")).result == 51  # what a travel said of a sleep stays, as of a step
        assert (await run.time_travel("sleep-1")).result == 11 and calls == {"a": 1, "b": 4}


async def test_by_id_alone_and_with_step_objects(noria: Noria) -> None:
    last = plus("last")
    flow = Workflow("ids").then(plus("a")).then(Workflow("in").then(plus("b")).then(last)).commit()
    async with noria.worker(flow):
        await noria.run(flow, 0, run_id="r")
    async with Noria.connect(noria.url, namespace=noria.namespace) as other, noria.worker(flow):
        run = other.create_run("ids", "r")
        with pytest.raises(StepNotFound, match=r"'in\.last'"):
            await run.time_travel("last")
        with pytest.raises(StepNotFound, match=r"'x'"):
            await run.time_travel("in.last", context={"x": {"output": 1}})
        assert (await run.time_travel(("in", last), input=5)).result == 6
        assert (await run.time_travel("in", context={"a": {"output": 50}})).result == 52
    flow = Workflow("after").then(Workflow("in").then(plus("b")).then(last)).then(plus("end")).commit()
    async with noria.worker(flow):
        assert (await noria.create_run(flow).time_travel("end", context={"in.last": {"output": 4}})).result == 5


async def test_a_nested_workflow_is_retried_as_its_parent_says(noria: Noria) -> None:
    async def flaky(x: int, ctx: Context) -> int:
        calls["flaky"] += 1
        keys.append(ctx.idempotency_key)
        if calls["flaky"] < 3:
            raise OSError("away")
        return x

    nested = Workflow("nested").then(plus("before")).then(step(flaky, id="flaky"))
    flow = Workflow("retries", retry=Retry(attempts=3, delay=0.01)).parallel(nested, plus("beside")).commit()
    async with noria.worker(flow):
        result = await noria.run(flow, 0)
        assert result.result == {"nested": 1, "beside": 1} and calls == {"before": 3, "flaky": 3, "beside": 1}
        assert result.steps["nested"].attempts == 3 and len(set(keys)) == len(keys)
        record = await noria.runs.get(result.run_id)
        assert record is not None and [k for k in record.steps if "." in k] == ["nested.before", "nested.flaky"]

        async def hopeless(_: int) -> int:
            calls["hopeless"] += 1
            raise NonRetryable("never")

        doomed = Workflow("doomed", retry=Retry(attempts=3)).then(Workflow("inner").then(step(hopeless))).commit()
        async with noria.worker(doomed):
            assert (await noria.run(doomed, 0)).status == "failed" and calls["hopeless"] == 1


async def test_a_retry_does_not_wait_for_siblings(noria: Noria) -> None:
    again = asyncio.Event()

    async def flaky(x: int) -> int:
        calls["flaky"] += 1
        if calls["flaky"] == 1:
            raise OSError("away")
        again.set()
        return x

    async def waits(x: int) -> int:
        await again.wait()
        return x

    inner = Workflow("inner").then(step(flaky))
    flow = Workflow("beside", retry=Retry(attempts=1)).parallel(inner, step(waits)).commit()
    each = Workflow("each", retry=Retry(attempts=2)).map(lambda _: [1, 2, 3]).foreach(inner, placement="spread").commit()
    async with noria.worker(flow, each):
        assert (await noria.run(flow, 5, timeout=20)).result == {"inner": 5, "waits": 5}
        calls.clear()
        stream = noria.create_run(each).stream({})
        progress = [event.data["status"] async for event in stream if event.type == "workflow-step-progress"]
        assert (await stream.result()).result == [1, 2, 3] and progress == ["success"] * 3 and calls["flaky"] == 4


async def test_a_long_pause_before_a_nested_retry_waits_behind_a_timer(noria: Noria) -> None:
    async def once(x: int) -> int:
        calls["once"] += 1
        if calls["once"] == 1:
            raise OSError("away")
        return x

    flow = Workflow("later", retry=Retry(attempts=1, delay=2.5)).then(Workflow("in").then(plus("a")).then(step(once))).commit()
    async with noria.worker(flow) as worker:
        run = noria.create_run(flow)
        await run.start_async(0)
        async with asyncio.timeout(10):
            while (record := await run.get()) is None or record.status != "waiting":
                await asyncio.sleep(0.05)
            while worker.host._activations:
                await asyncio.sleep(0.01)
        result = await run.result(timeout=20)
        assert (result.result, calls) == (1, {"a": 2, "once": 2}) and result.steps["in"].attempts == 2


async def test_a_member_that_is_rewound_to_its_first_step_runs_in_place(noria: Noria) -> None:
    inner = Workflow("inner").parallel(plus("x"), plus("y")).map(lambda out: out["x"] + out["y"])
    flow = Workflow("spreads").parallel(inner, plus("z"), placement="spread").map(lambda out: out["inner"] * out["z"]).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start(0, timeout=20)).result == 2
        assert (await run.time_travel("inner.x")).result == 2 and calls == {"x": 2, "y": 1, "z": 1}
        record = await run.get()
        assert record is not None and list(record.steps) == ["z", "inner", "inner.y", "inner.x", "inner.mapping-1", "mapping-1"]
