"""Spread children compared with the same in place, and what it costs to tell them."""

from __future__ import annotations

from typing import Any

from noria import Context, Noria, Workflow, step
from noria.limits import SHARED_BYTES
from noria.ports import ActorKey


async def test_step_by_step_a_sleep_in_a_spread_child_is_followed_by_one_step(noria: Noria) -> None:
    ran: list[tuple[str | None, int]] = []

    @step
    async def ask(x: int, ctx: Context) -> int:
        if x == 0 and ctx.resume_data is None:
            ctx.suspend()
        return x

    async def told(x: int, ctx: Context) -> int:
        ran.append((ctx.step_id, x))
        return x

    item = Workflow("item").then(ask).sleep(lambda x: 2.2 if x else 0).then(step(told, id="one")).then(step(told, id="two"))
    flow = Workflow("stepwise-sleep").foreach(item, concurrency=3, placement="spread").commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert (await run.start([0, 1], timeout=30)).status == "suspended"
        result = await run.resume(5, index=0, per_step=True)
        for made in range(1, 5):
            assert result.status == "paused" and len(ran) == made - 1, (made, ran)
            result = await run.resume(per_step=True)
            if result.status == "paused" and len(ran) < made:  # it waited for the sleep
                result = await run.resume(per_step=True)
        last = await run.resume() if result.status == "paused" else result
    assert (last.status, last.result, sorted(ran)) == ("success", [0, 1], [("one", 0), ("one", 1), ("two", 0), ("two", 1)])


async def test_who_wakes_from_a_sleep_elsewhere_sees_what_came_meanwhile(noria: Noria) -> None:
    @step
    async def work(x: int, ctx: Context) -> list[Any]:
        if x == 0:
            ctx.set_state(found=7)
            ctx.request_context["by"] = "first"
        return [ctx.state.get("found"), ctx.request_context.get("by")]

    item = Workflow("item").sleep(lambda x: 2.2 if x else 0).then(work)
    flow = Workflow("wakes").foreach(item, concurrency=3, placement="spread").commit()
    async with noria.worker(flow, lease=5):
        result = await noria.run(flow, [1, 0, 2], timeout=30)
    assert (result.status, result.result) == ("success", [[7, "first"]] * 3)


async def test_a_large_state_is_stored_once_for_all_children(noria: Noria) -> None:
    size, items = 100_000, 60

    @step
    async def look(x: int, ctx: Context) -> Any:
        if ctx.resume_data is None:
            ctx.suspend()
        assert len(ctx.state["large"]) == len(ctx.request_context["large"]) == size
        ctx.set_state({f"seen{x}": ctx.resume_data})
        return [x, ctx.state["small"], "gone" in ctx.request_context]

    @step
    async def drop(x: list[int], ctx: Context) -> list[int]:
        del ctx.request_context["gone"]
        ctx.set_state(small=2)
        return x

    flow = Workflow("large-state").then(drop).foreach(look, concurrency=items, placement="spread").commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        given = {"large": "x" * size, "small": 1}
        first = await run.start(list(range(items)), state=given, request_context={"large": "y" * size, "gone": 1}, timeout=30)
        assert len(first.suspended) == items
        second = await run.resume("a", index=3, request_context={"more": 1})
        assert (second.status, len(second.suspended)) == ("suspended", items - 1)
        last = await run.resume("b")
    assert (last.status, last.result) == ("success", [[x, 2, False] for x in range(items)])
    assert last.state == {**given, "small": 2, **{f"seen{x}": "a" if x == 3 else "b" for x in range(items)}}
    key = ActorKey("large-state", run.id)
    sent = [e for e in await noria.broker.commands.read_tree(key) if e.actor.path]
    assert len(sent) == 2 * items and max(len(e.body) for e in sent) < 2 * SHARED_BYTES
    info = await noria.broker.connection.api(f"STREAM.INFO.{noria.broker.subjects.blobs}")
    assert info["state"]["bytes"] < 20 * size, "not once for each child"
