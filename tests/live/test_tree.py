"""Child actors: spread over processes, wide, and asleep."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
from pydantic import BaseModel

from noria import Context, Noria, Workflow, step
from noria.client import waiting
from noria.contract.envelopes import decode
from noria.contract.facts import StepEnded
from noria.contract.values import loads
from noria.embedded import start_server
from noria.limits import CHILD_WINDOW, MAX_INLINE_BYTES
from noria.ports import ActorKey

Placement: TypeAlias = Literal["local", "spread"]
WORKER = textwrap.dedent(
    """
    import asyncio, os, sys
    from noria import Noria, Workflow, step
    url, namespace = sys.argv[1:3]
    async def work(x):
        await asyncio.sleep(0.1)
        return [x, os.getpid()]
    flow = Workflow("wide").foreach(step(work, id="work"), concurrency=60, placement="spread").commit()
    async def main():
        async with Noria.connect(url, namespace=namespace) as noria, noria.worker(flow, concurrency=20, lease=5):
            print("ready", flush=True)
            await asyncio.Event().wait()
    asyncio.run(main())
    """
)


async def in_processes(noria: Noria, url: str, count: int, items: int) -> tuple[list[list[int]], float]:
    """Outputs and seconds of the wide foreach with so many worker processes."""
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, url, noria.namespace], stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            await asyncio.to_thread(worker.stdout.readline)
        began = time.monotonic()
        result = await noria.create_run("wide").start(list(range(items)), timeout=50)
        assert result.status == "success", result.error
        return result.result, time.monotonic() - began
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


async def test_a_spread_foreach_is_executed_by_three_workers_and_so_much_faster(noria: Noria, server_url: str) -> None:
    outputs, three = await in_processes(noria, server_url, 3, 300)
    hosts = [pid for _, pid in outputs]
    assert [x for x, _ in outputs] == list(range(300)) and len(set(hosts)) == 3
    assert all(hosts.count(pid) >= 50 for pid in set(hosts)), "each has its share"
    root = ActorKey("wide", (await noria.runs.list("wide")).runs[0].run_id)
    facts = await noria.broker.log.read_tree(root)
    ended = [e.actor.path for e in facts for fact in decode(e.body).facts if isinstance(fact, StepEnded)]
    assert sorted(ended) == sorted(f"work={n}" for n in range(300)), "each item is recorded once"
    begun = [e.actor.path for e in await noria.broker.log.read_live(root.tree) if loads(e.body)["type"].endswith("workflow-step-start.v1")]
    assert sorted(path for path in begun if path) == sorted(ended), "and executed once"
    alone, one = await in_processes(noria, server_url, 1, 300)
    assert len({pid for _, pid in alone}) == 1
    print(f"300 items of 0.1 s, 20 slots each: {three:.2f} s on three workers, {one:.2f} s on one, {one / three:.1f} times as fast")
    assert one / three > 1.4, "three are the aim, less when the processor is shared with others"


async def test_parents_that_only_watch_do_not_starve_their_children(noria: Noria) -> None:
    @step
    async def child(x: int) -> int:
        await asyncio.sleep(0.001)
        return x + 1

    flow = Workflow("parents").foreach(child, concurrency=10, placement="spread").commit()
    async with noria.worker(flow, concurrency=4, lease=5):
        results = await asyncio.gather(*(noria.run(flow, list(range(10)), timeout=50) for _ in range(100)))
    assert all(r.status == "success" and r.result == list(range(1, 11)) for r in results)


async def test_ten_thousand_items(noria: Noria) -> None:
    running, peak = 0, 0

    @step
    async def item(x: int) -> dict[str, object]:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1
        return {"x": x, "pad": "p" * 20}

    flow = Workflow("ten-thousand").foreach(item, concurrency=200).commit()
    async with noria.worker(flow, lease=10):
        run = noria.create_run(flow)
        result = await run.start(list(range(10_000)), timeout=55)
        record = await run.get()
    assert result.status == "success" and [o["x"] for o in result.result] == list(range(10_000)) and 2 <= peak <= 200
    assert record is not None and len(record.steps["item"].output) == 10_000
    stored = await noria.broker.records.get(run._key)
    assert stored is not None and len(stored.body) <= MAX_INLINE_BYTES


async def test_by_default_what_does_not_fit_in_place_is_spread_where_there_are_others(noria: Noria, server_url: str) -> None:
    def flow(host: int) -> Workflow:
        @step
        async def item(x: int) -> int:
            await asyncio.sleep(0.05)
            return host

        return Workflow("auto").foreach(item, concurrency=CHILD_WINDOW + 20).commit()

    async def children() -> int:
        run = noria.create_run("auto")
        result = await run.start(list(range(200)), timeout=30)
        assert result.status == "success" and len(result.result) == 200
        hosts.append(set(result.result))
        return len(await noria.broker.commands.read_tree(ActorKey("auto", run.id))) - 1

    async def knows(of_others: bool) -> None:
        async with asyncio.timeout(20):
            while first.host.peers.have("auto") != of_others:
                await asyncio.sleep(0.01)

    hosts: list[set[int]] = []
    async with noria.worker(flow(1)) as first, Noria.connect(server_url, namespace=noria.namespace) as other:
        assert await children() == 0, "alone it runs them all in place"
        async with other.worker(flow(2)):
            await knows(True)
            assert 0 < await children() < 200
        await knows(False)
        assert await children() == 0, "alone again"
    assert hosts == [{1}, {1, 2}, {1}]


async def test_spread_children_see_what_children_in_place_see(noria: Noria, server_url: str) -> None:
    hosts: set[int] = set()

    def flow(host: int, placement: str) -> Workflow:
        @step
        async def prepare(x: int, ctx: Context) -> list[int]:
            ctx.set_state(rate=x)
            ctx.request_context["tenant"] = "t1"
            return [x, x + 1, x + 2]

        @step
        async def look(x: int, ctx: Context) -> dict[str, object]:
            hosts.add(host)
            await asyncio.sleep(0.02)
            seen = {"prepared": ctx.step_result("prepare"), "doubled": ctx.step_result("double"), "missing": ctx.step_result("look", "none")}
            shared = {"init": ctx.init_data, "state": ctx.state, "tenant": ctx.request_context["tenant"], "resource": ctx.resource_id}
            return {"x": x, **seen, **shared, "path": ".".join(ctx.path)}

        @step
        async def double(x: int) -> list[int]:
            return [x * 2] * 4

        inner = Workflow("inner").then(double).foreach(look, concurrency=4, placement=placement)
        made = Workflow(f"sees-{placement}").then(prepare).foreach(look, concurrency=3, placement=placement)
        return made.map(lambda out: [o["x"] for o in out]).foreach(inner, concurrency=3, placement=placement).commit()

    async def outcome(placement: str) -> object:
        async with (
            Noria.connect(server_url, namespace=noria.namespace) as other,
            noria.worker(flow(1, placement), concurrency=4),
            other.worker(flow(2, placement), concurrency=4),
        ):
            run = noria.create_run(f"sees-{placement}", resource_id="r1")
            result = await run.start(5, timeout=30)
        assert result.status == "success", result.error
        return result.result, result.steps["look"].output, result.steps["inner"].output

    spread = await outcome("spread")
    assert hosts == {1, 2}
    assert spread == await outcome("local")
    assert spread[1][0]["prepared"] == [5, 6, 7] and spread[1][0]["doubled"] is None and spread[2][0][0]["doubled"] == [10] * 4


async def test_what_one_item_gave_is_not_the_result_of_its_foreach(noria: Noria) -> None:
    @step
    async def look(x: int, ctx: Context) -> object:
        return ctx.step_result("look", "none")

    @step
    async def after(x: object, ctx: Context) -> object:
        return ctx.step_result("look")

    flow = Workflow("one-by-one").foreach(look, concurrency=1).then(after).commit()
    async with noria.worker(flow):
        assert (await noria.run(flow, [1, 2, 3], timeout=20)).result == ["none"] * 3


async def test_spread_steps_see_what_the_workflow_in_place_around_them_made_of_its_input(noria: Noria) -> None:
    class Order(BaseModel):
        items: list[int]
        currency: str = "EUR"

    @step
    async def price(x: Any, ctx: Context) -> dict[str, object]:
        return {"x": x, "init": ctx.init_data}

    def flow(placement: str) -> Workflow:
        inner = Workflow("inner", input=Order).map(lambda order: order["items"]).foreach(price, concurrency=3, placement=placement).commit()
        straight = Workflow("straight", input=Order).parallel([price.clone(id="a")], placement=placement).commit()
        return Workflow(f"prices-{placement}").parallel([inner, straight]).commit()

    async def outcome(placement: str) -> object:
        async with noria.worker(flow(placement)):
            result = await noria.run(f"prices-{placement}", {"items": [1, 2]}, timeout=20)
        assert result.status == "success", result.error
        return result.result

    spread = await outcome("spread")
    assert spread["straight"]["a"]["init"] == {"items": [1, 2], "currency": "EUR"} == spread["inner"][1]["init"]
    assert spread == await outcome("local")


async def test_spread_children_suspend_and_are_resumed_through_the_root(noria: Noria) -> None:
    @step
    async def ask(x: int, ctx: Context) -> int:
        if ctx.resume_data is None:
            ctx.suspend({"x": x})
        return x * ctx.resume_data

    flow = Workflow("spread-asks").foreach(ask, concurrency=5, placement="spread").commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        first = await run.start([1, 2, 3], timeout=20)
        assert [s.index for s in first.suspended] == [0, 1, 2]
        second = await run.resume(10, index=1)
        assert [s.index for s in second.suspended] == [0, 2]
        last = await run.resume(100)
    assert (last.status, last.result) == ("success", [100, 20, 300])


async def test_a_spread_child_that_paused_after_its_one_step_goes_on_when_its_run_does(noria: Noria) -> None:
    @step
    async def ask(x: int, ctx: Context) -> int:
        if ctx.resume_data is None:
            ctx.suspend({"x": x})
        return x + ctx.resume_data

    async def double(x: int) -> int:
        return 2 * x

    item = Workflow("item").then(ask).then(step(double, id="once")).then(step(double, id="twice"))
    flow = Workflow("spread-pauses").foreach(item, placement="spread").commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert (await run.start([1], timeout=20)).status == "suspended"
        assert (await run.resume(10, per_step=True)).status == "paused"
        once = await run.resume(per_step=True)
        assert (once.status, once.steps["item"].status) == ("paused", "paused")
        last = await run.resume()
    assert (last.status, last.result) == ("success", [44])


@pytest.mark.parametrize("placement", ["local", "spread"])
async def test_step_by_step_an_item_without_a_step_of_its_own_lets_the_next_one_go_on(noria: Noria, placement: Placement) -> None:
    async def ask(x: int, ctx: Context) -> int:
        if ctx.resume_data is None:
            ctx.suspend({"x": x})
        return x

    async def more(x: int) -> int:
        done.append(x)
        return 10 * x

    done: list[int] = []
    quick = Workflow("quick").then(step(ask, id="first")).branch((lambda x: x == 2, step(more)))
    item = Workflow("item").parallel(quick, step(ask, id="second"))
    flow = Workflow("steps").foreach(item, concurrency=2, placement=placement).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert len((await run.start([1, 2], timeout=20)).suspended) == 4
        assert (await run.resume(0, step=["item", "quick", "first"], per_step=True)).status == "paused"
        assert (await run.resume(per_step=True)).status == "paused", "the second item's, which was resumed as well"
        assert (await run.resume(per_step=True)).status == "suspended", "of the first nothing is left but what waits for an answer"
        assert done == [2]
        last = await run.resume(0, step=["item", "second"])
    assert (last.status, last.result) == ("success", [{"quick": {}, "second": 1}, {"quick": {"more": 20}, "second": 2}])


async def test_a_cancel_reaches_spread_children(noria: Noria) -> None:
    seen: list[str] = []
    begun = asyncio.Event()

    @step
    async def hang(x: int, ctx: Context) -> int:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return x

    flow = Workflow("spread-hangs").foreach(hang, concurrency=3, placement="spread").commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start_async([1, 2, 3])
        await begun.wait()
        await asyncio.sleep(0.2)
        await run.cancel()
        record = await run.get()
        for _ in range(100):
            if len(seen) == 3:
                break
            await asyncio.sleep(0.02)
    assert record is not None and record.status == "canceled" and len(seen) == 3


async def test_a_sleep_survives_its_worker_and_its_server(tmp_path: Path, lag: Callable[[], float]) -> None:
    woke: list[float] = []

    @step
    async def note(x: int) -> int:
        woke.append(time.time())
        return x

    flow = Workflow("sleeps").sleep(4.0).then(note).commit()
    server = await start_server(tmp_path / "store")
    port = int(server.url.rpartition(":")[2])
    async with Noria.connect(server.url) as noria:
        run = noria.create_run(flow, "r1")
        async with noria.worker(flow, lease=5):
            began = time.time()
            await run.start_async(7)
            for _ in range(100):
                record = await run.get()
                if record is not None and record.status == "waiting":
                    break
                await asyncio.sleep(0.02)
            assert record is not None and record.status == "waiting"
        os.kill(server.pid, 9)
        server.process.wait()
        again = await start_server(tmp_path / "store", port)
        async with noria.worker(flow, lease=5):
            result = await run.result(timeout=20)
    await again.stop()
    assert result.status == "success" and result.result == 7 and len(woke) == 1
    assert 4.0 <= woke[0] - began <= 4.5 + 5 * lag(), woke[0] - began


def counted(monkeypatch: pytest.MonkeyPatch, port: Any, name: str) -> list[Any]:
    """The arguments of each call from now on."""
    calls, method = list[Any](), getattr(port, name)

    def call(*args: Any) -> Any:
        calls.append(args)
        return method(*args)

    monkeypatch.setattr(port, name, call)
    return calls


async def test_who_waits_for_a_wide_foreach_does_not_read_it_again_and_again(
    noria: Noria, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "FIRST_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(waiting, "LONGEST_LOOK_SECONDS", 0.02)
    going = asyncio.Event()

    @step
    async def item(n: int) -> str:
        if n == 200:
            await going.wait()
        return "x" * 100

    flow = Workflow("wide").foreach(item, concurrency=4).commit()
    async with Noria.connect(server_url, namespace=noria.namespace) as far, noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        async for event in run.stream(list(range(201))):
            if event.type == "workflow-step-progress" and event.data["completed"] == 200:
                break
        looks, readings = counted(monkeypatch, far.broker.log, "last"), counted(monkeypatch, far.broker.log, "read_tree")
        outcome = asyncio.create_task(far.create_run("wide", run.id).result())
        async with asyncio.timeout(30):
            while len(looks) < 30:
                await asyncio.sleep(0.01)
        assert len(readings) == 1
        going.set()
        result = await outcome
    assert result.status == "success" and len(result.result) == 201
