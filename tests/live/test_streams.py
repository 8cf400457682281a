"""Streams against a hostile world: no reader, slow readers, cut connections, a dead server, facts that aged out."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from tests.chaos.proxy import Proxy
from tests.conformance.doubles import drained, gives, told, types

from noria import Context, InvalidInput, Noria, NoWorker, RunEvent, RunNotFound, Workflow, step
from noria.embedded import start_server
from noria.ports import ActorKey


def chatty(chunks: int, size: int = 0, pause: float = 0.0) -> Workflow:
    @step
    async def talk(ctx: Context) -> int:
        for n in range(chunks):
            await ctx.write({"n": n, "fill": "x" * size})
            await asyncio.sleep(pause)
        return chunks

    return Workflow("chatty").then(talk).then(gives("after", lambda n: n)).commit()


def numbers(events: list[RunEvent]) -> list[int]:
    return [data["output"]["n"] for data in told(events, "step-output")]


def asking() -> Workflow:
    @step
    async def ask(x: int, ctx: Context) -> int:
        return ctx.resume_data if ctx.resume_data is not None else ctx.suspend({"x": x}, label="asked")

    return Workflow("asking").then(gives("begin", lambda x: x + 1)).then(ask).then(gives("end", lambda x: x * 2)).commit()


async def test_observers_see_the_same_events_live_finished_and_before_the_run_began(noria: Noria, server_url: str) -> None:
    flow = chatty(20, pause=0.002)
    async with Noria.connect(server_url, namespace=noria.namespace) as other, noria.worker(flow, lease=5):
        early = asyncio.create_task(drained(other.create_run("chatty", "watched").observe()))
        await asyncio.sleep(0.1)
        run = noria.create_run(flow, "watched")
        stream = run.stream()
        live = asyncio.create_task(drained(other.create_run("chatty", "watched").observe()))
        events = await drained(stream)
        late = other.create_run("chatty", "watched").observe()
        seen = [await early, await live, await drained(late)]
        assert (await late.result()).result == 20
    assert types(events)[:2] == ["start", "step-start"] and types(events)[-1] == "finish" and numbers(events) == list(range(20))
    for other_events in seen:
        assert other_events == events


async def test_an_observer_that_looks_while_the_run_begins_misses_nothing(noria: Noria, server_url: str) -> None:
    async with Proxy(server_url) as far, Noria.connect(far.url, namespace=noria.namespace) as other, noria.worker(chatty(2)):
        await other.broker.provision()
        far.delay_seconds = 0.03
        watching = list[asyncio.Task[list[RunEvent]]]()
        for n in range(24):
            watching.append(asyncio.create_task(drained(other.create_run("chatty", f"r{n}").observe(), 20)))
            await asyncio.sleep(n / 100)  # at every moment of its looking
            await noria.create_run("chatty", f"r{n}").start(None)
        for n, events in enumerate(await asyncio.gather(*watching)):
            assert numbers(events) == [0, 1], n


async def test_a_streams_result_is_that_of_its_stretch_whatever_came_later(noria: Noria) -> None:
    flow = asking()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        first, unread = run.stream(1), run.observe(close_on_suspend=True)
        assert types(await drained(first))[-1] == "finish"
        again = run.resume_stream(5)
        async for event in again:
            if event.type == "workflow-finish":
                break
        travel = run.time_travel_stream("ask")
        assert types(await drained(travel))[-1] == "finish"
        await run.cancel()
        parked, resumed, travelled = await first.result(), await again.result(), await travel.result()
        assert (await unread.result()).status == (await run.result()).status == "canceled"
    assert (parked.status, parked.suspended[0].payload, resumed.status, resumed.result) == ("suspended", {"x": 2}, "success", 10)
    assert (travelled.status, travelled.suspended[0].labels) == ("suspended", ("asked",)) and parked.run_id == run.id


async def test_an_observer_goes_past_what_was_resumed(noria: Noria) -> None:
    flow = asking()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start(1)
        assert types(await drained(run.observe(close_on_suspend=True)))[-2:] == ["step-suspended", "finish"]
        await run.resume(5)
        for options in ({}, {"close_on_suspend": True}):
            events = await drained(run.observe(**options))
            assert [d["status"] for d in told(events, "finish")] == ["suspended", "success"]


async def test_nobody_reads_two_thousand_events_and_the_run_does_not_care(noria: Noria) -> None:
    flow = chatty(2000)
    async with noria.worker(flow, lease=5):
        began = time.perf_counter()
        await noria.run(flow, timeout=30)
        alone = time.perf_counter() - began
        stream = noria.create_run(flow).stream()
        reader = aiter(stream)
        assert (await anext(reader)).type == "workflow-start"  # and no further
        began = time.perf_counter()
        assert (await stream.result()).result == 2000
        unread = time.perf_counter() - began
        events = [e async for e in reader]
    print(f"2,000 events: {alone:.2f} s unobserved, {unread:.2f} s with a reader that does not read")
    assert numbers(events) == list(range(2000)) and events[-1].type == "workflow-finish"
    assert unread < 4 * alone + 0.5


async def test_a_slow_reader_holds_a_window_and_misses_nothing(noria: Noria) -> None:
    flow = chatty(250, size=100_000)  # three windows
    async with noria.worker(flow, lease=5):
        stream = noria.create_run(flow).stream()
        reader = aiter(stream)
        first = [await anext(reader), await anext(reader)]
        await stream.result()
        await asyncio.sleep(0.3)
        events = first + [e async for e in reader]
    assert numbers(events) == list(range(250)) and types(events)[-1] == "finish"


async def test_no_gap_when_the_readers_connection_is_cut(noria: Noria, server_url: str) -> None:
    flow, cuts = chatty(400, pause=0.004), 0
    async with Proxy(server_url) as proxy, Noria.connect(proxy.url, namespace=noria.namespace) as far, noria.worker(flow, lease=5):
        run = noria.create_run(flow, "cut")
        watching = asyncio.create_task(drained(far.create_run("chatty", "cut").observe(), 40))
        running = asyncio.create_task(run.start())
        for _ in range(3):
            await asyncio.sleep(0.4)
            await proxy.cut(0)
            cuts += 1
        await running
        events = await watching
        assert events == await drained(run.observe())
    assert cuts >= 3 and numbers(events) == list(range(400))


async def test_no_gap_when_the_server_dies(tmp_path: os.PathLike[str]) -> None:
    server = await start_server(tmp_path)
    port = int(server.url.rpartition(":")[2])
    flow = Workflow("long")
    for n in range(40):
        flow = flow.then(gives(f"s{n}", lambda x: x)).sleep(0.02)
    try:
        async with Noria.connect(server.url) as noria, noria.worker(flow.commit(), lease=5):
            run = noria.create_run("long")
            watching = asyncio.create_task(drained(run.stream(1), 40))
            await asyncio.sleep(0.5)
            os.kill(server.pid, signal.SIGKILL)
            await asyncio.to_thread(server.process.wait, 10)
            server = await start_server(tmp_path, port)
            events = await watching
        results = [e.step for e in events if e.type == "workflow-step-result" and e.step and e.step.startswith("s") and "sleep" not in e.step]
        assert results == [f"s{n}" for n in range(40)] and types(events)[-1] == "finish"
    finally:
        await server.stop()


async def test_large_chunks_and_inputs_arrive_whole(noria: Noria) -> None:
    large = "y" * 300_000

    @step
    async def talk(x: str, ctx: Context) -> list[str]:
        await ctx.write({"large": x})
        await ctx.emit("mine", [x])
        return [x, x]

    flow = Workflow("large").then(talk).foreach(gives("item", lambda x: x)).sleep(0.01).commit()
    async with noria.worker(flow, lease=5):
        events = await drained(noria.create_run(flow).stream(large))
    assert told(events, "step-output") == [{"output": {"large": large}}] and told(events, "mine") == [[large]]
    assert [d["input"] for d in told(events, "step-start")] == [large, [large, large]]
    assert [d["output"] for d in told(events, "step-progress")] == [large, large] and told(events, "step-waiting")[0]["input"] == [large, large]


async def test_events_of_nested_steps_are_dotted_and_the_engines_names_are_its_own(noria: Noria) -> None:
    @step
    async def inner(x: int, ctx: Context) -> int:
        await ctx.write("w")
        await ctx.emit("mine", "e")
        try:
            await ctx.emit("workflow-finish", {"status": "success"})
        except InvalidInput:
            return x
        raise AssertionError

    flow = Workflow("outer").then(Workflow("ship").then(inner)).commit()
    async with noria.worker(flow, lease=5):
        events = await drained(noria.create_run(flow).stream(1))
    assert [(e.type.removeprefix("workflow-"), e.step, e.path) for e in events] == [
        ("start", None, ()), ("step-start", "ship", ("ship",)), ("step-start", "ship.inner", ("ship",)),
        ("step-output", "ship.inner", ("ship",)), ("mine", "ship.inner", ("ship",)), ("step-result", "ship.inner", ("ship",)),
        ("step-result", "ship", ("ship",)), ("finish", None, ()),
    ]  # fmt: skip


async def test_a_finish_tells_the_usage_that_steps_wrote(noria: Noria) -> None:
    @step
    async def agent(x: int, ctx: Context) -> int:
        await ctx.write({"type": "finish", "usage": {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30}})
        return x

    flow = Workflow("agents").then(agent).parallel(agent.clone(id="b"), agent.clone(id="c")).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        events = await drained(run.stream(1))
        assert events[-1].data["usage"] == {"input_tokens": 30, "output_tokens": 60, "total_tokens": 90}
        assert (await drained(run.observe()))[-1].data == events[-1].data


async def test_a_stream_without_a_worker_ends_at_its_timeout(noria: Noria) -> None:
    flow = asking()
    stream = noria.create_run(flow).stream(1, timeout=0.3)
    assert types(await drained(stream, 5)) == ["start"]
    with pytest.raises(NoWorker):
        await stream.result()


async def test_who_watches_a_run_that_is_deleted_meanwhile_comes_to_an_end(noria: Noria) -> None:
    flow = asking()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start(1)
    stream = run.observe()
    watching, waiting = asyncio.create_task(drained(stream, 30)), asyncio.create_task(stream.result())
    async for event in run.observe(close_on_suspend=True):  # the other one sees as much by then
        assert event.sequence
    await noria.runs.delete(run.id, force=True)  # nobody hosts it, so that no last fact tells
    assert set(types(await watching)) <= {"start", "step-start", "step-result", "step-suspended", "finish"}
    with pytest.raises(RunNotFound, match="deleted"):
        await waiting


async def test_observing_what_aged_out_or_was_deleted(noria: Noria) -> None:
    flow, log = asking(), noria.broker.log

    async def forget(run_id: str) -> None:
        subjects = noria.broker.subjects
        for kind in ("run", "live"):
            wish = {"filter": subjects.below(kind, ActorKey("asking", run_id))}
            await noria.broker.connection.api(f"STREAM.PURGE.{subjects.runs}", wish)
        assert await log.last(ActorKey("asking", run_id)) is None

    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow, "old", resource_id="me")
        await run.start(1)
        await forget("old")
        parked = await drained(run.observe(close_on_suspend=True))
        assert [(e.type, e.data.get("status")) for e in parked] == [("workflow-start", None), ("workflow-finish", "suspended")]
        watching = asyncio.create_task(drained(run.observe()))
        await asyncio.sleep(0.1)
        stream = run.resume_stream(7)
        events = await drained(stream)
        assert [(e.type, e.step) for e in events][:2] == [("workflow-step-start", "ask"), ("workflow-step-result", "ask")]
        assert told(events, "step-start")[0]["input"] == 2 and told(await watching, "finish")[-1]["result"] == 14
        await forget("old")
        over = await drained(run.observe())
        assert [e.type for e in over] == ["workflow-start", "workflow-finish"] and over[0].data == {"input": 1, "resource_id": "me"}
        assert over[1].data["result"] == 14 and over == await drained(run.observe())
        await noria.runs.delete("old")
        gone = run.observe()
        assert await drained(gone) == []
        with pytest.raises(RunNotFound, match="deleted"):
            await gone.result()
