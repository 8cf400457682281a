"""A time travel to one member of a block: what becomes of the others, which are somewhere on their way."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from tests.conformance.doubles import gives, statuses, waits

from noria import Context, Noria, RunResult, Workflow, step


@pytest.fixture
def calls() -> Counter[str]:
    return Counter()


def asking(id: str, calls: Counter[str]) -> Any:
    return waits(id, lambda x, given: x + given, calls)


def paths(result: RunResult) -> list[tuple[str, ...]]:
    return [s.path for s in result.suspended]


@pytest.mark.parametrize("block", ["parallel", "branch"])
async def test_one_that_is_suspended_deep_inside_stays(noria: Noria, calls: Counter[str], block: str) -> None:
    deep = Workflow("deep").then(gives("a", lambda x: x, calls)).then(Workflow("deeper").do_until(asking("b", calls), lambda x: x >= 10))
    members: list[Any] = [deep, asking("c", calls)]
    flow = Workflow("both")
    flow = (flow.parallel(*members) if block == "parallel" else flow.branch(*((lambda _: True, m) for m in members))).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        assert paths(await run.start(1, timeout=20)) == [("deep", "deeper", "b"), ("c",)]
        result = await run.time_travel("c", input=2, resume=5)
        assert paths(result) == [("deep", "deeper", "b")] and calls == {"a": 1, "b": 1, "c": 2}
        result = await run.resume(3)
        assert paths(result) == [("deep", "deeper", "b")] and calls["b"] == 3, "what the travel gave was for who was reached anew"
        result = await run.resume(6)
        assert (result.status, result.result) == ("success", {"deep": 10, "c": 7})


async def test_one_that_waits_for_a_timer_goes_on_or_begins_anew_but_is_not_made_up(noria: Noria, calls: Counter[str]) -> None:
    sleeper = Workflow("sleeper").then(gives("before", lambda x: x, calls)).sleep(2.3).then(gives("after", lambda x: x + 1, calls))
    top = Workflow("top").parallel(sleeper, asking("c", calls)).commit()
    below = Workflow("below").then(Workflow("outer").parallel(sleeper, asking("c", calls))).map(lambda out: out).commit()
    async with noria.worker(top, below, lease=5):
        run, nested = noria.create_run(top), noria.create_run(below)
        assert statuses(await run.start(1, timeout=20)) == {"sleeper": "waiting", "c": "suspended"}
        await nested.start(1, timeout=20)
        fork = run.fork("c", resume=5)
        found = await asyncio.gather(run.time_travel("c", resume=5), nested.time_travel("outer.c", resume=5), fork.start())
        assert [r.status for r in found] == ["success"] * 3 and calls["before"] == 4 and calls["after"] == 3
        assert [r.result for r in found] == [{"sleeper": 2, "c": 6}] * 3


async def test_one_that_was_interrupted_begins_anew(noria: Noria, calls: Counter[str]) -> None:
    begun, sprung = asyncio.Event(), False

    async def slow(x: int, ctx: Context) -> int:
        calls["slow"] += 1
        if not sprung:
            begun.set()
            await asyncio.Event().wait()
        return x

    flow = Workflow("both").parallel(step(slow, id="slow"), asking("c", calls)).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start_async(1)
        await asyncio.wait_for(begun.wait(), 10)
        await run.cancel()
        sprung = True
        assert (await run.time_travel("c", resume=5)).result == {"slow": 1, "c": 6} and calls["slow"] == 2


async def test_one_elsewhere_that_is_about_to_hear_of_a_cancel_begins_anew(noria: Noria, calls: Counter[str]) -> None:
    flow = Workflow("apart").parallel(asking("a", calls), asking("c", calls), placement="spread").commit()
    async with noria.worker(flow, lease=5), noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start(1, timeout=20)
        await run.cancel()
        assert paths(await run.time_travel("c")) == [("a",), ("c",)] and calls == {"a": 2, "c": 2}
        assert paths(await run.resume(5, step="c")) == [("a",)]
        assert (await run.resume(6)).result == {"a": 7, "c": 6}
