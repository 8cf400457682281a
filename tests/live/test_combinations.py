"""Where features meet: what each keeps by itself it keeps inside, and after, the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from noria import Context, InvalidInput, Noria, RunEvent, RunNotActive, StepNotSuspended, Workflow, step

calls: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()


def plus(id: str, n: int = 1) -> Any:
    async def work(x: int) -> int:
        calls[id] += 1
        return x + n

    return step(work, id=id)


def asks(id: str) -> Any:
    async def work(x: int, ctx: Context) -> int:
        calls[id] += 1
        return x + ctx.resume_data if ctx.resume_data is not None else ctx.suspend({"x": x}, label=f"{id}-{x}")

    return step(work, id=id)


async def test_what_a_travel_gave_the_first_entry_is_what_it_gets_from_then_on(noria: Noria) -> None:
    """As a later entry gets what a travel gave in place of the output before it."""
    inner = Workflow("inner").then(plus("a")).then(plus("b")).commit()
    rounds = Workflow("rounds").do_until(plus("up"), lambda x: x >= 5).commit()
    flow = Workflow("given").then(inner).then(rounds).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start(10)).result == 13
        assert (await run.time_travel("inner.a", input=20)).result == (await run.time_travel("inner.a")).result == 23
        assert (await run.time_travel("inner.b")).result == (await run.time_travel("inner.a")).result == 23
        assert (await (await run.fork("inner.a")).result(timeout=20)).result == 23
        assert (await run.time_travel("inner.a", context={"inner": {"input": 30}})).result == 33
        anew = await run.time_travel("inner", input=40)
        assert anew.result == (await run.time_travel("inner")).result == (await run.time_travel("inner.a")).result == 43
        assert anew.input == 10 and (await run.time_travel("inner", input=10)).result == 13
        calls.clear()
        assert (await run.time_travel("rounds.up", input=3)).result == (await run.time_travel("rounds.up")).result == 5
        assert calls == {"up": 4}


async def test_steps_of_nested_workflows_that_are_items_have_one_record_each(noria: Noria) -> None:
    flow = Workflow("items").foreach(Workflow("ship").then(plus("pack")).then(asks("ask")).commit(), concurrency=2).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        result = await run.start([1, 2, 3])
        record = await run.get()
        assert record is not None and [*record.steps] == ["ship", "ship.pack", "ship.ask"] and [*result.steps] == ["ship"]
        assert [name for name, r in record.steps.items() if r.status == "suspended"] == ["ship.ask"]
        pack, ask = record.steps["ship.pack"], record.steps["ship.ask"]
        assert (pack.status, pack.input, pack.output) == ("success", [1, 2, None], [2, 3, None])
        assert (ask.input, ask.output, ask.suspend_payload) == ([2, 3, None], None, {"x": 2})
        await run.resume(10, index=1)
        await run.resume(20)
        record = await run.get()
        assert record is not None and record.status == "success" and {r.status for r in record.steps.values()} == {"success"}
        ask = record.steps["ship.ask"]
        assert (ask.input, ask.output, ask.resume_payload) == ([2, 3, 4], [22, 13, 24], 20) and ask.suspended_at is None
        assert ask.started_at and ask.ended_at and ask.started_at < ask.ended_at
        await run.time_travel("ship")
        await run.cancel()
        record = await run.get()
        assert record is not None and {name: r.status for name, r in record.steps.items()} == {
            "ship": "canceled", "ship.pack": "success", "ship.ask": "canceled",
        }  # fmt: skip


async def test_items_that_never_came_to_a_travels_target_stay(noria: Noria) -> None:
    arms = [(lambda x: x % 2 == 0, plus("even", 100)), (lambda x: x > 2, plus("big", 1000))]
    flow = Workflow("some").foreach(Workflow("item").then(plus("a", 0)).branch(*arms).commit(), concurrency=2).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        first = (await run.start([1, 2, 3, 4])).result
        even: dict[str, int] = {"even": 2}
        for target, expected in (("even", even), ("even", even), ("big", {"big": 2}), ("a", {"a": 4, "even": 2, "big": 2})):
            calls.clear()
            assert (await run.time_travel(f"item.{target}")).result == first and calls == expected, target
        calls.clear()
        assert (await (await run.fork("item.even")).result(timeout=20)).result == first and calls == {"even": 2}


async def test_different_workflows_of_one_id_are_told_apart_where_only_steps_are_served(noria: Noria, server_url: str) -> None:
    one, other = (Workflow("same").then(plus("work", n)).commit() for n in (1, 100))
    flows = [Workflow("w1").then(one).commit(), Workflow("w2").foreach(other).commit(), Workflow("w3").then(one).then(Workflow("in").then(other))]
    async with (
        Noria.connect(server_url, namespace=noria.namespace) as handlers,
        handlers.worker(*flows, runs=False),
        noria.worker(*flows, steps=False),
    ):
        results = [(await noria.run(flow, input, timeout=20)).result for flow, input in zip(flows, (1, [1], 1), strict=True)]
        assert results == [2, [101], 102]
        answer = await noria.broker.calls.ask(noria.broker.subjects.step("same", "work"), b'{"input": 1}', 5)
        assert answer.code == "400" and "'w1.same', 'w2.same', 'w3.same', 'w3.in.same'" in (answer.error or "")


async def test_by_the_api_a_stream_keeps_to_its_stretch_and_an_observer_does_not(noria: Noria, server_url: str) -> None:
    flow = Workflow("parts").parallel(asks("a"), asks("b")).then(step(lambda x: x, id="end")).commit()
    async with noria.worker(flow), Noria.connect(server_url, namespace=noria.namespace, via="api") as api:
        run = api.create_run("parts")
        first = run.stream(1)
        seen = [e async for e in first]
        second = run.resume_stream(5, step="a")
        seen += [e async for e in second]
        third = run.resume_stream(7, label="b-1")
        async for event in third:
            seen.append(event)
            if event.type == "workflow-finish":
                break
        travel = run.time_travel_stream("end")
        seen += [e async for e in travel]
        await run.time_travel("a")
        results = [await stream.result() for stream in (first, second, third, travel)]
        assert [[s.path for s in r.suspended] for r in results] == [[("a",), ("b",)], [("b",)], [], []]
        assert [r.status for r in results] == ["suspended", "suspended", "success", "success"] and results[2].result == {"a": 6, "b": 8}
        watched = [[e async for e in client.create_run("parts", run.id).observe(close_on_suspend=True)] for client in (api, noria)]
        assert watched[0] == watched[1] and watched[0][: len(seen)] == seen
        assert [e.data["status"] for e in watched[0] if e.type == "workflow-finish"] == [*(r.status for r in results), "suspended"]


async def test_who_names_step_and_label_is_told_the_labels_of_that_step(noria: Noria) -> None:
    flow = Workflow("labels").parallel(asks("a"), asks("b")).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start(1)
        with pytest.raises(StepNotSuspended, match="in 'a' has the label 'b-1'. Available labels: 'a-1' "):
            await run.resume(1, step="a", label="b-1")
        with pytest.raises(RunNotActive, match=r"is suspended; resume\(\)"):
            await run.restart()
        assert (await run.resume(1, step="a", label="a-1")).status == "suspended" and (await run.resume(1)).result == {"a": 2, "b": 2}


async def test_a_travels_data_is_for_what_suspends_and_is_refused_as_a_resumes_is(noria: Noria, server_url: str) -> None:
    class Answer(BaseModel):
        ok: bool
        note: str = "none"

    @step(resume=Answer)
    async def ask(x: Any, ctx: Context) -> Any:
        return ctx.suspend({"x": x}) if ctx.resume_data is None else ctx.resume_data.note

    flow = Workflow("asked").then(plus("a")).parallel(Workflow("in").then(plus("b")).then(ask).commit(), plus("c")).commit()
    async with noria.worker(flow), Noria.connect(server_url, namespace=noria.namespace) as by_id:
        run = noria.create_run(flow)
        await run.start(1)
        for target in ("a", "in", "in.b", "in.ask"):
            with pytest.raises(InvalidInput, match="resume data: step 'ask': \n- ok"):
                await run.time_travel(target, resume={"ok": "x"})
            with pytest.raises(InvalidInput, match="resume data: step 'ask': \n- ok"):
                await run.fork(target, resume={})
        assert (await run.time_travel("c", resume={"ok": "x"})).suspended[0].payload == {"x": 3}, "what stays suspended gets none"
        result = await by_id.create_run("asked", run.id).time_travel("in.b", resume={"ok": "x"})
        assert result.status == "suspended", "what only a worker can refuse it refuses to the step, not to the run"
        result = await run.time_travel("a", resume={"ok": True})
        assert result.result == {"in": "none", "c": 3} and result.steps["in"].resume_payload == {"ok": True, "note": "none"}
        assert result.steps["a"].resume_payload is None, "the target never suspended, another did"


async def test_a_suspension_that_a_travel_passes_takes_no_data(noria: Noria) -> None:
    flow = Workflow("passes").then(asks("a")).then(asks("b")).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start(1)
        assert (await run.time_travel("b", input=10, resume=5)).result == 15
        result = await run.time_travel("a", resume=6)
        assert [s.path for s in result.suspended] == [("b",)] and result.steps["a"].output == 7
        assert (await run.time_travel("a", resume=7)).result == 15, "both had suspended"


async def test_rival_streams_of_one_command_give_the_same_events_by_the_api_too(noria: Noria, server_url: str) -> None:
    flow = Workflow("rivals").parallel(asks("a"), asks("b")).commit()
    async with noria.worker(flow), Noria.connect(server_url, namespace=noria.namespace, via="api") as api:

        async def events(client: Noria, run_id: str, verb: str) -> list[RunEvent]:
            run = client.create_run("rivals", run_id)
            stream = run.resume_stream(1, step="a") if verb == "resume" else run.time_travel_stream("a", resume=3)
            return [event async for event in stream]

        for clients in ((api, api), (noria, api), (noria, noria)):
            run = noria.create_run(flow)
            await run.start(1)
            for verb in ("resume", "travel"):
                async with asyncio.timeout(20):
                    one, other = await asyncio.gather(*(events(client, run.id, verb) for client in clients))
                for seen in (one, other):  # a travel that came when the other was over is one of its own
                    assert [e.type for e in seen] == ["workflow-step-start", "workflow-step-result", "workflow-finish"], verb
                assert one == other or verb == "travel"


async def test_a_cancel_that_a_travel_undoes_returns(noria: Noria) -> None:
    flow = Workflow("undone").then(plus("first")).then(asks("a")).commit()
    async with noria.worker(flow):
        for _ in range(15):
            run = noria.create_run(flow)
            await run.start(1)
            canceled, _ = await asyncio.gather(run.cancel(), run.time_travel("first"), return_exceptions=True)
            assert canceled is None
            assert (await run.result(timeout=20)).status in ("suspended", "canceled")
